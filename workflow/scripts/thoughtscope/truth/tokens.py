"""Truth: the tokens of a taught model's thinking, each with the state of its sentence."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..teaching.grammar import STATES, SURFACES


class Tokens(NamedTuple):
    """Tokens of thinkings, in the order of traces and positions; arrays of one length."""

    trace_id: NDArray[np.int64]
    position: NDArray[np.int64]
    token_id: NDArray[np.int64]
    state: NDArray[np.int64]
    """Index in STATES; -1 in no sentence."""
    surface: NDArray[np.int64]
    """Index in SURFACES of how its sentence is said; -1 in no sentence."""
    body: NDArray[np.bool_]
    """Whether it is of its sentence's body, which is made of the same tokens whatever the state."""
    content: NDArray[np.bool_]
    """Whether it is of its sentence, but of no opener or decoy: of the body, or of the clause of a calculation."""
    word: NDArray[np.int64]
    """Index in STATES of the state whose word of the lexicon it is, in an opener or as a decoy; -1 of none."""
    decoy: NDArray[np.int64]
    """Index of the decoy that it is of; -1 of none."""
    sentence: NDArray[np.int64]
    """Index of its sentence; -1 in none."""
    chosen_on: NDArray[np.bool_]
    """Whether it is of the half of traces on which latents are chosen; they are measured on the other."""


def tokens(truth: pl.DataFrame, traces: pl.DataFrame, condition: str) -> Tokens:
    """Return the tokens of all thinkings under a condition that the model read; halves are drawn from trace ids."""
    spans = truth.filter(condition=condition).partition_by("trace_id", as_dict=True)
    columns: dict[str, list[NDArray[np.int64]]] = {name: [] for name in Tokens._fields}
    sentences = decoys = 0
    for row in traces.filter(condition=condition).sort("trace_id").iter_rows(named=True):
        ids = np.array([*row["prompt_ids"], *row["generated_ids"][:-1]])
        of = {name: np.full(len(ids), -1) for name in ("state", "surface", "word", "decoy", "sentence")}
        body, content, inside = np.zeros(len(ids), int), np.zeros(len(ids), int), np.zeros(len(ids), bool)
        for part in row["segments"]:
            inside[part["start"] : part["end"]] |= part["segment"] == "think"
        for span in spans.get((row["trace_id"],), truth.clear()).iter_rows(named=True):
            whole, opener = slice(span["start"], span["end"]), slice(span["start"], span["body"])
            state, surface = STATES.index(span["state"]), SURFACES.index(span["surface"])
            if span["surface"] == "decoy":
                of["word"][whole], of["decoy"][whole] = state, decoys
                decoys += 1
                continue
            of["state"][whole], of["surface"][whole], of["sentence"][whole] = state, surface, sentences
            body[span["body"] : span["end"]] = 1
            sentences += 1
            if span["state"] == "calculate":  # its opener has the clause before it
                content[whole] = 1
                continue
            content[span["body"] : span["end"]] = 1
            if span["surface"] == "lexicon":
                of["word"][opener] = state
        content[of["decoy"] >= 0] = 0
        place = np.flatnonzero(inside)
        whole_trace = {"trace_id": np.full(len(ids), row["trace_id"]), "position": np.arange(len(ids)), "token_id": ids}
        for name, values in (whole_trace | of | {"body": body, "content": content}).items():
            columns[name].append(values[place])
    joined = {name: np.concatenate([np.zeros(0, int), *parts]) for name, parts in columns.items()}
    joined |= {name: joined[name] == 1 for name in ("body", "content")}
    joined["chosen_on"] = (joined["trace_id"] * 2654435761 % 2**32) >> 31 == 0
    return Tokens(**joined)


def aurocs(values: NDArray[np.floating], state: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each row of values (rows, tokens) and each state how well it tells its tokens from all others.

    The chance that a token of the state has the larger value, ties counting half (Mann and Whitney 1947), shape (rows,
    states); NaN where there is none of the state, or nothing else. `state` is as in Tokens.
    """
    from scipy.stats import rankdata

    counts = np.bincount(state + 1, minlength=len(STATES) + 1)[1:]
    found = np.empty((len(values), len(STATES)))
    with np.errstate(invalid="ignore", divide="ignore"):
        for row, of_row in enumerate(values):
            sums = np.bincount(state + 1, weights=rankdata(of_row), minlength=len(STATES) + 1)[1:]
            found[row] = (sums - counts * (counts + 1) / 2) / (counts * (len(state) - counts))
    return found
