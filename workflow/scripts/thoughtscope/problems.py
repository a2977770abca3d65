"""Room 1, problems: a dataset's whole split as a table of questions and reference answers."""

import difflib
import json
import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from . import hub
from .config import check_columns, columns, is_text
from .errors import InputError, first_line
from .frames import Schema, keys
from .teaching import lessons

SCHEMA = Schema(
    "a problem, in the order in which they are put to the model",
    **keys("trace_id"),
    question=(pl.String, "the question"),
    answer=(pl.String, "the reference answer"),
    solution=(pl.String, "the worked solution, if the source has one"),
    text=(pl.String, "plain text, of sources that are text to train an SAE on"),
)


def load(source: Mapping[str, Any], key: str, log: logging.Logger) -> tuple[pl.DataFrame, str]:
    """Return the problems a `problems` (or `sae.text`) section of the config names, in SCHEMA, and where they are from.

    `key` is that section's name, for messages. Raises InputError for a source that can't be reached, lacks a column,
    or holds an empty question or answer.
    """
    match source["source"]:
        case "reasoning_gym":
            frame, origin = _reasoning_gym(source, key), f"reasoning_gym {source['name']}"
        case "lessons":
            frame, origin = _lessons(source, key), "lessons"
        case "jsonl":
            frame, origin = _check(_jsonl(source, key), source, key, source["path"]), source["path"]
        case "hub":
            table, commit = _hub(source, key, log)
            frame, origin = _check(table, source, key, source["name"]), f"{source['name']} at {commit}"
    if source["source"] in ("hub", "jsonl") and source["seed"] is not None:
        frame = frame.sample(fraction=1.0, shuffle=True, seed=source["seed"])
    if key == "sae.text" and frame["solution"].null_count() == frame["text"].null_count() == len(frame):
        raise InputError(
            f"config: {key}: {origin} has no worked solutions to train on; name their column in {key}.solution, or one"
            f" of plain text in {key}.text."
        )
    frame = frame.with_row_index("trace_id").select(*SCHEMA).cast(SCHEMA)  # type: ignore[arg-type]
    log.info("%d problems from %s", len(frame), origin)
    return frame, origin


def reference_answer(answer: str) -> str:
    """Return the reference answer in a dataset's answer: what follows the last `####` (GSM8K's mark), or all of it."""
    return answer.rsplit("####", maxsplit=1)[-1].strip()


def _reasoning_gym(source: Mapping[str, Any], key: str) -> pl.DataFrame:
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(source["name"], size=source["size"], seed=source["seed"] or 0)
    except ValueError as error:
        known = sorted(reasoning_gym.factory.DATASETS)
        if source["name"] in known:
            raise InputError(f"config: {key}.name is {source['name']!r}: reasoning_gym says: {error}") from None
        near = difflib.get_close_matches(source["name"], known, n=5, cutoff=0.4)
        raise InputError(
            f"config: {key}.name is {source['name']!r}; reasoning_gym has no such dataset."
            f" {'Near ones' if near else 'It has'}: {', '.join(near or known)}."
        ) from None
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


def _lessons(source: Mapping[str, Any], key: str) -> pl.DataFrame:
    """Draw problems that no lesson has, or as text to train on problems of lessons with what is to be written."""
    tasks = islice(lessons.problems(source["seed"] or 0, studied=key == "problems"), source["size"])
    return pl.DataFrame(
        [
            {
                "question": task.question,
                "answer": str(task.answer),
                "solution": lessons.lesson(task, draw, kind=source["kind"], answer_at_once=False),
            }
            for task, draw in tasks
        ]
    ).with_columns(text=pl.lit(None, pl.String))


