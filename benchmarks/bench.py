"""All claims about speed and size, with their targets and whether this machine meets them.

    .venv/bin/python benchmarks/bench.py [full | quick | gpu] [--work FOLDER]

Runs the benchmarks one after the other, prints their claims, and writes benchmarks/README.md with the machine. `quick`
takes smaller sizes and at most 8 minutes on two cores; `gpu` is benchmarks/gpu.py alone, written to benchmarks/gpu.md.
"""

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import claims

FOLDER = Path(__file__).parent


class Benchmark(NamedTuple):
    """A script of this folder, with what it is called with at each size; None: left out.

    WORK stands for a folder that the first ones fill: the prepared model, and the embedded default's results.
    """

    script: str
    full: str | None
    quick: str | None


BENCHMARKS = [
    Benchmark("ahead.py", "--work WORK", "--work WORK --sizes 32x100 --rounds 1 --sample 3"),
    Benchmark("default.py", "--work WORK", None),
    Benchmark("templated.py", "--results WORK/results/taught", None),
    Benchmark("decode.py", "--model WORK/results/prepared/model", "--model WORK/results/prepared/model --written 40"),
    Benchmark("encode.py", "", "--tokens 512 --runs 3"),
    Benchmark("delphi.py", "", "--tokens 512 --runs 3"),
    Benchmark("train.py", "--results WORK/results/prepared", "--results WORK/results/prepared --runs 1"),
    Benchmark("tables.py", "", "--traces 200"),
    Benchmark("growth.py", "", "--parts plan --inferences 20000"),
    Benchmark("report.py", "WORK/results/taught", None),
    Benchmark("gpu.py", "", ""),
]
GPU = [Benchmark("gpu.py", "", "")]


class Said(NamedTuple):
    """A number in what a benchmark prints for people, and the claim made of it: of the last match, or of all."""

    pattern: str
    claim: str
    bound: dict[str, Any]
    of: Callable[[Sequence[float]], float] = lambda found: found[-1]


def said_for_people() -> dict[str, list[Said]]:
    """Return the claims of benchmarks that print none themselves."""
    fast = claims.has_bfloat16()
    bfloat16 = {"unless": "" if fast else "its processor multiplies no bfloat16"}
    return {
        "decode.py": [
            Said(r"plain generate .* ([\d.]+) times as fast", "decoding at batch 32: generate / thoughtscope",
                 {"at_least": 4, "unit": " ×"} | bfloat16),
            Said(r"floor of a step .*: (\d+)% reached", "decoding: its products' time, of a step's",
                 {"at_least": 70, "unit": " %"} | bfloat16),
        ],
        "encode.py": [
            Said(r"sparsify / thoughtscope: ([\d.]+)", "encoding 1,536 → 65,536: sparsify / thoughtscope",
                 {"at_least": 3 if fast else 1, "unit": " ×"}),
            Said(r"thoughtscope .* (\d+) MB over the weights", "encoding: peak memory over the weights",
                 {"at_most": 1000, "unit": " MB"}),
        ],
        "train.py": [
            Said(r"one pass +([\d.]+) s an SAE", "training an SAE of the default", {"at_most": 12, "unit": " s"}),
        ],
        "report.py": [
            Said(r"(?m)^ +32 +1 +3 +10 +([\d.]+)", "the report of 32 traces, 3 layers", {"at_most": 10, "unit": " MB"}),
            Said(r"(?m)^ +500 +3 +6 +60 +([\d.]+)", "the report of 1,500 traces, 6 layers",
                 {"at_most": 60, "unit": " MB"}),
            Said(r"(?m)([\d.]+) +[\d.]+$", "a report opened, until a dashboard is there",
                 {"at_most": 2, "unit": " s"}, max),
        ],
    }  # fmt: skip


HEADER = """# Benchmarks

The claims about speed and size, each with the command that measures it. `make bench` makes this page; `make bench
BENCH=quick` does at smaller sizes, in at most 8 minutes on two cores; `make bench-gpu` measures a GPU. Ratios are of
ways that took turns in one run, and travel better than times; of several runs the median is judged, and their range
stands beside it. The notebook is the original study's procedure ([notebook.py](notebook.py)). Commands are those of
`.venv/bin/python benchmarks/…`; WORK is a folder that the first of them fills.
"""


class Result(NamedTuple):
    script: str
    arguments: str
    seconds: float
    said: str
    claims: list[dict[str, Any]]


def run(benchmark: Benchmark, arguments: str, work: Path) -> Result:
    """Run a benchmark, showing what it prints; a failure is a claim that isn't met."""
    print(f"\n{benchmark.script} {arguments}", flush=True)
    started, lines = time.perf_counter(), []
    command = [sys.executable, str(FOLDER / benchmark.script), *arguments.replace("WORK", str(work)).split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines.append(line)
    code, said = process.wait(), "".join(lines)
    found = list(claims.read(said))
    if not found:
        for reader in said_for_people().get(benchmark.script, []):
            if numbers := [float(number) for number in re.findall(reader.pattern, said)]:
                found.append(claims.judge(reader.claim, reader.of(numbers), **reader.bound))
    if code or not found:
        why = f"it ended with {code}" if code else "it printed no claim"
        found.append({"claim": f"{benchmark.script} runs", "target": "", "seen": why, "met": False})
    return Result(benchmark.script, arguments, time.perf_counter() - started, said, found)


def page(size: str, results: list[Result]) -> str:
    """Return the benchmarks' page."""
    total = sum(result.seconds for result in results) / 60
    lines = [HEADER, f"Sizes: {size}; {total:.0f} minutes, {datetime.date.today():%-d %B %Y}.", ""]
    lines += [f"- {name}: {value}" for name, value in claims.machine().items()]
    lines += ["", "| claim | command | target | seen | met |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        for claim in result.claims:
            met = {True: "yes", False: "**no**", None: "–"}[claim["met"]]
            command = f"{result.script} {result.arguments}".strip()
            lines.append(f"| {claim['claim']} | `{command}` | {claim['target']} | {claim['seen']} | {met} |")
    lines += ["", "## What else they printed"]
    for result in results:
        said = [line for line in result.said.splitlines() if not any(claims.read(line))]
        lines += ["", f"### {result.script}", "", "```", *said, "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="?", choices=["full", "quick", "gpu"], default="full")
    parser.add_argument("--work", type=Path, help="a folder that keeps model and SAEs for the next time")
    options = parser.parse_args()
    size = options.size
    asked = [(benchmark, benchmark.quick if size == "quick" else benchmark.full)
             for benchmark in (GPU if size == "gpu" else BENCHMARKS)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        results = [run(benchmark, arguments, work) for benchmark, arguments in asked if arguments is not None]
    print()
    for result in results:
        for claim in result.claims:
            met = {True: "met", False: "NOT MET", None: "–"}[claim["met"]]
            print(f"{met:8s} {claim['claim']}: {claim['seen']} (target {claim['target']})")
    path = FOLDER / ("gpu.md" if size == "gpu" else "README.md")
    if size != "gpu" or claims.machine()["GPU"] != "none":
        path.write_text(page(size, results), encoding="utf-8")
        print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
