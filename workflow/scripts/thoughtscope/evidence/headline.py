"""Room 6, evidence: one number a latent and one error rate for the whole study.

A thinking pattern is linked to a pattern and recurs beyond every control, so against each latent stands that it isn't
linked, or doesn't recur. The larger of the two p values is a p of that (intersection-union test, Berger 1982): it is
small only if both are. Within each, the latent may be linked to any pattern in either window (the smallest p times
their number, Bonferroni's partial conjunction, Benjamini and Heller 2008), and must be beyond all controls (the
largest p). One false discovery rate then covers all latents tested at all sites, whichever of them recur by the
original study's count.
"""

import numpy as np
import polars as pl

from ..frames import Schema, complete, keys
from ..statistics import e_values, fdr
from .links import links as of_links

SCHEMA = Schema(
    "a latent tested for a link to a pattern (see `pattern_tests`), at any site",
    **keys("site", "latent"),
    pattern=(pl.String, "the pattern of the smallest p"),
    window=(pl.String, "its window: `before` or `after`"),
    links=(pl.UInt32, "patterns x windows (before and after) that were tested"),
    p_link=(pl.Float64, "p of no link to any pattern: the smallest times `links`"),
    p_control=(pl.Float64, "p of not recurring beyond some control: the largest; null without a control"),
    p=(pl.Float64, "the larger of these: of not being a thinking pattern"),
    q=(pl.Float64, "Benjamini-Hochberg q of p, over all latents of all sites"),
    e=(pl.Float64, "evidence against not being one, that stays valid as traces are added: the smaller e-value of the"
                   " two (see `e_values`; for the link the mean over `links`)"),
    q_looking=(pl.Float64, "Benjamini-Hochberg q of 1 / e (e-BH, Wang and Ramdas 2022): holds however often one looks"),
    q_link=(pl.Float64, "Benjamini-Hochberg q of p_link"),
    family=(pl.UInt32, "the latents that q is over"),
)  # fmt: skip


def headline(
    pattern_tests: pl.LazyFrame, presence: pl.LazyFrame, traces: pl.LazyFrame, *, condition: str
) -> pl.DataFrame:
    """Return one p, q and e for each latent of all sites."""
    count = traces.filter(pl.col("condition") == condition).select(pl.len()).collect().item()
    tests = of_links(pattern_tests).filter(pl.col("p").is_not_null()).collect()
    if tests.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    tests = tests.with_columns(e=e_values(tests["p"].to_numpy(), count))
    links = (
        tests.sort("p", "share", "pattern", "window", descending=[False, True, False, False])
        .group_by("site", "latent", maintain_order=True)
        .agg(
            pl.col("pattern", "window").first(),
            links=pl.len(),
            p_link=(pl.col("p").min() * pl.len()).clip(upper_bound=1.0),
            e_link=pl.col("e").mean(),
        )
    )
    # A control that could not be compared leaves a latent without a p: none can be beyond it.
    every = pl.col("p").null_count() == 0
    controls = (
        presence.group_by("site", "latent")
        .agg(p_control=pl.when(every).then(pl.col("p").max()), e_control=pl.when(every).then(pl.col("e").min()))
        .collect()
    )
    table = links.join(controls, on=["site", "latent"], how="left").with_columns(
        p=pl.when(pl.col("p_control").is_not_null()).then(pl.max_horizontal("p_link", "p_control")),
        e=pl.when(pl.col("e_control").is_not_null()).then(pl.min_horizontal("e_link", "e_control")),
    )
    for name, of in (("q", table["p"]), ("q_looking", 1 / table["e"]), ("q_link", table["p_link"])):
        values = of.clip(upper_bound=1.0).fill_null(np.nan).to_numpy()
        table = table.with_columns(pl.Series(name, fdr(values)))
    return complete(table.with_columns(family=pl.len()), SCHEMA).sort("site", "p", "latent")
