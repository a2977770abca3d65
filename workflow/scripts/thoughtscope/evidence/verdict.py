"""Room 6, evidence: which recurring latents are thinking patterns, check by check, and what speaks against the rest."""

from typing import NamedTuple

import polars as pl

from ..frames import Schema, complete, keys
from .checks import CHECKS, RESULTS, VERDICTS, Known, Thresholds

SCHEMA = Schema(
    "a latent that recurs under the condition under study: among the top of at least `min_traces` traces, with sinks as"
    " configured or counted; thinking patterns first, then undecided ones, by falling traces",
    **keys("latent"),
    traces=(pl.UInt32, "traces it is among the top of"),
    of=(pl.UInt32, "traces compared"),
    original=(pl.Boolean, "whether it recurs with sinks counted, so that the original study would call it a feature"),
    verdict=(pl.Enum(VERDICTS), "thinking pattern: all checks pass; no: any fails"),
    removed_by=(pl.String, "the first check that fails"),
    **{
        f"{check.name}{part}": column
        for check in CHECKS
        for part, column in (
            ("", (pl.Enum(RESULTS), check.asks)),
            ("_number", (pl.Float64, check.number.replace("{", "`analysis.").replace("}", "`"))),
            ("_note", (pl.String, "why")),
        )
    },
)


def verdict(
    controls: pl.LazyFrame,
    fit: pl.LazyFrame,
    pattern_tests: pl.LazyFrame,
    lexicality: pl.LazyFrame,
    outcomes: pl.LazyFrame,
    *,
    min_traces: int,
    alpha: float,
    min_excess: float,
    min_link: float,
    max_fvu: float,
    max_sink_share: float,
    max_top_3: float,
    max_length_auroc: float,
) -> pl.DataFrame:
    """Put every latent that recurs in at least `min_traces` traces to all CHECKS, whose thresholds the others are."""
    thresholds = Thresholds(alpha, min_excess, min_link, max_fvu, max_sink_share, max_top_3, max_length_auroc)
    of_controls, *others = (
        {latent: group.to_dicts() for (latent,), group in frame.collect().group_by("latent")}
        for frame in (controls, pattern_tests, lexicality, outcomes)
    )
    of_sae = fit.filter(pl.col("condition").is_null()).collect().to_dicts()
    rows = []
    for latent, compared in sorted(of_controls.items()):
        about = compared[0]
        if max(about["traces"], about["traces_with_sinks"]) < min_traces:
            continue
        known = Known(compared, of_sae, *(table.get(latent, []) for table in others))
        judged = {check.name: check.judge(known, thresholds) for check in CHECKS}
        failed = [name for name, (result, *_) in judged.items() if result == "fail"]
        passed = all(result == "pass" for result, *_ in judged.values())
        row = {"latent": latent, "traces": about["traces"], "of": about["of"]}
        row |= {"original": about["traces_with_sinks"] >= min_traces, "removed_by": failed[0] if failed else None}
        row["verdict"] = "no" if failed else "thinking pattern" if passed else "undecided"
        for name, judgement in judged.items():
            row |= dict(zip((name, f"{name}_number", f"{name}_note"), judgement, strict=True))
        rows.append(row)
    table = complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)
    order = pl.col("verdict").replace_strict({"thinking pattern": 0, "undecided": 1, "no": 2}, return_dtype=pl.UInt8)
    return table.sort(order, -pl.col("traces").cast(pl.Int64), "latent")


def leading(table: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return the leading rows of a verdict's table: thinking patterns first, then by traces."""
    return (
        table.with_columns(pl.col("verdict").cast(pl.String))
        .sort(pl.col("verdict") != VERDICTS[0], "traces", "latent", descending=[False, True, False])
        .head(most)
    )


class Step(NamedTuple):
    """A step of the waterfall."""

    name: str
    """`candidates`, the name of a check, or `survivors`."""
    left: int
    """Latents left after it."""


def waterfall(table: pl.DataFrame) -> list[Step]:
    """Return what is left of the recurring latents after each check, from a verdict's table.

    First the `candidates`, then each of CHECKS (those that fail it are gone), and at last the `survivors`, those that
    pass all; the rest of the last check is undecided.
    """
    left, steps = table, [Step("candidates", len(table))]
    for check in CHECKS:
        left = left.filter(pl.col("removed_by").is_null() | (pl.col("removed_by") != check.name))
        steps.append(Step(check.name, len(left)))
    return [*steps, Step("survivors", len(left.filter(pl.col("verdict").cast(pl.String) == VERDICTS[0])))]
