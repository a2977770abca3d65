"""Room 6, evidence: which latents are thinking patterns, check by check, and what speaks against the rest."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import polars as pl

from ..frames import Schema, complete, keys
from .checks import BY_NAME, CHECKS, RESULTS, VERDICTS, Judgement, Known, Thresholds, asked
from .twins import COMPARED, against_twins, fits, passes

SCHEMA = Schema(
    "a candidate latent (see `candidates`); thinking patterns first, then undecided ones, by falling traces",
    **keys("latent"),
    traces=(pl.UInt32, "traces it is among the top of, under the condition under study"),
    of=(pl.UInt32, "traces of that condition"),
    original=(pl.Boolean, "whether it recurs with sinks counted, so that the original study would call it a feature"),
    verdict=(pl.Enum(VERDICTS), "thinking pattern: all checks that are asked pass; no: any fails"),
    removed_by=(pl.String, "the first check that fails"),
    pattern=(pl.String, "the pattern it is linked to, where it is"),
    window=(pl.String, "the window of that: `before` (it leads to the pattern) or `after` (it goes with it)"),
    selectivity=(pl.Float64, "the share of its activation there beyond tokens alike"),
    p=(pl.Float64, "p of not being a thinking pattern (see `headline`)"),
    needs=(pl.UInt32, "traces at which all its undecided checks would be decided, if they went on like these; null"
                      " where none is undecided, or that can't be said"),
    **{
        f"{check.name}{part}": column
        for check in CHECKS
        for part, column in (
            ("", (pl.Enum(RESULTS), check.asks + (f"; null without `{check.asked_by}`" if check.asked_by else ""))),
            ("_number", (pl.Float64, check.number.replace("{", "`analysis.").replace("}", "`"))),
            ("_note", (pl.String, "why")),
            ("_needs", (pl.UInt32, "traces that would decide it, if they went on like these")),
        )
    },
)  # fmt: skip


def verdict(
    candidates: pl.LazyFrame,
    fit: pl.LazyFrame,
    presence: pl.LazyFrame,
    pattern_tests: pl.LazyFrame,
    lexicality: pl.LazyFrame,
    headline: pl.LazyFrame,
    twins: pl.LazyFrame | None = None,
    effects: pl.LazyFrame | None = None,
    attribution: pl.LazyFrame | None = None,
    *,
    site: str,
    alpha: float,
    min_excess: float,
    min_share: float,
    max_fvu: float,
    max_sink_share: float,
    max_typed: float,
    max_twins: float,
    min_effect: float,
    readers: Sequence[str],
) -> pl.DataFrame:
    """Put every candidate latent to all CHECKS, whose thresholds the settings are.

    twins: the verdicts at the site of the `readers`, of which one may have no candidate; effects and attribution: what
    came of interventions. Checks that rest on what isn't given aren't asked.
    """
    thresholds = Thresholds(alpha, min_excess, min_share, max_fvu, max_sink_share, max_typed, max_twins, min_effect)
    judged = candidates.collect()
    latents = judged["latent"].to_list()

    def by_latent(frame: pl.LazyFrame | None) -> dict[int, list[dict[str, Any]]]:
        if frame is None:
            return {}
        rows = frame.filter(pl.col("latent").is_in(latents)).collect()
        return {latent: group.to_dicts() for (latent,), group in rows.group_by("latent", maintain_order=True)}

    of_site = headline.filter(pl.col("site") == site).with_columns(traces=pl.lit(judged["of"].max()))
    given = {"presence": presence, "pattern_tests": pattern_tests, "lexicality": lexicality, "headline": of_site}
    tables = {
        name: by_latent(frame) for name, frame in (given | {"effects": effects, "attribution": attribution}).items()
    }
    of_sae = fit.filter(pl.col("condition").is_null()).collect().to_dicts()
    known = [
        Known(about, of_sae, twins=[], **{name: rows.get(about["latent"], []) for name, rows in tables.items()})
        for about in judged.iter_rows(named=True)
    ]
    first = [
        check
        for check in CHECKS
        if check.asked_by is None or (check.asked_by == "interventions" and effects is not None)
    ]
    found = [{check.name: check.judge(of, thresholds) for check in first} for of in known]
    p = [of.headline[0]["p"] if of.headline else None for of in known]
    if twins is not None:
        passing = [all(results[name].result == "pass" for name in COMPARED) for results in found]
        fit_ = [results["fits_its_site"].result == "pass" for results in found]
        schema = {"p": pl.Float64, "passes": pl.Boolean, "fits": pl.Boolean}
        own = pl.DataFrame({"p": p, "passes": passing, "fits": fit_}, schema=schema)
        others = twins.select("reader", "p", passes=passes(), fits=fits()).collect()
        for of, results, rows in zip(known, found, against_twins(own, others, readers), strict=True):
            check = BY_NAME["beyond_its_twins"]
            results[check.name] = check.judge(replace(of, twins=rows), thresholds)
    rows = [_row(*of_latent) for of_latent in zip(known, found, p, strict=True)]
    table = complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)
    order = pl.col("verdict").replace_strict({"thinking pattern": 0, "undecided": 1, "no": 2}, return_dtype=pl.UInt8)
    return table.sort(order, -pl.col("traces").cast(pl.Int64), "latent")


def _row(known: Known, judged: dict[str, Judgement], p: float | None) -> dict[str, Any]:
    """Return the row of one latent from what the checks say of it."""
    failed = [name for name in BY_NAME if name in judged and judged[name].result == "fail"]
    open_ = [judgement.needs for judgement in judged.values() if judgement.result == "undecided"]
    chance = judged["beyond_chance"]
    if chance.result == "undecided" and chance.needs is None and any(open_):
        open_.remove(None)  # it can't be foretold, but by then another of them is decided, and likely fails
    row = {name: known.about[name] for name in ("latent", "traces", "of", "original")} | {"p": p}
    row["verdict"] = "no" if failed else "undecided" if open_ else "thinking pattern"
    row["removed_by"] = failed[0] if failed else None
    known_needs = [needs for needs in open_ if needs is not None]
    row["needs"] = None if failed or len(known_needs) < len(open_) else max(known_needs, default=None)
    if judged["pattern_linked"].result == "pass":
        best = known.headline[0]
        row |= {"pattern": best["pattern"], "window": best["window"]}
        row["selectivity"] = judged["pattern_linked"].number
    for name, judgement in judged.items():
        row |= {name: judgement.result, f"{name}_number": judgement.number, f"{name}_note": judgement.note}
        row[f"{name}_needs"] = judgement.needs
    return row


def leading(table: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return the leading rows of a verdict's table: thinking patterns first, the surest ahead, then by traces."""
    table = table.with_columns(pl.col("verdict").cast(pl.String))
    is_one = pl.col("verdict") == VERDICTS[0]
    sure = pl.when(is_one).then("beyond_chance_number")
    return table.sort(~is_one, sure, "traces", "latent", descending=[False, False, True, False]).head(most)


class Step(NamedTuple):
    """A step of the waterfall."""

    name: str
    """`candidates`, the name of a check, or `survivors`."""
    left: int
    """Latents left after it."""


def waterfall(table: pl.DataFrame) -> list[Step]:
    """Return what is left of the candidates after each check, from a verdict's table.

    First the `candidates`, then each check that was asked (those that fail it are gone), and at last the `survivors`,
    those that pass all; the rest of the last check is undecided.
    """
    left, steps = table, [Step("candidates", len(table))]
    for check in asked(table):
        left = left.filter(pl.col("removed_by").is_null() | (pl.col("removed_by") != check.name))
        steps.append(Step(check.name, len(left)))
    return [*steps, Step("survivors", len(left.filter(pl.col("verdict").cast(pl.String) == VERDICTS[0])))]
