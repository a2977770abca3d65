"""Room 7, interventions: what steering changes, paired with the same trace unsteered."""

from typing import Any

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys, with_q
from ..statistics import Floats, matched_difference, mcnemar, mean_over_traces, sign_flips
from .tables import STEERING_ARMS

MEASURED = {
    "rate": "places with a word of the pattern per 100 tokens written",
    "tokens": "tokens written",
    "repeated": "share of runs of tokens that are there already",
}
"""What is measured of a continuation, as a number."""

SHARES = {"truncated": "continuations that are cut", "correct": "right answers, of those that can be graded in both"}
"""What is measured as a share."""

SCHEMA = Schema(
    "a latent, what was added and how strongly (see `steering`); differences are to the same traces with nothing added",
    **keys("latent"),
    pattern=(pl.String, "its pattern"),
    arm=(pl.Enum([arm for arm in STEERING_ARMS if arm != "none"]), "what was added"),
    strength=(pl.Float64, "how many times the usual contribution"),
    traces=(pl.UInt32, "traces"),
    **{
        f"{name}{part}": (pl.Float64, text.format(what=what))
        for name, what in (MEASURED | SHARES).items()
        for part, text in (
            ("_unsteered", "{what}, unsteered: the mean"),
            ("", "{what}, steered: the mean"),
            ("_change", "mean difference of that"),
            ("_low", "95 % interval of the difference over traces: lower end"),
            ("_high", "95 % interval of it: upper end"),
            ("_p", "two-sided p of no difference: sign flips over traces, McNemar's for shares"),
        )
    },
    q=(pl.Float64, "Benjamini-Hochberg q of rate_p, over the rows of the site"),
)  # fmt: skip


def steered(steering: pl.LazyFrame) -> pl.DataFrame:
    """Return what each arm changes, in SCHEMA."""
    table = steering.collect().with_columns(rate=100 * pl.col("matches") / pl.col("tokens").clip(lower_bound=1))
    plain = {pattern: rows for (pattern,), rows in table.filter(arm="none").group_by("pattern")}
    rows = [
        {"latent": latent, "pattern": pattern, "arm": arm, "strength": strength} | _compare(group, plain[pattern])
        for (latent, pattern, arm, strength), group in table.filter(pl.col("arm") != "none").group_by(
            "latent", "pattern", "arm", "strength", maintain_order=True
        )
    ]
    found = complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)
    return with_q(found.drop("q").rename({"rate_p": "p"})).rename({"p": "rate_p"}).select(*SCHEMA)


def _compare(group: pl.DataFrame, plain: pl.DataFrame) -> dict[str, Any]:
    """Return the numbers of an arm beside those of the same traces unsteered."""
    both = group.join(plain, on="trace_id", suffix="_unsteered").sort("trace_id")
    row: dict[str, Any] = {"traces": len(both)}
    for name in MEASURED:
        after, before = (both[column].to_numpy().astype(float) for column in (name, f"{name}_unsteered"))
        row |= {name: after.mean(), f"{name}_unsteered": before.mean(), f"{name}_change": (after - before).mean()}
        change = mean_over_traces((after - before)[:, None])
        row |= {f"{name}_low": change.low[0], f"{name}_high": change.high[0], f"{name}_p": _two_sided(after - before)}
    for name in SHARES:
        known = both.drop_nulls([name, f"{name}_unsteered"])
        if known.is_empty():
            continue
        after, before = (known[column].to_numpy() for column in (name, f"{name}_unsteered"))
        only = np.array([(after & ~before).sum()]), np.array([(before & ~after).sum()])
        low, high = matched_difference(*only, len(known))
        row |= {name: after.mean(), f"{name}_unsteered": before.mean()}
        row |= {f"{name}_change": after.mean() - before.mean(), f"{name}_low": low[0], f"{name}_high": high[0]}
        row[f"{name}_p"] = mcnemar(*only)[0]
    return row


def _two_sided(differences: Floats) -> float:
    one, other = sign_flips(np.stack([differences, -differences], axis=1))
    return float(min(1.0, 2 * min(one, other)))
