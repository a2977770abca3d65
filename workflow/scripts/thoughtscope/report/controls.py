"""The studies whose truth is known, side by side: what was put in, and what was found. `make controls` calls it.

As a module it takes config files, over the first of which each other is laid, reads these studies under results/,
prints their table and writes results/controls.md and results/controls.html.
"""

import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from .. import files, paths
from ..evidence.checks import VERDICTS
from . import truth

HEAD = (
    "study",
    "put in",
    "traces",
    "correct",
    "states there",
    "of these found",
    "called thinking patterns",
    "of these true",
    "latents of a word",
    "of these called",
)
"""Columns of the table."""

PUT_IN = {"states": "thinking in states", "scattered": "its words, in random places", None: "nothing"}
"""What a model was taught, by the kind of its lessons."""

ABOUT = (
    "States there: those that a linear probe reads from the model (AUROC of 0.9 or more, on sentences without words of"
    " the lexicon). Found: a latent that is called a thinking pattern marks the state, however it is said. True: a"
    " thinking pattern that does so for any state. Latents of a word: active on words of the lexicon also where they"
    " mean nothing of the kind. No check of the verdict reads the truth."
)


def row(config: Mapping[str, Any], results: Path) -> tuple[list[str], list[str]]:
    """Return a study's row of the table, and what is to be said of it."""
    at = results / config["experiment"]
    if not (at / "report.html").exists():
        raise SystemExit(f"controls: there is no {at / 'report.html'}; run that study first, as 'make controls' does.")
    traces, correct = graded(config, at)
    known = known_of(config, at)
    cells = [config["experiment"], PUT_IN[known.kind if known else None], str(traces), str(correct)]
    if known is None:
        called = called_in(at)
        return [*cells, "–", "–", str(called), "0", "–", "–"], [
            f"The model was taught nothing. {called or 'No'} latents are called thinking patterns."
        ]
    score = truth.score(known)
    states = [str(score.reachable), str(score.found)] if known.kind == "states" else ["none", "–"]
    cells += [*states, str(score.called), str(score.true), str(score.words), str(score.words_called)]
    return cells, truth.sentences(known)


def graded(config: Mapping[str, Any], at: Path) -> tuple[int, int]:
    """Return how many traces a study in the folder `at` has under its first condition, and how many are correct."""
    traces = files.read_parquet(sorted(at.glob(f"traces/{config['conditions'][0]}/*")), ["correct"])
    return len(traces), int(traces["correct"].sum())


def called_in(at: Path) -> int:
    """Return how many latents a study calls thinking patterns."""
    verdicts = files.read_parquet(sorted(at.glob("tables/*/*/verdict.parquet")), ["verdict"])
    return int((verdicts["verdict"].cast(pl.String) == VERDICTS[0]).sum())


def known_of(config: Mapping[str, Any], at: Path) -> truth.Truth | None:
    """Return what is known of a study's model; None of one that was taught nothing."""
    if not (teach := config.get("teach")):
        return None
    tables = {"truth": "truth.parquet", "found": "tables/found.parquet", "called": "tables/called.parquet"}
    return truth.Truth(
        kind=teach.get("kind", "states"),
        traces=graded(config, at)[0],
        **{name: files.read_parquet(at / path) for name, path in tables.items()},
    )


def laid_over(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with another laid over it, as Snakemake lays several."""
    both = {
        key: laid_over(config[key], value)
        if isinstance(value, Mapping) and isinstance(config.get(key), Mapping)
        else value
        for key, value in other.items()
    }
    return {**config, **both}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return the table as Markdown that also reads well on a terminal."""
    every = [HEAD, *rows]
    widths = [max(len(line[column]) for line in every) for column in range(len(HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in every
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Sequence[str]], said: Mapping[str, Sequence[str]], style: str) -> str:
    """Return the page: the table, and what is to be said of each study, with a link to its report."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in HEAD)
    body = "".join(
        f'<tr><th scope="row"><a href="{escape(name)}/report.html">{escape(name)}</a></th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    texts = "".join(
        f"<h2>{escape(name)}</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
        for name, lines in said.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Controls – thoughtscope</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        '<p class="kicker">thoughtscope</p>\n<h1>Is found what was put in, and only that?</h1>\n'
        '<div class="scroll" tabindex="0" role="region" aria-label="Studies whose truth is known">\n'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n</div>\n<p>{escape(ABOUT)}</p>\n{texts}\n"
        "</main>\n</body>\n</html>\n"
    )


def main(configs: Sequence[str], results: Path = Path(paths.RESULTS).parent) -> None:
    """Print the table of the studies of these configs, and write it and the page."""
    base, *others = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in configs)
    rows, said = [], {}
    for config in [base, *(laid_over(base, other) for other in others)]:
        cells, said[config["experiment"]] = row(config, results)
        rows.append(cells)
    style = Path(__file__).parents[3] / "report" / "page" / "page.css"
    outputs = {"controls.md": markdown(rows), "controls.html": page(rows, said, style.read_text(encoding="utf-8"))}
    for name, text in outputs.items():
        with files.replacing(results / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(outputs["controls.md"])
    print(f"Page: {results / 'controls.html'}")


if __name__ == "__main__":
    main(sys.argv[1:])
