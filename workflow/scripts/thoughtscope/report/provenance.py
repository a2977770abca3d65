"""Room 9, report: where a run comes from: versions, revisions, hashes, times and the rule graph."""

import json
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from .. import __version__, files, paths
from ..errors import InputError


def problem_set(path: str | Path, used: int) -> dict[str, Any]:
    """Return where a problems file is from, how many problems it has, and how many are used."""
    about = files.metadata(path)
    return {"source": about["thoughtscope.source"], "count": pq.read_metadata(path).num_rows, "used": used}


def collect(
    results: Path,
    *,
    manifest: Mapping[str, Any],
    saes: Mapping[str, Mapping[str, Any]],
    problems: Mapping[str, Any],
    texts: Sequence[str],
    traces: Sequence[str],
    settings: Mapping[str, Any],
    times: Iterable[tuple[str, Mapping[str, Any]]],
    rules: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what is needed to repeat the run: `run`, `versions`, `hashes`, `stages`, `rules`, `settings`.

    `saes` are the info.json by hookpoint, `problems` what `problem_set` says, `texts` and `traces` the files in
    the folder `results` that are hashed, `times` what `benchmarks` gives, `rules` the rule graph that the workflow
    saves, if it has.
    """
    about = files.metadata(traces[0])
    versions = {"thoughtscope": __version__, "python": platform.python_version()}
    versions |= {key.removeprefix("version."): value for key, value in about.items() if key.startswith("version.")}
    if revision := manifest.get("revision"):
        versions["model revision"] = revision
    versions["problems"] = problems["source"]
    hashes = {f"model/{name}": digest for name, digest in manifest["files"].items()}
    for hookpoint, info in saes.items():
        versions |= {f"{hookpoint} SAE revision": info["revision"]} if info.get("revision") else {}
        hashes |= {f"saes/{hookpoint}/{name}": digest for name, digest in info["files"].items()}
    hashes |= {str(Path(path).relative_to(results)): files.sha256(path) for path in [*texts, *traces]}
    return {
        "run": f"Generated on {about.get('thoughtscope.device', 'an unknown device')} in"
        f" {about.get('thoughtscope.dtype', 'an unknown type').removeprefix('torch.')}.",
        "versions": versions,
        "hashes": hashes,
        "stages": stages(times),
        "rules": rules,
        "settings": json.dumps(settings, indent=2, ensure_ascii=False),
    }


def benchmarks(folder: Path, known: Mapping[str, Collection[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path below `folder` and content of the benchmark files of this config: jobs of others may have left theirs.

    `known` is what this config has at each level. Times are those of each job's last run, as Snakemake measured them.
    """
    for path in sorted(folder.rglob("*.jsonl")):
        levels = paths.benchmark_levels(str(path))
        if levels and all(value in known.get(level, [value]) for level, value in levels.items()):
            inner = path.relative_to(folder).with_suffix("")
            with suppress(ValueError, IndexError):  # a job that was killed may have left it empty
                yield str(inner), json.loads(path.read_text(encoding="utf-8").splitlines()[0])


def read_if_whole(path: Path) -> dict[str, Any] | None:
    """Return the rule graph that the workflow saved, if it has; the page can do without."""
    try:
        return files.read_foreign_json(path)
    except InputError:
        return None


COLUMN, LINE, BOX = 136, 24, (122, 18)
"""Width of a column and height of a line of the rule graph, and the size of a box, in pixels."""


def rule_graph(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the rule graph: a column a room, rules below each other. Returns boxes, lines and size, in pixels.

    `rules` has `rooms` (rule: rule file, as data walks through them) and `needs` (rule: rules it takes from).
    """
    columns: dict[str, list[str]] = {}
    for rule, room in rules["rooms"].items():
        columns.setdefault(room, []).append(rule)
    place = {
        rule: (column * COLUMN, 24 + row * LINE)
        for column, room in enumerate(columns)
        for row, rule in enumerate(columns[room])
    }
    lines = []
    for rule, needs in rules["needs"].items():
        for need in needs:
            (x0, y0), (x1, y1) = place[need], place[rule]
            same = x0 == x1
            start, end = (x0 + BOX[0], y0 + BOX[1] / 2), (x1 + (BOX[0] if same else 0), y1 + BOX[1] / 2)
            bend = 18 if same else max(20, (end[0] - start[0]) / 2)
            lines.append(
                f"M{start[0]:.0f} {start[1]:.0f}C{start[0] + bend:.0f} {start[1]:.0f}"
                f" {end[0] + (bend if same else -bend):.0f} {end[1]:.0f} {end[0]:.0f} {end[1]:.0f}"
            )
    return {
        "rooms": [{"name": room, "x": column * COLUMN} for column, room in enumerate(columns)],
        "boxes": [{"rule": rule, "x": x, "y": y} for rule, (x, y) in place.items()],
        "lines": lines,
        "width": len(columns) * COLUMN,
        "height": 32 + max(map(len, columns.values()), default=0) * LINE,
    }


def stages(benchmarks: Iterable[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row a stage: jobs, seconds in all, longest job and most memory (MB), from benchmark files.

    Pairs of a file's path below `benchmarks/` and what is in it; the first part of the path names the stage.
    """
    rows = [
        (path.partition("/")[0].removesuffix(".jsonl"), row.get("s"), row.get("max_rss")) for path, row in benchmarks
    ]
    table = pl.DataFrame(
        rows, schema={"stage": pl.String, "s": pl.Float64, "memory": pl.Float64}, orient="row", strict=False
    )
    return (
        table.group_by("stage")
        .agg(jobs=pl.len(), seconds=pl.col("s").sum(), longest=pl.col("s").max(), memory=pl.col("memory").max())
        .sort("seconds", descending=True)
        .to_dicts()
    )
