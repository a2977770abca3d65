"""Room 10, report: what taking latents away did, in words and in the numbers behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ..evidence.links import WINDOWS
from ..interventions.tables import CONTROLS
from ..statistics import MIN_TRACES
from .reader import brief
from .study import Site, Study
from .words import agree, counted


def sentences(tables: Mapping[str, pl.DataFrame], cost: Mapping[str, pl.DataFrame], alpha: float) -> list[str]:
    """Say how many of the latents that were tried the model uses at their pattern, and what their SAEs cost it.

    tables: `effects`, cost: `cost`, both by site.
    """
    return [*_of_latents(tables, alpha), *filter(None, (_of_sae(site, table) for site, table in cost.items()))]


def _of_sae(site: str, table: pl.DataFrame) -> str | None:
    """Say what reconstructions at a site cost; None where nothing could be read."""
    row = next(table.filter(part="all").iter_rows(named=True), None)
    if row is None or row["kl_score"] is None:
        return None
    kept = "nothing"
    if row["kl_score"] > 0:
        low, high = row["kl_score_low"], row["kl_score_high"]
        kept = f"{row['kl_score']:.0%}"
        kept += "" if low is None else f" (95% interval {low:.0%} to {high:.0%})".replace("-", "−")
    return (
        f"With reconstructions in place of its states at {site} the model’s cross-entropy is {row['ce_spliced']:.2f}"
        f" nats a token instead of {row['ce']:.2f} ({row['ce_mean']:.2f} with their mean); they keep {kept} of what the"
        f" site is worth to it, by divergence{_of_text(table)}."
    )


def _of_text(table: pl.DataFrame) -> str:
    """Say what reconstructions keep in the text that training held out; nothing where there was none."""
    row = next(table.filter(part="text").iter_rows(named=True), None)
    if row is None or row["kl_score"] is None:
        return ""
    return f", and {max(0.0, row['kl_score']):.0%} in text that the SAE's training held out".replace("'", "’")


def _of_latents(tables: Mapping[str, pl.DataFrame], alpha: float) -> list[str]:
    every = pl.concat(tables.values()).with_columns(pl.col("chosen").cast(pl.String))
    if every.is_empty():
        return [
            "No latent was tried: none is linked to a pattern, or the pattern is in none of the traces to try it in."
        ]
    tested = every.filter(pl.col("q").is_not_null())
    if tested.is_empty():
        return [
            f"{counted(len(every), 'latent')} {agree(len(every), 'was', 'were')} tried, none with its pattern in"
            f" {MIN_TRACES} traces."
        ]
    lines = [_of_chosen(group, how, alpha) for how in BY if len(group := tested.filter(chosen=how))]
    lines.append(
        f"With so many traces, half of them would show an excess of {_median(tested['least']):.2g} in four of five"
        " cases."
    )
    both = tested.drop_nulls("predicted")
    if len(both) >= MIN_TRACES:
        agreement = both.select(pl.corr("predicted", "effect", method="spearman")).item()
        lines.append(
            f"What gradients predict (`attribution`), from other traces, ranks these {len(both)} as ablation does with"
            f" a Spearman correlation of {agreement:.2f}."
        )
    return lines


BY = {
    "name": "named in the config",
    "link": "linked to a pattern that are predicted to act on it most",
    "prediction": "of which the largest effect is predicted",
}
"""Latents by what they were chosen, in words."""


def _of_chosen(tested: pl.DataFrame, how: str, alpha: float) -> str:
    """Say of the latents chosen that way how many the model uses, and how much."""
    acting, count = tested.filter(pl.col("q") < alpha), len(tested)
    text = (
        f"Of the {counted(count, 'latent')} {BY[how]}, {len(acting) or 'none'} {agree(len(acting), 'does', 'do')} more"
        f" at the pattern, when taken away, than controls that change the states as much (q < {alpha})"
    )
    if acting.is_empty():
        return f"{text}; their median effect is {_median(tested['effect']):.2g} log-odds."
    its = agree(len(acting), "its", "their")
    return (
        f"{text}: {its} median effect is {_median(acting['effect']):.2g} log-odds,"
        f" {_median(acting['effect'] / acting['control']):.1f} times that of {its} controls."
    )


def _median(values: pl.Series) -> float:
    return float(np.median(values.to_numpy()))


def _across(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return tables of several sites as one, with `site`."""
    return pl.concat(table.with_columns(site=pl.lit(site)) for site, table in tables.items())


