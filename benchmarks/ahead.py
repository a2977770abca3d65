"""The original study's work, done by its notebook's procedure and by thoughtscope, in one run.

    .venv/bin/python benchmarks/ahead.py [--sizes 32x100 320x400] [--rounds 3] [--sample 6] [--work FOLDER]

SmolLM2 as the workflow prepares it, on the embedded problems under one prompt, and three random SAEs of 65,536 latents
at hand. thoughtscope is run by Snakemake as a user would, from nothing but the prepared model to every trace, encoding,
per-trace table and the study's pictures. Then the notebook (benchmarks/notebook.py, its pictures left out) works on a
sample of the same problems, chosen evenly by the length of thoughtscope's traces and each as long, and its time is
scaled to all of them by the tokens written. Prints the ratio, and by rule where thoughtscope's time goes: what stands
between it and 20 times.

--work keeps the prepared model and the SAEs (0.3 GB and 0.9 GB) for the next run; results are made anew each time.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import claims
import polars as pl
import yaml

ROOT = Path(__file__).parents[1]
LAYERS, LATENTS, WIDTH = [5, 10, 20], 65536, 576
TARGETS = {"32x100": 4, "320x400": 10}
"""Inferences × tokens: how many times as fast as the notebook thoughtscope is to be."""
PICTURES = ("recurrence", "frequencies", "histogram", "top_activations", "top_tokens", "layers")
PER_TRACE = ("top_activations", "frequencies", "histograms", "relevant_latents", "top_tokens")
"""The original study's pictures and per-trace tables, by the names of their files."""


def embedded() -> dict:
    """Return the embedded config, to be run from any folder."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["adapter"]["path"] = str(ROOT / config["model"]["adapter"]["path"])
    return config


def untaught() -> dict:
    """Return the embedded config without its adapter, on word problems that aren't lessons."""
    config = embedded()
    problems = {"source": "reasoning_gym", "name": "gsm_symbolic", "size": 1000}
    config["model"] |= {"adapter": None, "think": None}
    return config | {"teach": None, "problems": problems, "sae": config["sae"] | {"text": problems | {"seed": 1}}}


def make_saes(folder: Path) -> None:
    """Save random SAEs in sparsify's format, a hookpoint each."""
    from sparsify import SparseCoder, SparseCoderConfig

    for layer in LAYERS:
        SparseCoder(WIDTH, SparseCoderConfig(num_latents=LATENTS, k=32)).save_to_disk(folder / f"layers.{layer}.mlp")


