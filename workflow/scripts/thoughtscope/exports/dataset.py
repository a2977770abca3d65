"""A study's tables as a dataset of the Hugging Face hub: a parquet file a table, and a card that lists them."""

from pathlib import Path
from typing import Any

import polars as pl

from .. import api, columns, paths

CARD = """\
---
pretty_name: {name}
license: other
tags: [interpretability, sparse-autoencoder, thoughtscope]
configs:
{configs}
---

# {name}

Traces of {model}, what k-sparse autoencoders say of them, and which of their latents are thinking patterns: the tables
of a thoughtscope study, a config a table, as in `load_dataset(folder, "verdict")`. `site` says
where in the model a row is of. Of the tables of single tokens there are none here: they are large, and follow from
traces and SAEs. Tables without rows are left out.

{tables}
"""


def dataset(study: api.Study, folder: Path) -> list[str]:
    """Write the tables of a study's own reader, its traces and problems to `folder`; return their names, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    made, about = [], []
    frames = {"traces": study.traces(), "problems": study.problems()}
    for name, frame in (frames | {table: study.table(table) for table in study.tables}).items():
        table = _plain(frame.collect())
        if table.is_empty():  # load_dataset knows no such thing
            continue
        table.write_parquet(folder / f"{name}.parquet", compression="zstd")
        made.append(name)
        about.append(f"- `{name}`: {len(table):,} rows; a row is {_rows_of(name)}.")
    configs = "\n".join(f"- config_name: {name}\n  data_files: {name}.parquet" for name in made)
    card = CARD.format(name=study.folder.name, model=study.model["name"], configs=configs, tables="\n".join(about))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return made


def _plain(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose categories are text, as every reader knows it."""
    return table.with_columns(pl.col(pl.Enum, pl.Categorical).cast(pl.String)).with_columns(
        pl.col(name).cast(pl.List(pl.Struct({field.name: _type(field.dtype) for field in kind.inner.fields})))
        for name, kind in table.schema.items()
        if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)
    )


def _type(kind: Any) -> Any:
    return pl.String() if isinstance(kind, (pl.Enum, pl.Categorical)) else kind


def _rows_of(name: str) -> str:
    """Return what a row of a table is."""
    known = {Path(path).stem: schema.rows for path, schema in columns.schemas().items()}
    known["traces"] = columns.schemas()[paths.TRACES].rows
    return known.get(name, "a row of it")