def _jsonl(source: Mapping[str, Any], key: str) -> pl.DataFrame:
    """Read the columns wanted as text, so that an answer stays as it is written: 18, not 18.0."""
    wanted = list(columns(source).values())
    found: dict[str, list[str | None]] = {column: [] for column in wanted}
    with open(source["path"], "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                values = [row.get(column) for column in wanted]
            except (ValueError, AttributeError, RecursionError):
                raise InputError(f"config: {key}.path: {source['path']}, line {number} is no JSON object.") from None
            for column, value in zip(wanted, values, strict=True):
                if isinstance(value, (dict, list)):
                    raise InputError(
                        f"config: {key}: {source['path']}, line {number}: {column!r} is a {type(value).__name__};"
                        " text or a number is needed."
                    )
                text = None if value is None else str(value)
                if text is not None and not is_text(text):
                    raise InputError(
                        f"config: {key}: {source['path']}, line {number}: {column!r} has a lone surrogate, which is no"
                        " character; remove it."
                    )
                found[column].append(text)
    return pl.DataFrame(found, schema=dict.fromkeys(wanted, pl.String))


def _hub(source: Mapping[str, Any], key: str, log: logging.Logger) -> tuple[pl.DataFrame, str]:
    """Return a split of a hub dataset, and the commit it is at.

    Online, `datasets` fetches what the split needs. Without the hub only a snapshot of that very revision in the
    Hugging Face cache will do: `datasets` by itself would take any revision it has prepared before.
    """
    import datasets
    import huggingface_hub

    name, revision = source["name"], source["revision"]
    what = f"dataset {name!r}"
    try:
        commit = str(huggingface_hub.HfApi().dataset_info(name, revision=revision).sha)
        place, at = name, commit
    except Exception as unreachable:
        log.info("hub not used (%s); looking into the cache", first_line(unreachable))
        try:
            place = huggingface_hub.snapshot_download(
                name, repo_type="dataset", revision=revision or "main", local_files_only=True
            )
        except Exception:
            raise hub.failure(f"{key}.name", what, unreachable) from None
        commit, at = Path(place).name, None
    try:
        dataset = datasets.load_dataset(place, source["config"], split=source["split"], revision=at)
    except ValueError as error:  # no such configuration or split
        raise InputError(
            f"config: {key}: {what} has no split {source['split']!r} of {key}.config {source['config']!r}"
            f" ({first_line(error)})."
        ) from None
    except Exception as error:
        if at is None:
            raise InputError(
                f"config: {key}.name: {what} can't be read from its cache ({first_line(error)})."
            ) from None
        raise hub.failure(f"{key}.name", what, error) from None
    hub.warn_unpinned(key, name, revision, commit, log)
    return pl.DataFrame(dataset.data.table), commit


def _check(table: pl.DataFrame, source: Mapping[str, Any], key: str, name: str) -> pl.DataFrame:
    """Pick the columns named in the config, and refuse missing ones, nested ones and empty questions and answers."""
    check_columns(key, source, table.columns, name)
    wanted = columns(source)
    for column in wanted.values():
        if table.schema[column].is_nested():
            raise InputError(
                f"config: {key}: {column!r} of {name} is {table.schema[column]}; text or a number is needed."
            )
    frame = table.select(
        **{part: pl.col(column).cast(pl.String) for part, column in wanted.items()},
        **{part: pl.lit(None, pl.String) for part in ("question", "answer", "solution", "text") if part not in wanted},
    )
    if source["text"] is None and source["solution"] is None:
        frame = frame.with_columns(solution=pl.when(pl.col("answer").str.contains("####", literal=True)).then("answer"))
    frame = frame.with_columns(pl.col("answer").map_elements(reference_answer, return_dtype=pl.String))
    for part in set(wanted) - {"solution"}:
        empty = frame.with_row_index("row").filter(pl.col(part).fill_null("").str.strip_chars() == "")
        if len(empty):
            raise InputError(
                f"config: {key}: row {empty['row'][0]} of {name} has an empty {part} ({wanted[part]!r});"
                " remove the row or name another column."
            )
    return frame
