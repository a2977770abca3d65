"""How time grows with the study: its plan, one more block, one more layer. What tables take is in tables.py.

    .venv/bin/python benchmarks/growth.py [--parts plan added] [--inferences 100000]

plan: a dry run of 100,000 inferences in blocks of 256 over 6 layers and 2 conditions. added: a study of a tiny random
model is run, then again with one block more, then with one layer more; what the new block's (layer's) jobs take is
compared with what those of the others took.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import claims
from conftest import Study, build_model, new_study, write_jsonl


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a command to its end; return its seconds, the peak memory of its largest process in GB, and what it said."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        file.seek(0)
        said = file.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed\n{said[-3000:]}")
    return seconds, usage.ru_maxrss / 2**20, said


def plan(study: Study, inferences: int) -> None:
    """Plan a large study, and count the jobs that one more block takes."""

    def planned(inferences: int) -> tuple[float, float, int]:
        problems = {"source": "reasoning_gym", "name": "gsm_symbolic", "size": inferences}
        large = study.edit(problems=problems, inferences=inferences, block_size=256, layers=list(range(6)))
        seconds, peak, said = measured(large.command("--dry-run"), study.folder)
        return seconds, peak, int(re.search(r"^total +(\d+)", said, re.M)[1])

    seconds, peak, jobs = planned(inferences)
    print(
        f"{inferences:,} inferences in blocks of 256, 6 layers, 2 conditions: {jobs:,} jobs, {peak:.2f} GB to plan them"
    )
    claims.claim(f"a dry run of {inferences:,} inferences over 6 layers, 2 conditions", seconds, at_most=30, unit=" s")
    more = (planned(512)[2] - planned(256)[2]) / 2
    claims.claim("jobs that a block takes in a condition, over 6 layers: 1 to write it, 2 a layer", more, at_most=13)


def added(study: Study) -> None:
    """Run a study, then with a block more, then with a layer more; compare the new one's jobs with the others'."""

    def shares(kind: str) -> dict[str, float]:
        """Return the seconds of the jobs of each block (layer), as they were last run."""
        seconds: dict[str, float] = defaultdict(float)
        for path in study.results.rglob("benchmarks/**/*.jsonl"):
            job = json.loads(path.read_text(encoding="utf-8"))
            for value in job["wildcards"].values():
                found = re.fullmatch(r"(?P<block>\d+-\d+)|layers\.(?P<layer>\d+)\..*", value)
                if found and found[kind]:
                    seconds[found[kind]] += job["s"]
        return seconds

    def run(what: str, study: Study) -> None:
        started = time.perf_counter()
        jobs = study.run("--benchmark-extended").jobs
        print(f"{what}: {time.perf_counter() - started:.0f} s, {len(jobs)} jobs", flush=True)

    def compare(kind: str, new: str) -> None:
        seconds = shares(kind)
        share = statistics.mean(taken for name, taken in seconds.items() if name != new)
        claims.claim(f"one more {kind}: its jobs / another's", seconds[new] / share, at_most=1.15, unit=" ×")

    run("a study of 2 layers, 4 blocks, 2 conditions", study.edit(inferences=12, block_size=3, layers=[0, 1]))
    run("one more block", study.edit(inferences=15, block_size=3, layers=[0, 1]))
    compare("block", "00012-00014")
    run("one more layer", study.edit(inferences=15, block_size=3, layers=[0, 1, 2]))
    compare("layer", "2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=["plan", "added"], default=["plan", "added"])
    parser.add_argument("--inferences", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = new_study(Path(folder) / "study", build_model(Path(folder) / "model", layers=8))
        write_jsonl(study.folder / "problems.jsonl", times=4)
        if "plan" in options.parts:
            plan(study, options.inferences)
        if "added" in options.parts:
            added(study)


if __name__ == "__main__":
    main()
