"""Decoding, forward pass and encoding on a GPU, beside what its memory and its products alone would take.

    .venv/bin/python benchmarks/gpu.py [--rows 32 256] [--tokens 400] [--runs 3] [--small]

A Qwen2 of DeepSeek-R1-Distill-Qwen-1.5B's shape with random weights in bfloat16, and a k-SAE of 65,536 latents, k = 32,
at layers 5, 10 and 20. In one run, in turns: thoughtscope's decoding and plain `generate` at the same batch; its
encoding, sparsify's, and the bare float32 product. The floor of a decoding step is the weights and the cache read once
at the bandwidth of a copy. Without a GPU a small model goes the same ways on the processor (--small): that it runs.
"""

import argparse
import copy
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import claims
import polars as pl
import torch
from study import R1_DISTILL_QWEN_1_5B
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope.readings.states import read_states
from thoughtscope.saes import formats
from thoughtscope.traces import generate as traces
from thoughtscope.traces.decoding import Draws, write
from thoughtscope.traces.sampling import uniforms

LAYERS, PROMPT, K = (5, 10, 20), 110, 32
SMALL = Qwen2Config(
    vocab_size=2048, hidden_size=128, intermediate_size=256, num_hidden_layers=22, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip
PEAKED = 8.0
"""Random weights give each token about the same logit; times this, a nucleus has few tokens, as in a trained model."""


def new_model(config: Qwen2Config, device: torch.device) -> Qwen2ForCausalLM:
    """Return a random model; float32 on a processor, where small products in bfloat16 are slow."""
    torch.manual_seed(0)
    with device:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = Qwen2ForCausalLM._from_config(copy.deepcopy(config), dtype=dtype)
    model.lm_head.weight.data *= PEAKED
    return model.eval().requires_grad_(False)


def in_turns(device: torch.device, runs: int, **ways: Callable[[], object]) -> dict[str, list[float]]:
    """Time ways in turns, each once unmeasured, and each until the device is done."""

    def to_its_end(way: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    waited = {name: to_its_end(way) for name, way in ways.items()}
    for way in waited.values():
        way()
    return claims.in_turns(runs, **waited)


def bandwidth(device: torch.device, size: int) -> float:
    """Return the bytes a second that a copy of `size` bytes reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / statistics.median(in_turns(device, 5, copy=lambda: target.copy_(source))["copy"])


def step_bytes(model: Qwen2ForCausalLM, rows: int, context: float) -> float:
    """Return the bytes that a decoding step must read: every weight but the embedding's, and the cache of each row."""
    config, size = model.config, model.dtype.itemsize
    weights = sum(parameter.numel() for parameter in model.parameters()) - model.model.embed_tokens.weight.numel()
    head = config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head * context
    return size * (weights + rows * cache)


def decoding(model: Qwen2ForCausalLM, rows: int, tokens: int, runs: int, moved: float, unless: str) -> None:
    """Let both write `tokens` tokens in each of `rows` rows; none ends earlier."""
    log = logging.getLogger("decoding")
    prompts = torch.randint(0, model.config.vocab_size, (rows, PROMPT)).tolist()
    draws = Draws(uniforms(0, "reason", range(rows), tokens), 0.6, 0.95, range(rows))
    ids = torch.tensor(prompts, device=model.device)
    plain = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, max_new_tokens=tokens, pad_token_id=0)

    @torch.inference_mode()
    def generate() -> None:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=plain)

    def thoughtscope() -> None:
        write(model, prompts, draws, max_new_tokens=tokens, stop_ids=[], batch_size=rows, log=log)

    seconds = in_turns(model.device, runs, thoughtscope=thoughtscope, generate=generate)
    floor = tokens * step_bytes(model, rows, PROMPT + tokens / 2) / moved
    for name, taken in seconds.items():
        median = statistics.median(taken)
        speed, share = rows * tokens / median, floor / median
        print(f"decoding {rows} × {tokens}, {name}: {speed:,.0f} tokens/s, {share:.0%} of the bandwidth's floor")
    ratios = claims.ratios(seconds["generate"], seconds["thoughtscope"])
    what = f"decoding {rows} × {tokens} tokens: generate / thoughtscope"
    claims.claim(what, ratios, at_least=3, unit=" ×", unless=unless)


