"""The original study's views, of one trace or of all: largest activations, most frequent latents, top tokens."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from .canvas import FAINT, INK, Panel, Picture, latent_color, shown

TOKEN_COLUMNS = 5
"""Latents side by side in a grid of top tokens."""


def frequency_dots(picture: Picture, place: Panel, table: pl.DataFrame) -> None:
    """Draw on how many tokens each latent of a table of frequencies is active, the most frequent first."""
    if table.is_empty():
        return picture.empty(place)
    latents, tokens = table["latent"].to_list(), table["tokens"].to_numpy()
    # Dots, as a logarithmic scale has no zero that bars could stand on.
    ends = 0.7 * tokens.min(), 1.4 * tokens.max()
    panel = replace(place, x_range=(-0.8, len(latents) - 0.2), y_range=ends, log="y")
    picture.frame(panel, y_label="tokens")
    x = panel.x(np.arange(len(latents)))
    picture.strokes(x, panel.bottom, x, panel.y(tokens), color=FAINT, width=0.6)
    picture.dots(x, panel.y(tokens), [latent_color(latent) for latent in latents], radius=3.2)
    _name_columns(picture, panel, latents)


def activation_strips(picture: Picture, place: Panel, table: pl.DataFrame, most: int) -> None:
    """Draw a table of largest activations, a column of marks for each latent, the latent with the largest first.

    Those that count, of at most `most` latents, and in words how many are on sinks if these count too.
    """
    with_sinks = table.filter(pl.col("rank_with_sinks").is_not_null())
    on_sinks = with_sinks.filter("sink")
    table = table.filter(pl.col("rank").is_not_null())
    if table.is_empty():
        return picture.empty(place)
    ranges = (
        table.group_by("latent")
        .agg(high=pl.col("activation").max(), low=pl.col("activation").min())
        .sort("high", "latent", descending=True)
    )
    drawn = ranges.head(most).with_row_index("column")
    latents = drawn["latent"].to_list()
    marks = table.join(drawn.select("latent", "column"), on="latent")
    column, activation = marks["column"].to_numpy(), marks["activation"].to_numpy()
    panel = replace(place, x_range=(-0.8, len(latents) - 0.2),
                    y_range=(0.93 * activation.min(), 1.1 * activation.max()), log="y")  # fmt: skip
    picture.frame(panel, y_label="activation")
    colors = [latent_color(latent) for latent in latents]
    x = panel.x(drawn["column"])
    picture.strokes(x, panel.y(drawn["low"]), x, panel.y(drawn["high"]), color=colors, width=1, alpha=0.5)
    x, y, half = panel.x(column), panel.y(activation), 0.038
    picture.strokes(x - half, y, x + half, y, color=[colors[index] for index in column], width=1)
    _name_columns(picture, panel, latents)
    sinks = f"with sinks counted, {len(on_sinks)} of the {len(with_sinks)} largest are on sinks"
    if len(on_sinks):
        sinks += f" (up to {on_sinks['activation'][0]:.3g})"
    remark = f"{len(marks)} of the {len(table)} largest; {len(latents)} of their {len(ranges)} latents; {sinks}"
    picture.write(panel.right, panel.top + 0.11, remark, ha="right", size=8, color="#777777")


def _name_columns(picture: Picture, panel: Panel, latents: Sequence[int]) -> None:
    x = panel.x(np.arange(len(latents)))
    picture.letters([str(latent) for latent in latents], x, panel.bottom - 0.06, size=7, align="right", turned=True)


def token_grid_height(latents: int, tokens: int) -> float:
    """Return the height of a grid of top tokens, in inches."""
    return max(1, -(-latents // TOKEN_COLUMNS)) * (0.5 + 0.17 * tokens)


def token_grid(picture: Picture, top: float, latents: Sequence[int], table: pl.DataFrame, tokens: int) -> None:
    """Draw the first `tokens` token types of each latent, in a grid from `top` down; each on a log scale of its own."""
    width, height = 1.14, 0.17 * tokens + 0.05
    row, column = np.divmod(np.arange(len(latents)), TOKEN_COLUMNS)
    left, bottom = 1.02 + 2.22 * column, top - 0.2 - height - token_grid_height(1, tokens) * row
    picture.letters([str(latent) for latent in latents], left, bottom + height + 0.09, size=9, color=INK, bold=True)
    picture.corners(left, bottom, left + width, bottom + height)
    grid = pl.DataFrame({"latent": latents, "left": left, "bottom": bottom}, schema_overrides={"latent": pl.UInt32})
    largest, floor = pl.col("max").first().over("latent"), 0.5 * pl.col("max").last().over("latent")
    places = (
        table.join(grid, on="latent", maintain_order="left")
        .with_columns(line=pl.int_range(pl.len()).over("latent"))
        .filter(pl.col("line") < tokens)
        .with_columns(end=pl.col("left") + width * (pl.col("max") / floor).log() / (1.05 * largest / floor).log())
    )
    left, end = places["left"].to_numpy(), places["end"].to_numpy()
    y = places["bottom"].to_numpy() + height - 0.1 - 0.17 * places["line"].to_numpy()
    picture.strokes(left, y, left + width, y, color=FAINT, width=0.6)
    picture.dots(end, y, [latent_color(latent) for latent in places["latent"]])
    picture.letters([shown(token, 11) for token in places["token"]], left - 0.05, y, size=7.5, align="right")
    first = places.filter(line=0)
    picture.letters([f"{value:.3g}" for value in first["max"]], first["end"], first["bottom"] - 0.09, size=7,
            align="center")  # fmt: skip
