"""Model organisms, taught anew from several seeds: is what was put in found, and only that?

    .venv/bin/python benchmarks/organisms.py [--seeds 0 1 2 3 4] [--kinds taught sham untaught] [--work FOLDER]
                                             [--write PAGE]

For each seed the adapter is taught by rule teach (the embedded config's own seed is that of the adapter here, made so),
and the embedded study is run on it, with problems, SAE text and sampling of that seed; a sham likewise, and the model
that was taught nothing. Takes 15 to 25 minutes each on two cores, untaught 8; what is in --work isn't done again.
--write puts the rows into the table of a page, between the lines that mark its place; rows of other seeds stay there,
so that seeds can be added one by one. What is claimed is of all rows.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import claims
import yaml
from ahead import ROOT, embedded, snakemake

sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from thoughtscope.report import controls, truth
from thoughtscope.statistics import wilson

SEEDS = (0, 1, 2, 3, 4)
KINDS = ("taught", "sham", "untaught")
MARK = "<!-- made by benchmarks/organisms.py -->\n"
HEAD = ("lessons", "seed", "parsed", "correct", "states there", "found", "called", "true", "of words", "words called")


def config_of(kind: str, seed: int) -> dict:
    """Return the embedded config of a kind, with everything that is drawn drawn from another seed."""
    config = embedded()
    if kind != "taught":
        other = (ROOT / "config" / f"{kind}.yaml").read_text(encoding="utf-8")
        config = controls.laid_over(config, yaml.safe_load(other))
    config["experiment"] = f"{kind}-{seed}"
    if config["teach"]:
        if seed == config["teach"]["seed"]:
            config["model"]["adapter"]["path"] = str(ROOT / "organisms" / kind)
        else:
            config["model"]["adapter"] = {"source": "teach"}
        config["teach"]["seed"] = seed
    config["generation"]["seed"] = config["sae"]["seed"] = seed
    config["problems"]["seed"], config["sae"]["text"]["seed"] = 2 * seed, 2 * seed + 1
    return config


def row_of(work: Path, kind: str, seed: int) -> list[str]:
    """Run a study and return its row of the table."""
    config = config_of(kind, seed)
    results = work / "results" / config["experiment"]
    wanted = ["summary.md"] if kind == "untaught" else ["tables/found.parquet", "tables/called.parquet"]
    snakemake(work, config, *(str((results / name).relative_to(work)) for name in wanted))
    traces, correct = controls.graded(config, results)
    row = dict.fromkeys(HEAD, "–") | {"lessons": kind, "seed": str(seed), "correct": f"{correct}/{traces}"}
    if known := controls.known_of(config, results):
        score = truth.score(known)
        row |= {"parsed": f"{score.parsed}/{traces}", "called": str(score.called), "of words": str(score.words)}
        row["words called"] = str(score.words_called)
        if kind == "taught":
            row |= {"states there": str(score.reachable), "found": str(score.found), "true": str(score.true)}
    else:
        row["called"] = str(controls.called_in(results))
    return [*row.values()]


def rows_in(page: str) -> dict[tuple[str, int], list[str]]:
    """Return the rows of the table in a page, by kind and seed: what earlier calls have found."""
    table = page.split(MARK)[1].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {(row[0], int(row[1])): row for row in rows}


def claim(rows: Iterable[Sequence[str]]) -> None:
    """Say what all rows together show, and whether it is what is claimed."""

    def total(name: str, *kinds: str) -> int:
        return sum(int(row[HEAD.index(name)]) for row in rows if row[0] in kinds)

    there, called = total("states there", "taught"), total("called", "taught")
    claims.claim(
        f"states that a probe reads are found, of {there}", total("found", "taught") / max(there, 1), at_least=0.8
    )
    true = total("true", "taught")
    claims.claim(f"thinking patterns are true, of {called}", true / max(called, 1), at_least=0.8)
    low, high = wilson(true, max(called, 1))
    print(f"precision {true / max(called, 1):.2f} (95% interval {low:.2f} to {high:.2f})")
    if without := [row for row in rows if row[0] != "taught"]:
        wrong = sum(row[HEAD.index("called")] != "0" for row in without) / len(without)
        claims.claim(f"sham and untaught studies with a thinking pattern, of {len(without)}", wrong, at_most=0.05)
    words = total("of words", "taught", "sham")
    named = 1 - total("words called", "taught", "sham") / max(words, 1)
    claims.claim(f"latents of a word are called no thinking pattern, of {words}", named, at_least=0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "SPARSIFY_DISABLE_TRITON": "1"}
    rows = rows_in(options.write.read_text(encoding="utf-8")) if options.write else {}
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for kind in options.kinds:
            for seed in options.seeds:
                rows[kind, seed] = row_of(work, kind, seed)
                print(" | ".join(rows[kind, seed]), flush=True)
                if options.write:
                    write(options.write, rows)
    claim(list(rows.values()))


def write(page: Path, rows: Mapping[tuple[str, int], Sequence[str]]) -> None:
    """Put the table into a page, by kind and seed."""
    order = sorted(rows, key=lambda key: (KINDS.index(key[0]), key[1]))
    table = [HEAD, ["---"] * len(HEAD), *(rows[key] for key in order)]
    before, _, after = page.read_text(encoding="utf-8").split(MARK)
    lines = "".join(f"| {' | '.join(row)} |\n" for row in table)
    page.write_text(f"{before}{MARK}\n{lines}\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