def forward(model: Qwen2ForCausalLM, rows: int, tokens: int, runs: int) -> None:
    """Let the model read what was written, as far as each layer's site; the deepest first."""
    written = torch.randint(0, model.config.vocab_size, (rows, PROMPT + tokens)).tolist()
    cuts = [("prompt", 0, PROMPT), ("answer", PROMPT, PROMPT + tokens)]
    segments = [dict(zip(("segment", "start", "end"), cut, strict=True)) for cut in cuts]
    table = [
        dict.fromkeys(traces.SCHEMA)
        | {"trace_id": trace, "condition": "reason", "segments": segments,
           "prompt_ids": ids[:PROMPT], "generated_ids": ids[PROMPT:]}
        for trace, ids in enumerate(written)
    ]  # fmt: skip
    block, log = pl.DataFrame(table, schema=traces.SCHEMA), logging.getLogger("forward")
    for layer in reversed(LAYERS):

        def read(site: str = f"layers.{layer}.mlp") -> None:
            for _ in read_states(block, model=model, names=[site], log=log):
                pass

        taken = statistics.median(in_turns(model.device, runs, read=read)["read"])
        speed = rows * (PROMPT + tokens - 1) / taken
        print(f"forward to layer {layer}, {rows} × {PROMPT + tokens}: {speed:,.0f} tokens/s")


@torch.inference_mode()
def encoding(device: torch.device, width: int, latents: int, tokens: int, runs: int, unless: str) -> None:
    """Encode random states: thoughtscope, sparsify, and the float32 product that both need."""
    if device.type == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig

    with tempfile.TemporaryDirectory() as folder:
        SparseCoder(width, SparseCoderConfig(num_latents=latents, k=K)).save_to_disk(folder)
        ours = formats.load(folder, device)
        theirs = SparseCoder.load_from_disk(folder, device=device, decoder=False)
    x = torch.randn(tokens, width, device=device)
    weight, space = theirs.encoder.weight, torch.empty(tokens, latents, device=device)
    seconds = in_turns(
        device, runs, thoughtscope=lambda: ours.encode(x), sparsify=lambda: theirs.encode(x),
        product=lambda: torch.mm(x, weight.T, out=space),
    )  # fmt: skip
    product = statistics.median(seconds["product"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"encoding, {name}: {tokens / median:,.0f} tokens/s, {product / median:.0%} of the product's")
    found, expected = ours.encode(x), theirs.encode(x)
    same = (found[1].sort(-1).values == expected.top_indices.sort(-1).values).all(-1).float().mean().item()
    theirs_sorted = expected.top_acts.sort(-1, descending=True).values
    worst = ((found[0] - theirs_sorted).abs() / theirs_sorted[:, :1]).max().item()
    print(f"encoding: the same latents as sparsify on {same:.2%} of tokens, activations within {worst:.1e}")
    ratios = claims.ratios(seconds["product"], seconds["thoughtscope"])
    claims.claim(
        "encoding on a GPU: its float32 product / thoughtscope", ratios, at_least=0.6, unit=" ×", unless=unless
    )
    ratios = claims.ratios(seconds["sparsify"], seconds["thoughtscope"])
    claims.claim("encoding on a GPU: sparsify / thoughtscope", ratios, at_least=1, unit=" ×", unless=unless)
    what = "encoding on a GPU: largest difference from sparsify's activations, in 1e-5 of the token's largest"
    claims.claim(what, worst / 1e-5, at_most=1, unless=unless)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", action="store_true", default=not torch.cuda.is_available())
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(torch.cuda.get_device_name() if device.type == "cuda" else "no GPU; the processor", flush=True)
    config, sizes, length = (SMALL, [4, 8], 12) if options.small else (R1_DISTILL_QWEN_1_5B, [32, 256], 400)
    latents, encoded = (4096, 256) if options.small else (65536, 8192)
    rows, tokens = options.rows or sizes, options.tokens or length
    unless = "a small model, that it runs" if options.small else ""
    moved = bandwidth(device, 2**26 if options.small else 2**31)
    print(f"a copy moves {moved / 1e9:,.0f} GB/s", flush=True)
    model = new_model(config, device)
    for count in rows:
        decoding(model, count, tokens, options.runs, moved, unless)
    del model
    model = new_model(config, device)  # decoding may have laid out the weights anew
    forward(model, max(rows), tokens, options.runs)
    del model
    encoding(device, config.hidden_size, latents, encoded, options.runs, unless)


if __name__ == "__main__":
    main()