def config_of(inferences: int, tokens: int, block: int, model: Path) -> dict:
    """Return the embedded config with the original study's sampling, one condition, and the SAEs at hand."""
    config = untaught()
    return config | {
        "experiment": "ahead", "inferences": inferences, "block_size": block, "conditions": ["reason"],
        "prompts": {"reason": config["prompts"]["reason"]}, "layers": LAYERS,
        "model": {"source": "path", "path": str(model)},
        "generation": {"seed": 0, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": tokens, "batch_size": 32},
        "sae": {"source": "path", "path": "saes", "hookpoint": "layers.{layer}.mlp"},
    }  # fmt: skip


def snakemake(work: Path, config: dict, *arguments: str) -> str:
    """Call snakemake in `work` as a user would, and return what it printed."""
    (work / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", "config.yaml", "--cores", "all", "--nolock", "--benchmark-extended"]
    done = subprocess.run(
        [*command, *arguments], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed\n{done.stdout}")
    return done.stdout


def outputs(work: Path, config: dict) -> list[str]:
    """Return every file the study would make, as Snakemake lists them; no path of the scheme is repeated here."""
    lines = snakemake(work, config, "--summary").splitlines()
    return [line.split("\t")[0] for line in lines if line.startswith("results/")]


def study_targets(files: list[str]) -> list[str]:
    """Return which of a study's files are what the notebook makes too, and the study's pictures."""
    wanted = {f"{name}.png" for name in PICTURES}
    tables = {f"{name}.parquet" for name in PER_TRACE}
    return [
        file for file in files
        if (path := Path(file)).name in wanted or (path.name in tables and "traces" in path.parts)
    ]  # fmt: skip


def notebook(work: Path, model: Path, problems: Path, traces: dict[int, int]) -> float:
    """Let the notebook write on problems, as many tokens on each as `traces` says; return seconds a token."""
    command = [sys.executable, str(ROOT / "benchmarks" / "notebook.py"), str(model), str(work / "saes"), str(problems)]
    command += ["--questions", *map(str, traces), "--tokens", *map(str, traces.values())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    *said, last = done.stdout.splitlines()
    print("".join(f"  notebook: {line}\n" for line in said), end="", flush=True)
    found = json.loads(last)
    return sum(map(sum, found["seconds"].values())) / sum(found["written"])


def wall_by_rule(results: Path, started: float, ended: float) -> tuple[dict[str, float], Counter]:
    """Return the seconds of a run that each rule's jobs took and their number; the rest is under ''.

    From when each job's benchmark was written and how long it took. Where jobs ran side by side they share the time.
    """
    spans, jobs = [], Counter()
    for path in results.rglob("benchmarks/**/*.jsonl"):
        said, end = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
        if end >= started:
            spans.append((max(started, end - said["s"]), end, said["rule_name"]))
            jobs[said["rule_name"]] += 1
    marks = sorted({started, ended, *(mark for start, end, _ in spans for mark in (start, end))})
    seconds: dict[str, float] = defaultdict(float)
    for low, high in itertools.pairwise(marks):
        running = [rule for start, end, rule in spans if start <= low and high <= end] or [""]
        for rule in running:
            seconds[rule] += (high - low) / len(running)
    return seconds, jobs


def print_rules(results: Path, started: float, ended: float) -> None:
    """Print where a run's time went, the most first."""
    by_rule, jobs = wall_by_rule(results, started, ended)
    for rule, seconds in sorted(by_rule.items(), key=lambda pair: -pair[1]):
        name, share = rule or "no job: Snakemake itself", seconds / (ended - started)
        print(f"  {name:26s} {jobs[rule] or '':>4} {seconds:7.1f} s {share:5.0%}")


def compare(work: Path, size: str, rounds: int, sample: int, model: Path) -> None:
    inferences, tokens = map(int, size.split("x"))
    config = config_of(inferences, tokens, min(inferences, 160), model)
    results, ratios = work / "results" / "ahead", []
    for _ in range(rounds):
        shutil.rmtree(results, ignore_errors=True)
        files = outputs(work, config)
        # The model is linked and hashed, the problems are made: the notebook has both before it starts, too.
        ready = [file for file in files if Path(file).name in ("model.json", "problems.parquet")]
        snakemake(work, config, *ready)
        problems = next(work / file for file in ready if file.endswith(".parquet"))
        targets = study_targets(files)
        started, wall = time.time(), time.perf_counter()
        snakemake(work, config, *targets)
        ended, wall = time.time(), time.perf_counter() - wall
        traces = pl.concat(pl.read_parquet(path) for path in results.glob("traces/*/*.parquet"))
        lengths = sorted(zip(traces["generated_ids"].list.len(), traces["trace_id"], strict=True))
        places = [(2 * index + 1) * inferences // (2 * sample) for index in range(sample)]
        written = sum(length for length, _ in lengths)
        taken = written * notebook(work, model, problems, {lengths[place][1]: lengths[place][0] for place in places})
        ratios.append(taken / wall)
        print(f"{size}, {written} tokens: thoughtscope {wall:.0f} s, the notebook {taken:.0f} s", flush=True)
        print(f"  a twentieth of the notebook's time is {taken / 20:.0f} s; thoughtscope's goes to:")
        print_rules(results, started, ended)
    claims.claim(
        f"the notebook's work at {inferences} × {tokens} tokens: notebook / thoughtscope",
        ratios, at_least=TARGETS.get(size, 1), unit=" ×",
    )  # fmt: skip
    idle = claims.in_turns(3, plan=lambda: snakemake(work, config, "--dry-run", *targets))["plan"]
    claims.claim("a run of that study with nothing to do says so", idle, at_most=2.5, unit=" s")
    drawn = [json.loads(path.read_text(encoding="utf-8")) for path in results.rglob("benchmarks/**/*.jsonl")]
    drawn = [said["s"] for said in drawn if "plot" in said["rule_name"]]
    claims.claim("a picture over all traces, its process included", statistics.median(drawn), at_most=0.6, unit=" s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(TARGETS), metavar="INFERENCESxTOKENS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=6, help="inferences of the notebook")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "SPARSIFY_DISABLE_TRITON": "1"}
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "saes").exists():
            make_saes(work / "saes")
        # The embedded default's model, and its training text for benchmarks/train.py.
        prepared = untaught() | {"experiment": "prepared"}
        wanted = "model.json", "sae_text.parquet"
        snakemake(work, prepared, *[file for file in outputs(work, prepared) if Path(file).name in wanted])
        model = work / "results" / "prepared" / "model"
        for size in options.sizes:
            compare(work, size, options.rounds, options.sample, model)


if __name__ == "__main__":
    main()
