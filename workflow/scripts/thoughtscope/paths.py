"""The path scheme, which is the data model: where each file of a study is, and what its path says.

Standard library only. What the config names is a level of the path; what the data decides is a column. A reader is
who reads the traces: `trained`, the config's SAE on the config's model, or one of its twins, which share what isn't
theirs.
"""

import re
from collections.abc import Iterable
from functools import cache

WILDCARDS = {
    "experiment": r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "condition": r"[a-z][a-z0-9_]*",
    "block": r"\d+-\d+",
    "reader": r"[a-z][a-z0-9_]*",
    "hookpoint": r"[A-Za-z_.]*\d[A-Za-z0-9_.]*",
    "site": r"[A-Za-z0-9_.]+(@residual_(in|out))?",
    "table": r"[a-z][a-z0-9_]*",
    "picture": r"[a-z][a-z0-9_]*",
    "name": r"[a-z_]+",
}
"""What each level may be, as expressions. A hookpoint has the number of a layer in it, a name has no digit."""

RESULTS = "results/{experiment}"
PROBLEMS = RESULTS + "/problems.parquet"
SAE_TEXT = RESULTS + "/sae_text.parquet"
MANIFEST = RESULTS + "/model.json"
MODEL = RESULTS + "/model"
BASE_MANIFEST = RESULTS + "/base_model.json"
BASE_MODEL = RESULTS + "/base_model"
ADAPTER = RESULTS + "/adapter"
ADAPTER_CONFIG = ADAPTER + "/adapter_config.json"
ADAPTER_WEIGHTS = ADAPTER + "/adapter_model.safetensors"
ADAPTER_INFO = ADAPTER + "/info.json"
LESSONS = RESULTS + "/lessons.parquet"
TRUTH = RESULTS + "/truth.parquet"
VOCABULARY = RESULTS + "/vocabulary.parquet"
TRACES = RESULTS + "/traces/{condition}/{block}.parquet"

TWIN = RESULTS + "/twins/{reader}"
TWIN_MANIFEST = TWIN + "/model.json"
TWIN_MODEL = TWIN + "/model"
TWIN_TRACES = TWIN + "/traces/{condition}/{block}.parquet"

SAE = RESULTS + "/saes/{reader}/{hookpoint}"
SAE_CONFIG = SAE + "/cfg.json"
SAE_WEIGHTS = SAE + "/sae.safetensors"
SAE_INFO = SAE + "/info.json"
SAE_FILES = (SAE_CONFIG, SAE_WEIGHTS, SAE_INFO)

READING = RESULTS + "/readings/{reader}/{site}/{condition}/{block}"
ACTIVATIONS = READING + "/activations.parquet"
FEATURES = READING + "/features.parquet"
RECONSTRUCTION = READING + "/reconstruction.parquet"

STUDY_TABLE = RESULTS + "/tables/{table}.parquet"
READER_TABLE = RESULTS + "/tables/{reader}/{table}.parquet"
SITE_TABLE = RESULTS + "/tables/{reader}/{site}/{table}.parquet"
TRACE_TABLES = RESULTS + "/tables/{reader}/{site}/traces/{condition}/{block}"
TRACE_TABLE = TRACE_TABLES + "/{table}.parquet"

STUDY_PICTURE = RESULTS + "/plots/{picture}.png"
SITE_PICTURE = RESULTS + "/plots/{reader}/{site}/{picture}.png"
TRACE_PICTURES = RESULTS + "/plots/{reader}/{site}/traces/{condition}/{block}"

EXPORT = RESULTS + "/exports/{form}"

REPORT = RESULTS + "/report.html"
SUMMARY = RESULTS + "/summary.md"
RULES = RESULTS + "/rules.json"

BENCHMARKS = RESULTS + "/benchmarks"
BENCHMARK = tuple(
    f"{BENCHMARKS}/{job}.jsonl"
    for job in (
        "{stage}",
        "{stage}/{name}",
        "{stage}/{condition}/{block}",
        "{stage}/{reader}/{name}",
        "{stage}/{reader}/{hookpoint}",
        "{stage}/{reader}/{site}/{name}",
        "{stage}/{reader}/{site}/{condition}/{block}",
        "{stage}/{reader}/{site}/traces/{condition}/{block}",
    )
)
"""Benchmarks, and logs likewise, mirror what their jobs make: the stage, its levels, and a name where several jobs have
the same levels."""


PARQUET = {
    "problems": PROBLEMS,
    "sae_text": SAE_TEXT,
    "lessons": LESSONS,
    "truth": TRUTH,
    "vocabulary": VOCABULARY,
    "traces": TRACES,
    "twin_traces": TWIN_TRACES,
    "activations": ACTIVATIONS,
    "features": FEATURES,
    "reconstruction": RECONSTRUCTION,
}
"""Our parquet files but for tables, whose path says which it is."""


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"{(\w+)}", pattern)
    for place, name in enumerate(parts[1::2]):
        parts[2 * place + 1] = f"(?P<{name}>{WILDCARDS.get(name, '[^/]+')})"
    parts[::2] = map(re.escape, parts[::2])
    return re.compile(rf"(?:.*/)?{''.join(parts)}")


def parse(pattern: str, path: str) -> dict[str, str]:
    """Return what is at each level of a path, in whatever folder. Raises ValueError if it isn't of the pattern."""
    found = _expression(pattern).fullmatch(path)
    if found is None:
        raise ValueError(f"{path} isn't of the form {pattern}.")
    return found.groupdict()


def levels_of(path: str) -> dict[str, str]:
    """Return what a path says of a parquet file of ours: `table`, experiment and so on; nothing of another file."""
    for pattern in (STUDY_TABLE, READER_TABLE, SITE_TABLE, TRACE_TABLE):
        if found := _expression(pattern).fullmatch(path):
            return found.groupdict()
    for table, pattern in PARQUET.items():
        if found := _expression(pattern).fullmatch(path):
            return {"table": table} | found.groupdict()
    return {}


def benchmark_levels(path: str) -> dict[str, str]:
    """Return what is at each level of a benchmark's path; nothing if it is of none of the patterns."""
    return next((found.groupdict() for pattern in BENCHMARK if (found := _expression(pattern).fullmatch(path))), {})


def by(level: str, pattern: str, files: Iterable[str]) -> dict[str, str]:
    """Return files by what is at a level of their paths, which tells them apart."""
    return {parse(pattern, path)[level]: path for path in files}


def levels(pattern: str, files: Iterable[str]) -> dict[str, list[str]]:
    """Return what is at each level of paths of one pattern, in the order in which it comes first."""
    found: dict[str, dict[str, None]] = {}
    for path in files:
        for level, value in parse(pattern, path).items():
            found.setdefault(level, {})[value] = None
    return {level: list(values) for level, values in found.items()}


def site_of(path: str) -> str | None:
    """Return the site that a table is of; None for any other file."""
    found = _expression(SITE_TABLE).fullmatch(path)
    return found.group("site") if found else None


def reader_of(path: str) -> str | None:
    """Return the reader that a table is of; None for any other file."""
    found = _expression(SITE_TABLE).fullmatch(path) or _expression(READER_TABLE).fullmatch(path)
    return found.group("reader") if found else None
