"""Training the SAEs of a study: a job a hookpoint against all in one pass over the text, after a run of the default.

    .venv/bin/python benchmarks/train.py [--results results/taught] [--layers 5 10 20] [--tokens 60000] [--runs 3]

Both train the same SAEs on the study's text, in turns, a process a job: start, imports and held-out measures count.
Prints the median seconds per SAE (on the clock, and of the processor, which other work disturbs less), the FVUs, the
ratio, and the floor: what the matrix products alone take that the pass can't do without, those of the model's blocks
and the SAEs' pre-activations, timed at their shapes. OMP_NUM_THREADS=1 keeps waiting threads out of the processor's
seconds.
"""

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))


def job(options: argparse.Namespace) -> None:
    """Train the layers' SAEs in one pass, as the script does; print the FVU of each."""
    import polars as pl

    from thoughtscope import files, models
    from thoughtscope.saes import train

    manifest = files.read_json(options.results / "model.json")
    manifest["folder"] = str(options.results / "model")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {f"layers.{layer}.mlp": Path(scratch) / str(layer) for layer in options.layers}
        train.train(
            pl.read_parquet(options.results / "sae_text.parquet"), model=models.load_model(manifest, "auto"),
            tokenizer=models.load_tokenizer(manifest), folders=folders, widths=manifest["widths"], k=32,
            num_latents=options.latents, tokens=options.tokens, heldout_tokens=8192, context=128,
            batch_size=options.batch, optimizer="signum", lr=None, seed=0, requested={}, log=logging.getLogger("train"),
        )  # fmt: skip
        found = {name: files.read_json(folder / "info.json")["heldout"]["fvu"] for name, folder in folders.items()}
    print(json.dumps(found))


def floor(options: argparse.Namespace) -> float:
    """Return the seconds (of the GPU, or of the processor) of the products alone: at a step's shape, the least of 7."""
    import torch

    from thoughtscope import files, models, sites

    manifest = files.read_json(options.results / "model.json")
    manifest["folder"] = str(options.results / "model")
    model = models.load_model(manifest, "auto")
    blocks = sites.blocks(model)[1]

    def seconds(weight: torch.Tensor) -> float:
        x = torch.randn(options.batch * 128, weight.shape[1], device=weight.device).to(weight.dtype)
        clock, times = time.perf_counter if weight.is_cuda else time.process_time, []
        for _ in range(7):
            started = clock()
            torch.nn.functional.linear(x, weight)
            if weight.is_cuda:
                torch.cuda.synchronize()
            times.append(clock() - started)
        return min(times)

    with torch.inference_mode():
        block = sum(seconds(module.weight) for module in blocks[0].modules() if isinstance(module, torch.nn.Linear))
        sae = seconds(torch.randn(options.latents, model.config.hidden_size, device=model.device))
    steps = (options.tokens + 8192) / (options.batch * 128)
    return steps * ((max(options.layers) + 1) * block + len(options.layers) * sae)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/taught"))
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--tokens", type=int, default=60000)
    parser.add_argument("--latents", type=int, default=2304)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--job", action="store_true")
    options = parser.parse_args()
    if options.job:
        job(options)
        return

    def run(layers: list[int]) -> tuple[float, float, dict[str, float]]:
        command = [sys.executable, __file__, "--job", "--results", str(options.results)]
        command += ["--tokens", str(options.tokens), "--latents", str(options.latents), "--batch", str(options.batch)]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command += ["--layers", *map(str, layers)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return seconds, busy, json.loads(done.stdout.strip().splitlines()[-1])

    import torch

    saes, floors, measured = len(options.layers), [], 0 if torch.cuda.is_available() else 1
    found: dict[str, list[tuple[float, float]]] = {"a job each": [], "one pass": []}
    for _ in range(options.runs):
        floors.append(floor(options))
        alone = [run([layer]) for layer in options.layers]
        found["a job each"].append((sum(part[0] for part in alone), sum(part[1] for part in alone)))
        seconds, busy, fvu = run(options.layers)
        found["one pass"].append((seconds, busy))
        apart = {name: value for part in alone for name, value in part[2].items()}
        print("FVU, one pass (a job each): " + ", ".join(f"{n} {fvu[n]:.4f} ({apart[n]:.4f})" for n in fvu))
    for which, times in found.items():
        seconds, busy = (statistics.median(column) / saes for column in zip(*times, strict=True))
        print(f"{which:10s} {seconds:6.1f} s an SAE on the clock, {busy:6.1f} s of the processor")
    share = statistics.median(floors) / statistics.median(times[measured] for times in found["one pass"])
    print(f"floor      {statistics.median(floors) / saes:6.1f} s an SAE; one pass reaches {share:.0%} of it")
    ratios = [a[measured] / b[measured] for a, b in zip(*found.values(), strict=True)]
    print(f"a job each / one pass: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
