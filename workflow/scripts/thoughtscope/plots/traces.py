"""Pictures of one trace: the original study's views, inference by inference."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ..vocabulary import label
from .canvas import SCOPE_NAMES, Panel, frame, new_figure, rectangles, shown, write
from .panels import activation_strips, empty, frequency_bars, heading, token_grid, token_grid_height


def pictures(
    traces: pl.DataFrame,
    top_activations: pl.DataFrame,
    frequencies: pl.DataFrame,
    histograms: pl.DataFrame,
    relevant_latents: pl.DataFrame,
    top_tokens: pl.DataFrame,
    *,
    site: str,
    scope: str,
    frequent_latents: int,
    tokens: int,
) -> Iterator[tuple[int, Figure]]:
    """Yield the id and the picture of each trace of a block."""
    tables = [
        table.filter(scope=scope) for table in (top_activations, frequencies, histograms, relevant_latents, top_tokens)
    ]
    by_trace = [table.partition_by("trace_id", as_dict=True) for table in tables]
    for about in traces.iter_rows(named=True):
        trace_id = about["trace_id"]
        parts = (part.get((trace_id,), table.clear()) for part, table in zip(by_trace, tables, strict=True))
        yield trace_id, trace(about, *parts, site=site, scope=scope, frequent_latents=frequent_latents, tokens=tokens)


def trace(
    about: Mapping[str, Any],
    top_activations: pl.DataFrame,
    frequencies: pl.DataFrame,
    histogram: pl.DataFrame,
    relevant_latents: pl.DataFrame,
    top_tokens: pl.DataFrame,
    *,
    site: str,
    scope: str,
    frequent_latents: int,
    tokens: int,
) -> Figure:
    """Draw one trace: its largest activations, most frequent latents, histogram, and its relevant latents' top tokens.

    `about` is the trace's row in its traces file; each frame is narrowed to the trace and scope.
    """
    latents = relevant_latents["latent"].to_list()
    height = 5.05 + token_grid_height(len(latents), tokens)
    outcome = {True: "correct", False: "wrong", None: "not graded"}[about["correct"]]
    figure = new_figure(
        12, height, f"Trace {about['trace_id']}, {about['condition']}, at {site}",
        f"{len(about['generated_ids'])} tokens written ({about['finish_reason']}); answer"
        f" {shown(label(about['predicted'] or 'none'), 30)}, reference {shown(label(about['reference']), 30)}:"
        f" {outcome}; shown: {SCOPE_NAMES[scope]}",
    )  # fmt: skip
    place = Panel(0.72, height - 2.3, 7.2, 1.45)
    heading(figure, place, "largest activations")
    activation_strips(figure, place, top_activations, frequent_latents)
    place = Panel(8.64, height - 2.3, 3.18, 1.45)
    heading(figure, place, "all activations")
    _histogram(figure, place, histogram)
    place = Panel(0.72, height - 4.05, 11.1, 1.2)
    heading(figure, place, f"{min(frequent_latents, len(frequencies))} most frequent latents")
    frequency_bars(figure, place, frequencies.head(frequent_latents))
    write(
        figure, 0.2, height - 4.65, "top tokens of its relevant latents (maximum, logarithmic)", size=10, weight="bold"
    )
    token_grid(figure, height - 4.75, latents, top_tokens, tokens)
    return figure


def _histogram(figure: Figure, place: Panel, bins: pl.DataFrame) -> None:
    if bins.is_empty():
        return empty(figure, place)
    counts = bins["count"].to_numpy()
    panel = replace(place, x_range=(0.0, 1.02 * bins["upper"][-1]), y_range=(0.5, 1.5 * counts.max()), log="y")
    frame(figure, panel, x_label="activation", y_label="count")
    tops = panel.y(np.maximum(counts, 0.5))
    rectangles(figure, panel.x(bins["lower"]), panel.bottom, panel.x(bins["upper"]), tops, "#717581")
