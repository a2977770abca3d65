"""Truth: what a linear probe reads from the raw states, the ceiling of what any latent could show."""

import logging
from collections.abc import Sequence

import numpy as np
import polars as pl
from transformers import PreTrainedModel

from ..frames import Schema, keys
from ..readings.states import read_states
from ..teaching.grammar import STATES, SURFACES
from .tokens import aurocs, tokens

PROBES_SCHEMA = Schema(
    "a site and state",
    **keys("site"),
    state=(pl.Enum(STATES), "the state"),
    sentences=(pl.UInt32, "its sentences in plain words, of the half of traces it is measured on"),
    auroc=(
        pl.Float64,
        "AUROC of a linear probe on the body tokens of plain sentences, learnt on those of the lexicon's",
    ),
)

RIDGE = 1e-2
"""Weight of the penalty, in units of the mean variance of a component."""


def probes(
    traces: pl.DataFrame,
    truth: pl.DataFrame,
    *,
    model: PreTrainedModel,
    names: Sequence[str],
    condition: str,
    log: logging.Logger,
) -> pl.DataFrame:
    """Learn each state from the states at each site, by ridge regression, and measure on other words and traces.

    Learnt on the bodies of sentences with words of the lexicon in half of the traces, measured on the bodies of plain
    ones in the other half: bodies are of the same tokens, so what is read there is the state.
    """
    every = tokens(truth, traces, condition)
    where = {
        (trace, place): index for index, (trace, place) in enumerate(zip(every.trace_id, every.position, strict=True))
    }
    x = {name: np.zeros((len(where), 0)) for name in names}
    for batch in read_states(traces.filter(condition=condition), model=model, names=names, log=log):
        for trace, states in batch:
            rows = [
                (index, place)
                for place in range(len(trace["ids"]))
                if (index := where.get((trace["trace_id"], place))) is not None
            ]
            if not rows:
                continue
            indices, places = map(list, zip(*rows, strict=True))
            for name in names:
                if not x[name].shape[1]:
                    x[name] = np.zeros((len(where), states[name].shape[1]))
                x[name][indices] = states[name][places].cpu().numpy()
    said = every.body & (every.state >= 0)
    learn = said & every.chosen_on & (every.surface == SURFACES.index("lexicon"))
    measure = said & ~every.chosen_on & (every.surface == SURFACES.index("plain"))
    found = []
    for name in names:
        areas = np.full(len(STATES), np.nan)
        if learn.any() and measure.any():
            scores = _ridge(x[name][learn], every.state[learn], x[name][measure])
            areas = aurocs(scores.T, every.state[measure]).diagonal()
        for index, state in enumerate(STATES):
            sentences = len(np.unique(every.sentence[measure & (every.state == index)]))
            area = None if np.isnan(areas[index]) else float(areas[index])
            found.append({"site": name, "state": state, "sentences": sentences, "auroc": area})
    return pl.DataFrame(found, schema=PROBES_SCHEMA)


def _ridge(x: np.ndarray, state: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the scores of `other` for each state, shape (tokens, states), by ridge regression on the indicators."""
    mean = x.mean(0)
    centred = x - mean
    target = np.eye(len(STATES))[state]
    gram = centred.T @ centred
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return (other - mean) @ np.linalg.solve(gram, centred.T @ (target - target.mean(0)))
