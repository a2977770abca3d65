"""Room 9, report: where a run comes from: versions, revisions, hashes, times and the rule graph."""

import json
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from .. import __version__, files


def problem_set(path: str | Path, used: int) -> dict[str, Any]:
    """Return where a problems file is from, how many problems it has, and how many are used."""
    about = metadata(path)
    return {"source": about["thoughtscope.source"], "count": pq.read_metadata(path).num_rows, "used": used}


def metadata(path: str | Path) -> dict[str, str]:
    """Return what a parquet file says of itself (see `files.write_parquet`)."""
    found = pq.read_schema(path).metadata or {}
    return {
        key.decode(): value.decode() for key, value in found.items() if key.startswith((b"thoughtscope.", b"version."))
    }


def collect(
    results: Path,
    *,
    manifest: Mapping[str, Any],
    saes: Mapping[str, Mapping[str, Any]],
    problems: Mapping[str, Any],
    traces: Sequence[str],
    settings: Mapping[str, Any],
    names: Collection[str],
) -> dict[str, Any]:
    """Return what is needed to repeat the run: `run`, `versions`, `hashes`, `stages`, `rules`, `settings`.

    `saes` are the info.json by hookpoint, `problems` what `problem_set` says, `traces` the files, `names` the sites,
    hookpoints, conditions and blocks of this config: jobs of others may have left their times. Times are those of each
    job's last run, as Snakemake measured them.
    """
    about = metadata(traces[0])
    versions = {"thoughtscope": __version__, "python": platform.python_version()}
    versions |= {key.removeprefix("version."): value for key, value in about.items() if key.startswith("version.")}
    if revision := manifest.get("revision"):
        versions["model revision"] = revision
    versions["problems"] = problems["source"]
    hashes = {f"model/{name}": digest for name, digest in manifest["files"].items()}
    for hookpoint, info in saes.items():
        versions |= {f"{hookpoint} SAE revision": info["revision"]} if info.get("revision") else {}
        hashes |= {f"saes/{hookpoint}/sae.safetensors": info["sha256"]} if "sha256" in info else {}
    texts = ["problems.parquet", *(["sae_text.parquet"] if settings["sae"]["source"] == "train" else [])]
    hashes |= {
        str(Path(path).relative_to(results)): files.sha256(path)
        for path in [*(str(results / name) for name in texts), *traces]
    }
    rules = results / "rules.json"
    return {
        "run": f"Generated on {about.get('thoughtscope.device', 'an unknown device')} in"
        f" {about.get('thoughtscope.dtype', 'an unknown type').removeprefix('torch.')}.",
        "versions": versions,
        "hashes": hashes,
        "stages": stages(benchmarks(results / "benchmarks", names)),
        "rules": files.read_json(rules) if rules.exists() else None,
        "settings": json.dumps(settings, indent=2, ensure_ascii=False),
    }


def benchmarks(folder: Path, names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path below `folder` and content of the benchmark files of this config's sites, conditions and blocks."""
    for path in sorted(folder.rglob("*.jsonl")):
        inner = path.relative_to(folder).with_suffix("")
        stage, *parts = inner.parts
        # What is below a stage is named by site, condition and block, or the table's or picture's name comes last.
        named = parts if stage in ("traces", "saes", "activations", "reconstruction", "features") else parts[:-1]
        if {*named, *filter(BLOCK.fullmatch, parts)} - {"traces"} <= set(names):
            yield str(inner), json.loads(path.read_text(encoding="utf-8").splitlines()[0])


BLOCK = re.compile(r"\d+-\d+")


ROOMS = ("problems", "models", "traces", "saes", "activations", "features", "evidence", "verdict", "plots", "report")
"""The rule files, in the order in which data walks through them."""

COLUMN, LINE, BOX = 136, 24, (122, 18)
"""Width of a column and height of a line of the rule graph, and the size of a box, in pixels."""


def rule_graph(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the rule graph: a column a room, rules below each other. Returns boxes, lines and size, in pixels.

    `rules` has `rooms` (rule: rule file) and `needs` (rule: rules it takes from).
    """
    columns: dict[str, list[str]] = {room: [] for room in ROOMS}
    for rule, room in rules["rooms"].items():
        columns[room].append(rule)
    shown = [room for room in ROOMS if columns[room]]
    place = {
        rule: (column * COLUMN, 24 + row * LINE)
        for column, room in enumerate(shown)
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
        "rooms": [{"name": room, "x": column * COLUMN} for column, room in enumerate(shown)],
        "boxes": [{"rule": rule, "x": x, "y": y} for rule, (x, y) in place.items()],
        "lines": lines,
        "width": len(shown) * COLUMN,
        "height": 32 + max((len(columns[room]) for room in shown), default=0) * LINE,
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
