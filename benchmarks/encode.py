"""Encoding speed and memory against sparsify's own `encode`, at the size of the 65k SAE of R1-Distill-Qwen-1.5B.

    .venv/bin/python benchmarks/encode.py [--tokens 2048] [--latents 65536] [--width 1536] [--runs 5]

Both encode the same random states in float32, in turns, each in a process of its own so that peak memory is its own.
Prints the median time of each, the ratio run by run, the peak memory over what the weights take (a copy in bfloat16 is
counted, the time to make it isn't), and the share of tokens proven by bounds in bfloat16. Random rows are the hard
case: their pre-activations are close together.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))


def once(which: str, folder: str, tokens: int, width: int) -> dict[str, float]:
    """Encode once; return seconds, the peak memory added, in MB, and the share of tokens that bounds proved."""
    import torch

    torch.manual_seed(1)
    x = torch.randn(tokens, width)
    dense: list[int] = []
    if which == "thoughtscope":
        from thoughtscope.saes import coder, formats

        def counted(self, x, encode_dense=coder.Encoder._encode_dense):
            dense.append(len(x))
            return encode_dense(self, x)

        coder.Encoder._encode_dense = counted
        sae = formats.load_encoder(folder, torch.device("cpu"))
        weight = sae.weight
    else:
        from sparsify import SparseCoder

        sae = SparseCoder.load_from_disk(folder, decoder=False)
        weight = sae.encoder.weight
    with torch.inference_mode():
        weight.sum()  # reads what is mapped from disk
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sae.encode(x[:8])
        dense.clear()
        started = time.perf_counter()
        sae.encode(x)
        seconds = time.perf_counter() - started
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"s": seconds, "mb": added, "proven": 1 - sum(dense) / tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--latents", type=int, default=65536)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--once", nargs=2)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(*options.once, options.tokens, options.width)))
        return

    from sparsify import SparseCoder, SparseCoderConfig

    with tempfile.TemporaryDirectory() as folder:
        SparseCoder(options.width, SparseCoderConfig(num_latents=options.latents, k=32)).save_to_disk(folder)
        found: dict[str, list[dict[str, float]]] = {"thoughtscope": [], "sparsify": []}
        for _ in range(options.runs):
            for which, results in found.items():
                command = [sys.executable, __file__, "--once", which, folder]
                command += ["--tokens", str(options.tokens), "--width", str(options.width)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results.append(json.loads(done.stdout.strip().splitlines()[-1]))
    for which, results in found.items():
        seconds, memory = (statistics.median(result[key] for result in results) for key in ("s", "mb"))
        print(f"{which:13s} {seconds:6.2f} s, {memory:6.0f} MB over the weights, {options.tokens} tokens")
    print(f"proven by bounds: {min(result['proven'] for result in found['thoughtscope']):.1%} of tokens")
    ratios = [b["s"] / a["s"] for a, b in zip(*found.values(), strict=True)]
    print(f"sparsify / thoughtscope: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
