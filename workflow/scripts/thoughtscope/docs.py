"""The pages made from schemas: config/README.md and the tables in results/README.md.

`make config-docs` makes them, by `python -m thoughtscope.docs`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from . import paths
from .columns import module_of, schemas

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
PAGE = ROOT / "config" / "README.md"
TABLES_PAGE = ROOT / "results" / "README.md"

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

TABLES_MARK = "<!-- from here on made by make config-docs -->\n"

TABLES_INTRODUCTION = """
## Every table, every column

All are parquet; types are polars' (`UInt32`: an unsigned integer of 32 bits). A number that can't be given is null.
Each file has its columns' descriptions as their metadata, and in its footer what it is, the settings it was made with
and the versions of the libraries; `thoughtscope.open("results/…").columns("verdict")` lists them.
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


def tables_page(page: str) -> str:
    """Return results/README.md with its tables as they are; `page` is what it says now."""
    parts = [page.partition(TABLES_MARK)[0], TABLES_MARK, TABLES_INTRODUCTION]
    for path, columns in schemas().items():
        name = path.removeprefix(f"{paths.RESULTS}/")
        rows = [f"| `{column}` | {_dtype(dtype)} | {columns.about[column]} |" for column, dtype in columns.items()]
        head = ["| column | type | meaning |", "| --- | --- | --- |"]
        source = f"A row is {columns.rows}. Made by `thoughtscope.{module_of(path)}`."
        parts.append("\n".join(["", f"### `{name}`", "", source, "", *head, *rows, ""]))
    return "".join(parts)


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
    TABLES_PAGE.write_text(tables_page(TABLES_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
