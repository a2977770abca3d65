"""The study's GPU work at its real sizes, with random weights: what it takes on this machine.

    .venv/bin/python benchmarks/study.py [--traces 16] [--prompt 110] [--written 400] [--layer 10] [--batch 16]

A Qwen2 of DeepSeek-R1-Distill-Qwen-1.5B's shape and a 65k SAE, k = 32, on the GPU if there is one. Prints tokens/s and
peak memory of generating, of reading the site alone and of reading it with those around it, as the workflow's jobs do.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import torch
from tokenizers import Tokenizer
from tokenizers import models as tokenizers
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope import devices, models
from thoughtscope.readings import block, reconstruction
from thoughtscope.saes import formats
from thoughtscope.traces import generate as traces

R1_DISTILL_QWEN_1_5B = Qwen2Config(
    vocab_size=151936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    max_position_embeddings=131072,
)


def report(what: str, tokens: int, started: float) -> None:
    """Print a stage's speed and its peak memory, which is the GPU's, or else the process's so far."""
    seconds = time.perf_counter() - started
    if torch.cuda.is_available():
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB of GPU memory"
        torch.cuda.reset_peak_memory_stats()
    else:
        peak = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB so far"
    print(f"{what}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s, {peak}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"traces": 16, "prompt": 110, "written": 400, "layer": 10, "batch": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    log = logging.getLogger("benchmark")
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    torch.manual_seed(0)

    with torch.device(devices.device()):
        model = Qwen2ForCausalLM._from_config(R1_DISTILL_QWEN_1_5B, dtype=models.resolve_dtype("auto"))
    model = model.eval().requires_grad_(False)
    devices.report(model, log)
    words = Tokenizer(tokenizers.WordLevel({str(index): index for index in range(1000)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    questions = [" ".join(map(str, row)) for row in torch.randint(0, 1000, (options.traces, options.prompt)).tolist()]
    problems = pl.DataFrame(
        {"trace_id": range(options.traces), "question": questions, "answer": ["1"] * options.traces},
        schema_overrides={"trace_id": pl.UInt32},
    )
    started = time.perf_counter()
    written = traces.generate(
        problems, model=model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=words),
        card=GenerationConfig(), condition="reason", prompt={"raw": "{question}"}, think=None, seed=0,
        temperature=0.6, top_p=0.95, max_new_tokens=options.written, batch_size=options.batch, log=log,
    )  # fmt: skip
    report("generate", options.traces * options.written, started)

    tokens = options.traces * (options.prompt + options.written)
    with tempfile.TemporaryDirectory() as folder:
        from sparsify import SparseCoder, SparseCoderConfig

        SparseCoder(1536, SparseCoderConfig(num_latents=65536, k=32)).save_to_disk(folder)
        sae = formats.load(folder, devices.device())
    hookpoint = f"layers.{options.layer}.mlp"
    manifest = {"widths": models.module_widths(R1_DISTILL_QWEN_1_5B), "hidden_size": 1536}
    for names in ([], reconstruction.compared_sites(hookpoint, manifest)):
        started = time.perf_counter()
        block.read(written, model=model, sae=sae, site=hookpoint, compared=names, log=log)
        report(f"read at {max(1, len(names))} sites", tokens, started)


if __name__ == "__main__":
    main()
