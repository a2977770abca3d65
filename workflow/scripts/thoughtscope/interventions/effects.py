"""Room 7, interventions: does what the model does at a pattern rest on the latent, more than on its controls?

The trace is the unit. A latent's effect in a trace is how much its ablation lowers the log-odds of what is to come at
the pattern, less the same at the places compared to; its excess is that less the mean of its controls' in the same
trace (a difference in differences). On log-odds, what shifts a word's logit everywhere shifts both places alike,
however likely the word is there. Three things stand against an excess: that it is of the places compared to alone, that
traces differ, and that any edit has some effect, this way or that. So its p is the largest of three: of what is lost at
the pattern and of the excess, over traces, and of the effect among its controls.
"""

from typing import Any

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys, with_q
from ..statistics import MIN_TRACES, Floats, mean_over_traces, sign_flips
from .tables import CHOSEN, CONTROLS

DETECTED = 2.49
"""Standard errors of a mean that a one-sided test at .05 finds in four of five cases: the normal 1.645 + .842."""

SCHEMA = Schema(
    "a latent whose ablation was tried (see `ablations`); log-odds are that a word of the pattern is next (window"
    " `before`), or of the token that is next (`after`)",
    **keys("latent"),
    chosen=(pl.Enum(CHOSEN), "by what it was"),
    pattern=(pl.String, "the pattern"),
    window=(pl.String, "the window of it"),
    traces=(pl.UInt32, "traces with the pattern that were tried"),
    lost=(pl.Float64, "log-odds that its ablation takes at the pattern"),
    lost_log_p=(pl.Float64, "nats of the log-probability that it takes there"),
    effect=(pl.Float64, "log-odds that it takes at the pattern beyond what it takes at the places compared to"),
    effect_low=(pl.Float64, "95 % interval of that over traces (Hall 1992): lower end"),
    effect_high=(pl.Float64, "95 % interval of that: upper end"),
    predicted=(pl.Float64, "what `attribution` says it would be, to first order, from the other traces"),
    mean_effect=(pl.Float64, "the same where its mean activation stands in for its own"),
    kl=(pl.Float64, "divergence at the pattern of what is next, its mean over traces"),
    **{control: (pl.Float64, f"the effect of `{control}`, their mean over draws and traces") for control in CONTROLS},
    control=(pl.Float64, "the median of the absolute effects of all its controls, each its mean over traces"),
    excess=(pl.Float64, "its effect less the mean of its controls', which count the same, kind by kind"),
    low=(pl.Float64, "95 % interval of the excess over traces (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of the excess: upper end"),
    p_lost=(pl.Float64, "one-sided, of nothing being lost at the pattern, by sign flips over traces"),
    p_traces=(pl.Float64, "one-sided, of an excess of 0 or less, by sign flips over traces"),
    p_controls=(pl.Float64, "one-sided, of being one more of its controls: Student's t of one against the others, each"
                            " its mean over traces"),
    p=(pl.Float64, "the largest of these"),
    q=(pl.Float64, "Benjamini-Hochberg q over the latents of the site"),
    least=(pl.Float64, "the excess that so many traces, spread like these, would show at .05 in four of five cases"),
    strengths=(pl.List(pl.Float64), "how many times its usual activation was added at the places compared to"),
    added=(pl.List(pl.Float64), "log-odds that adding as much gives, beyond the random direction's"),
    added_low=(pl.List(pl.Float64), "95 % interval of each over traces: lower end"),
    added_high=(pl.List(pl.Float64), "95 % interval of each: upper end"),
    note=(pl.String, "why there is no number"),
)  # fmt: skip


def effects(ablations: pl.LazyFrame, attribution: pl.LazyFrame) -> pl.DataFrame:
    """Return what each latent's ablation does beyond its controls', in SCHEMA, by falling excess."""
    table = ablations.collect()
    rows = [_effect(latent, group) for (latent,), group in table.group_by("latent", maintain_order=True)]
    found = complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA).drop("predicted")
    predicted = attribution.select("latent", "pattern", pl.col("window").cast(pl.String), "predicted").collect()
    found = found.join(predicted, on=["latent", "pattern", "window"], how="left")
    return with_q(found).select(*SCHEMA).sort("excess", "latent", descending=[True, False], nulls_last=True)


def _effect(latent: int, table: pl.DataFrame) -> dict[str, Any]:
    """Return the row of one latent from its rows of `ablations`."""
    from scipy import stats

    about = table.select("chosen", "pattern", "window").row(0, named=True)
    window = about["window"]
    of = "pattern" if window == "before" else "actual"
    table = table.with_columns(
        lost=pl.col(f"{of}_matched") - pl.col(f"{of}_at"), gained=pl.col(f"{of}_matched").cast(pl.Float64)
    )
    traces = table["trace_id"].unique().sort()
    row: dict[str, Any] = {"latent": latent, "traces": len(traces)} | about

    def by_trace(arms: pl.DataFrame, value: str = "lost") -> Floats:
        """A number of each trace, its mean over the arms, (traces,)."""
        means = arms.group_by("trace_id").agg(pl.col(value).mean()).sort("trace_id")
        return means[value].to_numpy().astype(float)

    own = table.filter(arm="zero")
    effect = by_trace(own)
    of_controls = {
        control: by_trace(arms) for control in CONTROLS if len(arms := table.filter(arm=control)) >= len(traces)
    }
    row |= {control: values.mean() for control, values in of_controls.items()}
    each = table.filter(pl.col("arm").is_in(list(CONTROLS))).group_by("arm", "draw").agg(pl.col("lost").mean())
    others = each["lost"].to_numpy()
    lost = -by_trace(own, f"{of}_at")
    row |= {"lost": lost.mean(), "lost_log_p": -by_trace(own, "log_p_at").mean()}
    row |= {"effect": effect.mean(), "control": np.median(np.abs(others)), "kl": own["kl_at"].mean()}
    row["mean_effect"] = by_trace(table.filter(arm="mean")).mean()
    if len(traces) < MIN_TRACES:
        return row | {"note": f"its pattern is in {len(traces)} traces; {MIN_TRACES} are needed"}
    if len(others) < 2:
        return row | {"note": "fewer than two controls"}
    excess = effect - np.mean(list(of_controls.values()), axis=0)
    both = mean_over_traces(np.stack([effect, excess], axis=1))
    row |= {"effect_low": both.low[0], "effect_high": both.high[0]}
    row |= {"excess": both.value[1], "low": both.low[1], "high": both.high[1]}
    row["p_lost"], row["p_traces"] = map(float, sign_flips(np.stack([lost, excess], axis=1)))
    spread = others.std(ddof=1) * np.sqrt(1 + 1 / len(others))
    row["p_controls"] = float(stats.t.sf((effect.mean() - others.mean()) / max(spread, 1e-30), len(others) - 1))
    row["p"] = max(row["p_lost"], row["p_traces"], row["p_controls"])
    row["least"] = DETECTED * excess.std(ddof=1) / np.sqrt(len(traces))
    strengths = table["strength"].drop_nulls().unique().sort().to_list()
    added = [
        by_trace(table.filter(arm="add", strength=strength), "gained")
        - by_trace(table.filter(arm="add_random", strength=strength), "gained")
        for strength in strengths
    ]
    if added:
        gains = mean_over_traces(np.stack(added, axis=1))
        row |= {"strengths": strengths, "added": gains.value.tolist()}
        row |= {"added_low": gains.low.tolist(), "added_high": gains.high.tolist()}
    return row
