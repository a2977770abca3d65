"""Encoding as thoughtscope does it, beside sparsify's `encode` and a dense cache as delphi makes it.

    .venv/bin/python benchmarks/delphi.py [--tokens 1024] [--latents 65536] [--width 576] [--runs 5]

EleutherAI's delphi (its LatentCache, for SAEs of sparsify) scatters the codes of a batch into a dense (tokens, latents)
tensor and takes what isn't zero out of it again: what it keeps is what an activations table holds.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import claims
import torch
from sparsify import SparseCoder, SparseCoderConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope.saes import formats

LEAST = 1e-5
"""What delphi takes for zero."""


def dense_cache(sae: SparseCoder, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the codes of states are not zero, (active, 2), and the activations there, as delphi's cache does."""
    encoded = sae.encode(x)
    latents = torch.zeros(len(x), sae.num_latents).scatter_(-1, encoded.top_indices, encoded.top_acts)
    return torch.nonzero(latents.abs() > LEAST), latents[latents.abs() > LEAST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"tokens": 1024, "latents": 65536, "width": 576, "runs": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        SparseCoder(options.width, SparseCoderConfig(num_latents=options.latents, k=32)).save_to_disk(folder)
        sae = SparseCoder.load_from_disk(folder, decoder=False)
        ours = formats.load(folder, torch.device("cpu"))
        x = torch.randn(options.tokens, options.width)
        ours.encode(x[:8])  # makes what is made once
        seconds = claims.in_turns(
            options.runs, thoughtscope=lambda: ours.encode(x), sparsify=lambda: sae.encode(x),
            delphi=lambda: dense_cache(sae, x),
        )  # fmt: skip
        for name, taken in seconds.items():
            print(f"{name:12s} {options.tokens / statistics.median(taken):,.0f} tokens/s")
        size = f"{options.width} → {options.latents:,}"
        for name in ("sparsify", "delphi"):
            ratios = claims.ratios(seconds[name], seconds["thoughtscope"])
            claims.claim(f"encoding {size}: {name} / thoughtscope", ratios, at_least=1, unit=" ×")


if __name__ == "__main__":
    main()
