"""Room 6, evidence: what makes a link of a latent to a thinking pattern, from the rows of `pattern_tests`."""

import polars as pl

WINDOWS = {"before": "leads to it", "at": "is the word", "after": "goes with it"}
"""Windows of a pattern, and what a latent does that is more active there than on tokens alike."""

LEADING = 0.9
"""Share of the tested latents that a linked one must be more selective than, where they are ranked."""

RANKED = 1000
"""Tested latents from which a latent's share is ranked among them."""

MIN_TOLD_APART = 0.25
"""Share of a window's variance that must be left when place is accounted for, or state and place are one."""


def links(tests: pl.LazyFrame) -> pl.LazyFrame:
    """Return the tests that can make a link, those of windows beside a pattern's words.

    Their p is 1 where too many latents are as selective, or place can't be told from state.
    """
    by_chance = (pl.col("rank") < LEADING) | (pl.col("told_apart") < MIN_TOLD_APART)
    p = pl.when(by_chance.fill_null(value=False) & pl.col("p").is_not_null()).then(1.0).otherwise("p")
    return tests.filter(pl.col("window").cast(pl.String) != "at").with_columns(p=p)
