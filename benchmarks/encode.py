"""Encoding speed and memory, at the size of the 65k SAE of R1-Distill-Qwen-1.5B or any other.

    .venv/bin/python benchmarks/encode.py [--tokens 2048] [--latents 65536] [--width 1536] [--layer 10] [--runs 5]

In turns, in one process, on the GPU if there is one: sparsify's `encode` in float32, ours on the same random states,
and the matrix product alone that ours begins with, in its arithmetic and in memory used again: the floor. Random rows
are the hard case: their pre-activations are close together. Then whole readings of a random Llama of that width,
forward pass, codes and tables, of the site alone and with the four around it. Prints medians, ratios run by run, the
share of tokens that bounds in bfloat16 prove where they are used, and the memory each `encode` adds to the weights, in
a process of its own (a copy in bfloat16 is counted; the time to make it isn't).
"""

import argparse
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

import polars as pl
import torch
from sparsify import SparseCoder, SparseCoderConfig

from thoughtscope import devices, models
from thoughtscope.readings import block, reconstruction
from thoughtscope.saes import bounded, coder, formats

TRACE, PROMPT = 256, 64
"""Tokens of a trace that is read, and how many of them are its prompt."""


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak() -> float:
    """Return the most memory held so far, in MB: the GPU's, or else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def load(which: str, folder: str) -> Any:
    if which == "sparsify":
        return SparseCoder.load_from_disk(folder, device=str(devices.device()), decoder=False)
    return formats.load(folder, devices.device())


def memory(which: str, folder: str, x: torch.Tensor) -> float:
    """Return the MB that encoding x adds."""
    sae = load(which, folder)
    (sae.encoder.weight if which == "sparsify" else sae.encoder).sum()  # reads what is mapped from disk
    before = peak()
    sae.encode(x)
    return peak() - before


def product(sae: bounded.BoundedTopK, x: torch.Tensor) -> Callable[[], None]:
    """Return the product `encode` begins with, and no more."""
    weight = sae._bound_weight if "_bound_weight" in vars(sae) else sae.encoder
    chunks = x.new_zeros(len(x), weight.shape[1], dtype=weight.dtype).split(coder.CHUNK_VALUES // len(weight))
    space = torch.empty(len(chunks[0]), len(weight), dtype=weight.dtype, device=x.device)

    def work() -> None:
        for rows in chunks:
            torch.mm(rows, weight.T, out=space[: len(rows)])

    return work


def readings(sae: bounded.BoundedTopK, width: int, layer: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """Return readings of random traces by a random Llama, by how many sites they are of."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = max(1, width // 64)
    config = LlamaConfig(vocab_size=1024, hidden_size=width, intermediate_size=8 * width // 3 // 64 * 64 or width,
                         num_hidden_layers=layer + 2, num_attention_heads=heads,
                         num_key_value_heads=heads // 3 if heads % 3 == 0 else heads)  # fmt: skip
    with torch.device(devices.device()):
        model = LlamaForCausalLM._from_config(config, dtype=models.resolve_dtype("auto")).eval().requires_grad_(False)
    ids = torch.randint(0, 1024, (max(1, tokens // TRACE), TRACE + 1)).tolist()
    parts = [{"segment": "prompt", "start": 0, "end": PROMPT}, {"segment": "answer", "start": PROMPT, "end": TRACE + 1}]
    traces = pl.DataFrame(
        {"trace_id": range(len(ids)), "condition": ["reason"] * len(ids), "prompt_ids": [row[:PROMPT] for row in ids],
         "generated_ids": [row[PROMPT:] for row in ids], "segments": [parts] * len(ids)}
    )  # fmt: skip
    hookpoint = f"layers.{layer}.mlp"
    names = reconstruction.compared_sites(hookpoint, {"widths": models.module_widths(config), "hidden_size": width})
    log = logging.getLogger("benchmark")

    def read(compared: list[str]) -> Callable[[], Any]:
        return lambda: block.read(traces, model=model, sae=sae, site=hookpoint, compared=compared, log=log)

    return {"reading, 1 site": read([]), f"reading, {len(names)} sites": read(names)}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"tokens": 2048, "latents": 65536, "width": 1536, "layer": 10, "runs": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(1)
    x = torch.randn(options.tokens, options.width, device=devices.device())
    if options.memory:
        print(memory(*options.memory, x))
        return

    with tempfile.TemporaryDirectory() as folder:
        SparseCoder(options.width, SparseCoderConfig(num_latents=options.latents, k=32)).save_to_disk(folder)
        added = {}
        for which in ("sparsify", "thoughtscope"):
            command = [sys.executable, __file__, "--memory", which, folder, "--tokens", str(options.tokens)]
            command += ["--width", str(options.width)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            added[which] = float(done.stdout.split()[-1])
        theirs, ours = load("sparsify", folder), load("thoughtscope", folder)
    dense: list[int] = []
    encode_dense = bounded.BoundedTopK._encode_dense

    def counted(self: bounded.BoundedTopK, x: torch.Tensor, space: torch.Tensor | None = None) -> Any:
        dense.append(len(x))
        return encode_dense(self, x, space)

    bounded.BoundedTopK._encode_dense = counted  # type: ignore[method-assign]
    theirs.encode(x[:8])
    ours.encode(x[:8])
    work = {"sparsify": lambda: theirs.encode(x), "thoughtscope": lambda: ours.encode(x), "product": product(ours, x)}
    work |= readings(ours, options.width, options.layer, options.tokens)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.runs):
        for name, one in work.items():
            dense.clear()
            times[name].append(seconds(one))
            if name == "thoughtscope":
                proven = 1 - sum(dense) / options.tokens
    for name, taken in times.items():
        median = statistics.median(taken)
        read = max(1, options.tokens // TRACE) * TRACE if name.startswith("reading") else options.tokens
        extra = f", {added[name]:.0f} MB over the weights" if name in added else ""
        print(f"{name:17s} {median:6.2f} s, {read / median:8.0f} tokens/s{extra}")
    for name, against in (("sparsify", "thoughtscope"), ("product", "thoughtscope")):
        ratios = [a / b for a, b in zip(times[name], times[against], strict=True)]
        print(f"{name} / {against}: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    if "_bound_weight" in vars(ours):
        print(f"proven by bounds: {proven:.1%} of tokens")


if __name__ == "__main__":
    main()
