"""All claims about speed and size, with their targets and whether this machine meets them.

    .venv/bin/python benchmarks/bench.py [full | quick | gpu]

Runs the benchmarks one after the other, prints their claims, and writes benchmarks/README.md with the machine. `quick`
takes smaller sizes and at most 8 minutes on two cores; `gpu` is benchmarks/gpu.py alone, written to benchmarks/gpu.md.
"""

import argparse
import datetime
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import claims

FOLDER = Path(__file__).parent


class Benchmark(NamedTuple):
    """A script of this folder, with what it is called with at each size; None: left out."""

    script: str
    full: str | None
    quick: str | None


BENCHMARKS = [
    Benchmark("ahead.py", "", "--sizes 32x100 --rounds 1 --sample 2"),
    Benchmark("default.py", "", None),
    Benchmark("decode.py", "", "--quick"),
    Benchmark("encode.py", "", "--tokens 512 --runs 3"),
    Benchmark("delphi.py", "", "--tokens 512 --runs 3"),
    Benchmark("train.py", "", "--quick"),
    Benchmark("tables.py", "", "--traces 200"),
    Benchmark("growth.py", "", "--parts plan --inferences 20000"),
    Benchmark("report.py", "", None),
    Benchmark("gpu.py", "", ""),
]
GPU = [Benchmark("gpu.py", "", "")]

HEADER = """# Benchmarks

The claims about speed and size, each with the command that measures it. `make bench` makes this page; `make bench
BENCH=quick` does at smaller sizes, in at most 8 minutes on two cores; `make bench-gpu` measures a GPU. Ratios are of
ways that took turns in one run, and travel better than times; of several runs the median is judged, and their range
stands beside it. The notebook is the original study's procedure ([notebook.py](notebook.py)).
"""


class Result(NamedTuple):
    command: str
    seconds: float
    said: str
    claims: list[dict[str, Any]]


def run(benchmark: Benchmark, arguments: str) -> Result:
    """Run a benchmark, showing what it prints; a failure is a claim that isn't met."""
    command = " ".join([".venv/bin/python", f"benchmarks/{benchmark.script}", *arguments.split()])
    print(f"\n{command}", flush=True)
    started, lines = time.perf_counter(), []
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / benchmark.script), *arguments.split()], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines.append(line)
    code, said = process.wait(), "".join(lines)
    found = list(claims.read(said))
    if code or not found:
        why = f"it ended with {code}" if code else "it printed no claim"
        found.append({"claim": f"{benchmark.script} runs", "target": "", "seen": why, "met": False})
    return Result(command, time.perf_counter() - started, said, found)


def page(size: str, results: list[Result]) -> str:
    """Return the benchmarks' page."""
    total = sum(result.seconds for result in results) / 60
    lines = [HEADER, f"Sizes: {size}; {total:.0f} minutes, {datetime.date.today():%-d %B %Y}.", ""]
    lines += [f"- {name}: {value}" for name, value in claims.machine().items()]
    lines += ["", "| claim | command | target | seen | met |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        for claim in result.claims:
            met = {True: "yes", False: "**no**", None: "–"}[claim["met"]]
            lines.append(f"| {claim['claim']} | `{result.command}` | {claim['target']} | {claim['seen']} | {met} |")
    lines += ["", "## What else they printed"]
    for result in results:
        said = [line for line in result.said.splitlines() if not any(claims.read(line))]
        lines += ["", f"### {Path(result.command.split()[1]).name}", "", "```", *said, "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="?", choices=["full", "quick", "gpu"], default="full")
    size = parser.parse_args().size
    asked = [(benchmark, benchmark.quick if size == "quick" else benchmark.full)
             for benchmark in (GPU if size == "gpu" else BENCHMARKS)]  # fmt: skip
    results = [run(benchmark, arguments) for benchmark, arguments in asked if arguments is not None]
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