def _of_their_link(study: Study, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the rows that are of a latent that stands out, at the pattern and window that it is linked to."""
    linked = study.headline.filter(pl.col("q") < study.settings["analysis"]["alpha"])
    rows = _across(tables).with_columns(pl.col("window").cast(pl.String))
    return rows.join(linked, on=["site", "latent", "pattern", "window"], maintain_order="left")


def of_linked(study: Study) -> list[str]:
    """Say of the latents that stand out what taking them away is predicted to do at the pattern each is linked to."""
    lines = []
    for (site,), its in (
        _of_their_link(study, study.attribution).drop_nulls("low").group_by("site", maintain_order=True)
    ):
        takes, gives = int((its["low"] > 0).sum()), int((its["high"] < 0).sum())
        lines.append(
            f"At {site} taking away is predicted to cost its own pattern something (an interval above 0) for"
            f" {takes or 'none'} of {counted(len(its), 'latent')} that {agree(len(its), 'stands', 'stand')} out, and to"
            f" help it for {gives or 'none'}."
        )
    return lines


def of_cues(tables: Mapping[str, pl.DataFrame], alpha: float) -> list[str]:
    """Say how many latents answer to their cues in prompts; tables: `responses`, by site."""
    if not tables:
        return []
    known = _across(tables).with_columns(pl.col("strategy").cast(pl.String)).drop_nulls("p_holm")
    put_in, gone = known.filter(pl.col("strategy") != "deletion"), known.filter(strategy="deletion")
    lines = []
    if len(put_in):
        latents = put_in.select("site", "latent").n_unique()
        count = put_in.filter(pl.col("p_holm") < alpha).select("site", "latent").n_unique()
        share = _median(put_in["with_cue"] / put_in["in_place"])
        lines.append(
            f"Put into prompts, their own cues wake {count or 'none'} of {counted(latents, 'latent')} more"
            f" than tokens alike do (p by Holm < {alpha:g}); the activation there is {share:.0%} of what goes with the"
            " cue in traces (median)."
        )
    if len(gone):
        lost = len(gone.filter(pl.col("p_holm") < alpha))
        lines.append(
            f"Without its strongest token a trace has less of {lost or 'none'} of {counted(len(gone), 'latent')} behind"
            " that place than without a token alike."
        )
    return lines


def of_stability(study: Study) -> list[str]:
    """Say how many places of patterns the model would hardly write again, and which links rest on the others."""
    if study.stable_patterns is None or study.stable_patterns.is_empty():
        return []
    patterns = study.stable_patterns
    count = int(patterns["matches"].sum())
    unstable = patterns.select((pl.col("unstable") * pl.col("matches")).sum()).item() / count
    lines = [
        f"Of {count:,} {'match' if count == 1 else 'matches'} of patterns {unstable:.0%} stand where the model was more"
        " likely to write something else: drawn again, they mostly would not be there."
    ]
    alpha = study.settings["analysis"]["alpha"]
    its = _of_their_link(study, study.weighted_tests)
    if len(its):
        still = int((its["p"] < alpha).sum())
        lines.append(
            f"Where each match counts as much as it was likely, {still} of the {len(its)} latents that stand out are"
            f" still linked to their pattern (p < {alpha:g})."
        )
    return lines


PREDICTED = 3
"""Predictions of a latent, the largest, that its dashboard has."""


def board(tried: Sequence[Mapping[str, Any]], predicted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a latent's dashboard says of its use: what taking it away did, if it was tried, and predictions."""
    row = next(iter(tried), None)
    return {
        "tried": row and {name: row[name] for name in TRIED},
        "controls": row and [[name.replace("_", " "), row[name]] for name in CONTROLS],
        "doses": row and list(zip(*(row[name] or [] for name in DOSES), strict=True)),
        "predicted": [[each[name] for name in ("pattern", "window", "predicted", "low", "high")] for each in predicted],
    }


TRIED = ("pattern", "window", "traces", "lost", "effect", "effect_low", "effect_high", "mean_effect", "excess", "low",
         "high", "q", "note")  # fmt: skip
DOSES = ("strengths", "added", "added_low", "added_high")


def leading_predictions(study: Study, site: Site) -> pl.DataFrame:
    """Return the PREDICTED largest predictions of each latent that has a dashboard, by falling size."""
    chosen = (
        study.attribution[site.name]
        .filter(pl.col("latent").is_in(site.latents))
        .with_columns(pl.col("window").cast(pl.String))
    )
    return (
        chosen.sort(pl.col("predicted").abs(), descending=True).group_by("latent", maintain_order=True).head(PREDICTED)
    )


def by_token(study: Study, site: str) -> dict[tuple[int, int], dict[int, float]]:
    """Return what taking a latent away changes at each token of a trace, by latent and trace, then by position."""
    return {
        (latent, trace_id): dict(group.select("position", "change").iter_rows())
        for (latent, trace_id), group in study.token_effects[site].group_by("latent", "trace_id")
    }


def within(changes: Mapping[int, float] | None, start: int, length: int) -> list[float | None] | None:
    """Return the changes of a stretch of tokens; None where the latent wasn't tried in the trace."""
    return None if changes is None else [brief(changes.get(start + offset), 3) for offset in range(length)]


def rows(tables: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Return a row a latent that was tried, by site and falling excess, as the page's table has it."""
    return [
        row
        | {
            "site": site,
            "where": WINDOWS[row["window"]],
            "doses": list(zip(row["strengths"] or [], row["added"] or [], strict=True)),
        }
        for site, table in tables.items()
        for row in table.iter_rows(named=True)
    ]
