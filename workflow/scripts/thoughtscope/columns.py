"""What the columns of each table hold, found by the table's path: the schema beside the function that makes it."""

import importlib
from pathlib import Path

from . import paths
from .frames import Schema

MODULES = {
    paths.PROBLEMS: {"problems": ""},
    paths.SAE_TEXT: {"problems": ""},
    paths.VOCABULARY: {"vocabulary": ""},
    paths.TRACES: {"traces.generate": ""},
    paths.TWIN_TRACES: {"traces.generate": ""},
    paths.ACTIVATIONS: {"readings.activations": ""},
    paths.FEATURES: {"readings.features": ""},
    paths.RECONSTRUCTION: {"readings.reconstruction": ""},
    paths.TRACE_TABLE: {
        "evidence.recurrence": "top_activations relevant_latents",
        "evidence.traces": "frequencies histograms top_tokens",
    },
    paths.SITE_TABLE: {
        "evidence.recurrence": "top_activations frequencies histogram relevant_latents recurrence top_tokens sinks",
        "evidence.fit": "fit",
        "evidence.controls": "controls contrasts",
        "evidence.outcomes": "outcomes",
        "evidence.presence": "presence",
        "evidence.patterns": "pattern_tests weighted_tests",
        "evidence.candidates": "candidates",
        "evidence.reason": "reason_scores",
        "evidence.lexicality": "lexicality",
        "evidence.verdict": "verdict",
        "evidence.seeds": "seeds",
        "interventions.attribution": "attribution",
        "interventions.tables": "ablations token_effects token_changes steering injections",
        "interventions.effects": "effects",
        "interventions.responses": "responses",
        "interventions.cost": "cost",
        "interventions.steered": "steered",
        "report.dashboards": "passages latent_histograms strips coactivation",
        "report.descriptions": "descriptions",
        "report.coherence": "coherence",
        "report.directions": "logit_effects neighbours",
        "truth.score": "latent_marks",
    },
    paths.LESSONS: {"teaching.lessons": ""},
    paths.TRUTH: {"truth.parse": "truth"},
    paths.READER_TABLE: {"evidence.headline": "headline", "evidence.matches": "matches"},
    paths.STUDY_TABLE: {
        "evidence.fit": "site_gate",
        "evidence.recurrence": "layers",
        "evidence.matches": "matches pattern_counts",
        "evidence.twins": "twins",
        "interventions.tables": "stability",
        "interventions.stable": "stable_patterns",
        "truth.probes": "probes",
        "truth.found": "found called",
    },
}
"""Where the columns of the tables of each path are: in a module's SCHEMA, or in that of the table's name."""


def schemas() -> dict[str, Schema]:
    """Return the columns of every table of a study, by its path."""
    return {
        path.replace("{table}", table): _schema(module, table)
        for path, modules in MODULES.items()
        for module, tables in modules.items()
        for table in tables.split() or [""]
    }


def schema_of(path: str | Path) -> Schema | None:
    """Return the columns of the table that a file of ours is; None of any other file.

    None, too, where its module needs what isn't installed: who makes the table has it.
    """
    found = _place(str(path))
    try:
        return _schema(*found) if found else None
    except ImportError:
        return None


def module_of(path: str) -> str:
    """Return the module that has a table's columns and makes it, by its path."""
    found = _place(path.format_map(_Any()))
    if found is None:
        raise ValueError(f"{path} is no table of ours.")
    return found[0]


class _Any(dict[str, str]):
    """For each level of a path something that may stand there."""

    def __missing__(self, level: str) -> str:
        return {"site": "layers.0", "hookpoint": "layers.0", "block": "0-0"}.get(level, "any")


def _place(path: str) -> tuple[str, str] | None:
    """Return the module of the table at a path, and the table's name there, if it has one."""
    for pattern, modules in MODULES.items():
        try:
            table = paths.parse(pattern, path).get("table")
        except ValueError:
            continue
        for module, listed in modules.items():
            tables = listed.split() or [""]
            if table is None or table in tables:
                return module, table or tables[0]
    return None


def _schema(module: str, table: str) -> Schema:
    found = importlib.import_module(f"thoughtscope.{module}")
    schema: Schema = getattr(found, f"{table.upper()}_SCHEMA", None) or found.SCHEMA
    return schema
