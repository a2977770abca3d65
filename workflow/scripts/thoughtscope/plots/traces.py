"""Pictures of one trace: the original study's views, inference by inference."""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from ..vocabulary import label
from .canvas import SCOPE_NAMES, Panel, Picture, shown
from .panels import activation_strips, frequency_dots, token_grid, token_grid_height


def pictures(
    traces: pl.DataFrame, top_activations: pl.DataFrame, frequencies: pl.DataFrame, histograms: pl.DataFrame,
    relevant_latents: pl.DataFrame, top_tokens: pl.DataFrame, *, site: str, scope: str, frequent_latents: int,
    tokens: int,
) -> Iterator[tuple[int, Picture]]:  # fmt: skip
    """Draw the traces of a block one by one; yields each with its id.

    Its largest activations, its most frequent latents, the histogram, and the top tokens of its relevant latents.
    """
    tables = (top_activations, frequencies, histograms, relevant_latents, top_tokens)
    by_trace = [table.filter(scope=scope).partition_by("trace_id", as_dict=True) for table in tables]
    for about in traces.iter_rows(named=True):
        key = (about["trace_id"],)
        activations, frequent, bins, relevant, top = (
            parts.get(key, table.clear()) for parts, table in zip(by_trace, tables, strict=True)
        )
        latents = relevant["latent"].to_list()
        height = 5.05 + token_grid_height(len(latents), tokens)
        outcome = {True: "correct", False: "wrong", None: "not graded"}[about["correct"]]
        picture = Picture(
            12, height, f"Trace {about['trace_id']}, {about['condition']}, at {site}",
            f"{len(about['generated_ids'])} tokens written ({about['finish_reason']}); answer"
            f" {shown(label(about['predicted'] or 'none'), 30)}, reference {shown(label(about['reference']), 30)}:"
            f" {outcome}; shown: {SCOPE_NAMES[scope]}",
        )  # fmt: skip
        panel = Panel(0.72, height - 2.3, 7.2, 1.45)
        picture.heading(panel, "largest activations")
        activation_strips(picture, panel, activations, frequent_latents)
        panel = Panel(8.64, height - 2.3, 3.18, 1.45)
        picture.heading(panel, "all activations")
        _histogram(picture, panel, bins)
        panel = Panel(0.72, height - 4.05, 11.1, 1.2)
        picture.heading(panel, f"{min(frequent_latents, len(frequent))} most frequent latents")
        frequency_dots(picture, panel, frequent.head(frequent_latents))
        picture.heading(Panel(0.2, 0, 0, height - 4.76), "top tokens of its relevant latents (maximum, logarithmic)")
        token_grid(picture, height - 4.75, latents, top, tokens)
        yield about["trace_id"], picture


def _histogram(picture: Picture, place: Panel, bins: pl.DataFrame) -> None:
    if bins.is_empty():
        return picture.empty(place)
    filled = bins.filter(pl.col("count") > 0)
    counts = filled["count"].to_numpy()
    panel = replace(place, x_range=(0.0, 1.02 * bins["upper"][-1]), y_range=(0.5, 1.5 * counts.max()), log="y")
    picture.frame(panel, x_label="activation", y_label="count")
    middles = filled.select((pl.col("lower") + pl.col("upper")) / 2).to_series()
    picture.dots(panel.x(middles), panel.y(counts), "#717581")
