"""The pages made from schemas: config/README.md and docs/tables.md, by `python -m thoughtscope.docs` (config-docs)."""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from . import paths
from .frames import Schema

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
PAGE = ROOT / "config" / "README.md"
TABLES_PAGE = ROOT / "docs" / "tables.md"

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
        "interventions.tables": "ablations token_effects steering injections",
        "interventions.effects": "effects",
        "interventions.responses": "responses",
        "interventions.cost": "cost",
        "interventions.steered": "steered",
        "report.dashboards": "passages latent_histograms strips coactivation",
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

INTRODUCTION = """\
# Configuration

A config file says what is computed; where it runs is in `profiles/`. `config.yaml` is the embedded default (and
`sham.yaml`, `untaught.yaml`, `teach.yaml` are laid over it), `r1-distill-qwen-1.5b.yaml` the original study. Copy one,
change it, and run

    snakemake --cores all --configfile config/FILE.yaml

A file given that way stands alone: a key it leaves out has the default below, not the value in `config.yaml`. Single
values can be changed on the command line, for that call: `--config inferences=32`. A key that the section's source
doesn't read is refused. Relative paths are relative to where snakemake is
started.

This page is made from `workflow/schemas/config.schema.yaml` by `make config-docs`.

| key | type | default | meaning |
| --- | --- | --- | --- |
"""

TABLES_INTRODUCTION = """\
# Tables

Every table of a study, with its columns and what a row is. All are parquet; types are polars' (`UInt32`: an unsigned
integer of 32 bits). A number that can't be given is null. The footer of each file has the settings it was made with and
the versions of the libraries.

This page is made from the tables' schemas by `make config-docs`.
"""


def config_page(schema: Mapping[str, Any]) -> str:
    """Return config/README.md for a config schema."""
    rows = [f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in _rows(schema, schema, "")]
    return INTRODUCTION + "\n".join(rows) + "\n"


def _rows(node: Mapping[str, Any], root: Mapping[str, Any], parent: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and description of each key under a schema node, depth first."""
    required = node.get("required", [])
    for name, written in node.get("properties", {}).items():
        spec = dict(written)
        if "$ref" in spec:
            spec = root["$defs"][spec["$ref"].rpartition("/")[2]] | spec
        key = parent + name
        text = spec["description"].replace("|", "\\|")
        if "$ref" in written and parent:  # described in full where it first stands
            yield key, "section", "required with `train`", text
            continue
        is_section = "properties" in spec
        value = json.dumps(spec["default"], ensure_ascii=False) if "default" in spec else None
        default = "" if value is None else "`" + value.replace("|", "\\|") + "`"  # a bare | would end the cell
        if not default and not is_section:
            default = "required" if name in required else _required_with(node, name)
        elif not default:
            default = "required" if name in required else ""
        elif default == "`{}`":
            default = ""
        yield key, "section" if is_section else _type(spec), default, text
        yield from _rows(spec, root, key + ".")
        for choice in spec.get("anyOf", []):
            yield from _rows(choice, root, key + ".")
        entries = spec.get("additionalProperties")
        if isinstance(entries, dict):
            yield from _rows(entries, root, f"{key}.{{condition}}.")


def _required_with(node: Mapping[str, Any], name: str) -> str:
    """Return with which sources a key is required, from the schema's if and then."""
    sources = [
        f"`{rule['if']['properties']['source']['const']}`"
        for rule in node.get("allOf", [])
        if name in rule["then"]["required"]
    ]
    return "required with " + ", ".join(sources) if sources else ""


def _type(spec: Mapping[str, Any]) -> str:
    """Return a key's type with its bounds, in words."""
    if "enum" in spec:
        return " or ".join(f"`{value}`" for value in spec["enum"])
    kinds = spec.get("type", "section or null")
    kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
    if kind == "array":
        kind = f"list of {spec['items']['type']}"
    bounds = [
        f"{sign} {spec[bound]}"
        for bound, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if bound in spec
    ]
    return ", ".join([kind, *bounds])


def tables() -> dict[str, Schema]:
    """Return the columns of every table of a study by its path."""
    found = {}
    for path, modules in MODULES.items():
        for name, names in modules.items():
            module = importlib.import_module(f"thoughtscope.{name}")
            for table in names.split() or [""]:
                columns = getattr(module, f"{table.upper()}_SCHEMA", None) or module.SCHEMA
                found[path.replace("{table}", table)] = columns
    return found


def tables_page() -> str:
    """Return docs/tables.md."""
    parts = [TABLES_INTRODUCTION]
    for path, columns in tables().items():
        name = path.removeprefix(f"{paths.RESULTS}/")
        rows = [f"| `{column}` | {_dtype(dtype)} | {columns.about[column]} |" for column, dtype in columns.items()]
        head = ["| column | type | meaning |", "| --- | --- | --- |"]
        parts.append("\n".join([f"## `{name}`\n\nA row is {columns.rows}.\n", *head, *rows, ""]))
    return "\n".join(parts)


def _dtype(dtype: Any) -> str:
    """Return a column's type, in words where polars' would be long."""
    if isinstance(dtype, pl.Enum):
        return " or ".join(f"`{category}`" for category in dtype.categories)
    if isinstance(dtype, pl.List):
        return f"list of {_dtype(dtype.inner)}"
    if isinstance(dtype, pl.Struct):
        return "{" + ", ".join(f"{field.name}: {_dtype(field.dtype)}" for field in dtype.fields) + "}"
    return str(dtype)


if __name__ == "__main__":
    PAGE.write_text(config_page(yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))), encoding="utf-8")
    TABLES_PAGE.write_text(tables_page(), encoding="utf-8")
