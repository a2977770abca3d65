"""Room 1, problems: a dataset's whole split as a table of questions and reference answers."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from .errors import InputError

SCHEMA = {
    "trace_id": pl.UInt32,
    "question": pl.String,
    "answer": pl.String,
    "solution": pl.String,
    "text": pl.String,
}
"""Columns of problems.parquet: index in the chosen order, question, reference answer, worked solution, plain text."""


def load(source: Mapping[str, Any], key: str, log: logging.Logger) -> pl.DataFrame:
    """Return the problems a `problems` (or `sae.text`) section of the config names, in SCHEMA.

    `key` is that section's name, for messages. Raises InputError for a source that can't be reached, lacks a column,
    or holds an empty question or answer.
    """
    match source["source"]:
        case "reasoning_gym":
            frame = _reasoning_gym(source, key)
        case "jsonl":
            frame = _columns(_jsonl(source, key), source, key, source["path"])
        case "hub":
            frame = _columns(_hub(source, key, log), source, key, source["name"])
    if source["source"] != "reasoning_gym" and source["seed"] is not None:
        frame = frame.sample(fraction=1.0, shuffle=True, seed=source["seed"])
    frame = frame.with_row_index("trace_id").select(*SCHEMA).cast(SCHEMA)  # type: ignore[arg-type]
    log.info("%d problems from %s %s", len(frame), source["source"], source.get("name") or source.get("path"))
    return frame


def reference_answer(answer: str) -> str:
    """Return the reference answer in a dataset's answer: what follows the last `####` (GSM8K's mark), or all of it."""
    return re.split(r"####", answer)[-1].strip()


def _reasoning_gym(source: Mapping[str, Any], key: str) -> pl.DataFrame:
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(source["name"], size=source["size"], seed=source["seed"] or 0)
    except ValueError as error:
        raise InputError(f"config: {key}.name is {source['name']!r}: reasoning_gym says: {error}") from None
    items = [dataset[index] for index in range(source["size"])]
    return pl.DataFrame(
        {
            "question": [item["question"] for item in items],
            "answer": [reference_answer(str(item["answer"])) for item in items],
            "solution": [item["metadata"].get("answer_cot") for item in items],
            "text": [None] * len(items),
        },
        schema_overrides={"solution": pl.String, "text": pl.String},
    )


def _jsonl(source: Mapping[str, Any], key: str) -> pl.DataFrame:
    try:
        return pl.read_ndjson(source["path"], infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"config: {key}.path: {source['path']} can't be read as JSON lines: {error}") from None


def _hub(source: Mapping[str, Any], key: str, log: logging.Logger) -> pl.DataFrame:
    import datasets

    if source["revision"] is None:
        import huggingface_hub

        revision = _reach(
            lambda: huggingface_hub.HfApi().dataset_info(source["name"]).sha, f"{key}.name", source["name"]
        )
        log.warning("%s isn't pinned; this run uses commit %s. To pin it: '%s.revision: %s'",
                    source["name"], revision, key, revision)  # fmt: skip
    else:
        revision = source["revision"]
    dataset = _reach(
        lambda: datasets.load_dataset(source["name"], source["config"], split=source["split"], revision=revision),
        f"{key}.name",
        source["name"],
    )
    return pl.DataFrame(dataset.data.table)


def _reach(fetch, key: str, name: str):  # type: ignore[no-untyped-def]
    """Call `fetch`; if the hub or the cache can't answer, say which data is needed and what runs without it."""
    try:
        return fetch()
    except (OSError, ValueError) as error:
        raise InputError(
            f"config: {key}: dataset {name!r} can't be loaded ({type(error).__name__}: {str(error).splitlines()[0]})."
            f" It needs the Hugging Face hub once; fetch it ahead with 'hf download --repo-type dataset {name}', or"
            " use config/config.yaml, which runs without the hub."
        ) from None


def _columns(table: pl.DataFrame, source: Mapping[str, Any], key: str, name: str) -> pl.DataFrame:
    """Pick and check the columns named in the config."""
    plain_text = source["text"] is not None
    for column in ("text",) if plain_text else ("question", "answer", "solution"):
        if source[column] is not None and source[column] not in table.columns:
            raise InputError(
                f"config: {key}.{column} is {source[column]!r}, but {name} has the columns: {', '.join(table.columns)}."
            )
    null = pl.lit(None, dtype=pl.String)
    if plain_text:
        frame = table.select(question=null, answer=null, solution=null, text=pl.col(source["text"]).cast(pl.String))
        wanted = ["text"]
    else:
        answer = pl.col(source["answer"]).cast(pl.String)
        solution = (
            pl.col(source["solution"]).cast(pl.String)
            if source["solution"] is not None
            else pl.when(answer.str.contains("####", literal=True)).then(answer)
        )
        frame = table.select(
            question=pl.col(source["question"]).cast(pl.String), answer=answer, solution=solution, text=null
        ).with_columns(pl.col("answer").map_elements(reference_answer, return_dtype=pl.String))
        wanted = ["question", "answer"]
    for column in wanted:
        empty = frame.with_row_index("row").filter(pl.col(column).fill_null("").str.strip_chars() == "")
        if len(empty):
            raise InputError(
                f"config: {key}: row {empty['row'][0]} of {name} has an empty {column} ({source[column]!r});"
                " remove the row or name another column."
            )
    return frame
