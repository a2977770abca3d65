"""Pictures over all traces of a site, and of all sites side by side."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..evidence.recurrence import leading_latents, leading_tokens
from ..statistics import wilson
from .canvas import (
    CONDITION_COLORS, CONDITION_LINES, CONDITION_MARKERS, INK, LATENT_COLORS, SCOPE_NAMES, Panel, Picture, latent_color,
    nothing, shown,
)  # fmt: skip
from .panels import activation_strips, frequency_dots, token_grid, token_grid_height

NO_LATENT = "no latent is active in any trace"


def recurrence(
    table: pl.DataFrame, top_tokens: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, latents: int
) -> Picture:
    """Draw in how many traces each leading latent is a relevant one, by condition, with its top tokens beside it."""
    leaders = leading_latents(table, scope, latents)
    total = int(table["of"].max() or 0)  # type: ignore[arg-type]
    title = f"Recurring latents at {site}"
    subtitle = f"in how many of {total} traces a latent is among the top by maximum activation ({SCOPE_NAMES[scope]})"
    if not leaders:
        return nothing(title, subtitle, NO_LATENT)
    unit = 0.2 + 0.06 * len(conditions)
    height = 1.3 + unit * len(leaders)
    picture = Picture(9, height, title, f"{subtitle}, with 95 % intervals")
    panel = Panel(0.81, 0.55, 4.23, unit * len(leaders), (0, total), (len(leaders) - 0.4, -0.6))
    axes = picture.axes_at(panel, xlabel="traces")
    # A condition in whose traces a latent is never relevant has no row: none of all, with an interval, too.
    grid = pl.DataFrame({"latent": leaders}, schema={"latent": pl.UInt32})
    never = {"traces": 0, "low": 0.0, "high": float(wilson(np.array([0]), total)[1][0])}
    counts = []
    for condition in conditions:
        of_condition = table.filter(scope=scope, condition=condition).select("latent", *never)
        of_all = grid.join(of_condition, on="latent", how="left", maintain_order="left")
        counts.append(of_all.with_columns(pl.col(name).fill_null(value) for name, value in never.items()))
    rows = np.arange(len(leaders))
    colors = [latent_color(latent) for latent in leaders]
    traces = np.array([of_condition["traces"] for of_condition in counts])
    axes.hlines(rows, traces.min(axis=0), traces.max(axis=0), colors=colors, linewidth=5, alpha=0.22, zorder=1.9)
    # Conditions side by side within a row, so that equal counts don't hide each other.
    offsets = np.linspace(-0.2, 0.2, len(conditions)) if len(conditions) > 1 else [0.0]
    for index, (of_condition, offset) in enumerate(zip(counts, offsets, strict=True)):
        axes.hlines(rows + offset, of_condition["low"] * total, of_condition["high"] * total, colors=colors,
                    linewidth=1.1, alpha=0.75, zorder=2, clip_on=False)  # fmt: skip
        axes.scatter(of_condition["traces"], rows + offset, s=30, marker=CONDITION_MARKERS[index % 8], linewidth=1.4,
                     facecolors=colors if index == 0 else "white", edgecolors=colors, zorder=3,
                     clip_on=False)  # fmt: skip
    picture.name_rows(panel, axes, [str(latent) for latent in leaders])
    picture.write(0.25, panel.bottom + panel.height / 2, "latent", rotation=90, ha="center")
    words = leading_tokens(top_tokens, scope).group_by("latent").agg(pl.col("token").head(5))
    texts = [
        "  ".join(shown(token, 12) for token in row)
        for row in grid.join(words, on="latent", how="left", maintain_order="left")["token"].fill_null([])
    ]
    picture.letters(texts, panel.right + 0.17, panel.y(rows), size=8.5, color=INK)
    picture.write(panel.right + 0.17, panel.top + 0.1, "tokens it is most active on", size=8, color="#777777")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], marker=CONDITION_MARKERS[index % 8], linestyle="-", color="#555555", markersize=6, linewidth=1.1,
               markerfacecolor="#555555" if index == 0 else "white", label=condition)
        for index, condition in enumerate(conditions)
    ]  # fmt: skip
    picture.legend(handles=handles, loc="lower right", ncols=len(conditions), bbox_to_anchor=(0.98, 0.0))
    return picture


def _condition_panels(
    title: str, subtitle: str, conditions: Sequence[str], panel_height: float
) -> tuple[Picture, list[Panel]]:
    """Return a figure with one wide panel a condition, stacked, and the panels."""
    height = 0.75 + (panel_height + 0.6) * len(conditions)
    picture = Picture(11, height, title, subtitle)
    tops = [height - 0.95 - index * (panel_height + 0.6) for index in range(len(conditions))]
    panels = [Panel(0.715, top - panel_height, 10.12, panel_height) for top in tops]
    for panel, condition in zip(panels, conditions, strict=True):
        picture.heading(panel, condition)
    return picture, panels


def frequencies(
    table: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, frequent_latents: int
) -> Picture:
    """Draw on how many tokens each of the most frequent latents is active, one panel a condition."""
    picture, panels = _condition_panels(
        f"Most frequent latents at {site}", f"tokens a latent is active on ({SCOPE_NAMES[scope]}), all traces",
        conditions, 1.9,
    )  # fmt: skip
    for panel, condition in zip(panels, conditions, strict=True):
        frequency_dots(picture, panel, table.filter(scope=scope, condition=condition).head(frequent_latents))
    return picture


def histogram(table: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str) -> Picture:
    """Draw the histogram of all activations over all traces, one line a condition."""
    title, subtitle = f"Activations at {site}", f"all active latents of {SCOPE_NAMES[scope]}, all traces"
    table = table.filter(pl.col("scope") == scope, pl.col("condition").is_in(list(conditions)))
    if table.is_empty():
        return nothing(title, subtitle, NO_LATENT)
    picture = Picture(8, 4.2, title, subtitle)
    x_range, y_range = (0, 1.05 * table["upper"].to_numpy().max()), (0.5, 1.5 * table["count"].to_numpy().max())
    panel = Panel(0.72, 0.5, 7.12, 2.94, x_range, y_range, log="y")
    axes = picture.axes_at(panel, xlabel="activation", ylabel="active latents, over tokens")
    for index, condition in enumerate(conditions):
        bins = table.filter(condition=condition)
        if bins.is_empty():
            continue
        axes.stairs(bins["count"].to_numpy(), [*bins["lower"], bins["upper"][-1]], label=condition, linewidth=1.6,
                    color=CONDITION_COLORS[index % 4], linestyle=CONDITION_LINES[index % 4])  # fmt: skip
    axes.legend(loc="upper right")
    return picture


def top_activations(
    table: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, frequent_latents: int
) -> Picture:
    """Draw the largest activations over all traces, a column a latent, one panel a condition."""
    picture, panels = _condition_panels(
        f"Largest activations at {site}",
        f"the largest over all traces, by latent; each mark is one token ({SCOPE_NAMES[scope]})",
        conditions, 2.2,
    )  # fmt: skip
    for panel, condition in zip(panels, conditions, strict=True):
        activation_strips(picture, panel, table.filter(scope=scope, condition=condition), frequent_latents)
    return picture


def top_tokens(
    table: pl.DataFrame, recurrence: pl.DataFrame, *, site: str, scope: str, latents: int, tokens: int
) -> Picture:
    """Draw the top token types of each leading latent by maximum activation over all traces and conditions."""
    leaders = leading_latents(recurrence, scope, latents)
    title = f"Top tokens of the leading latents at {site}"
    subtitle = f"maximum activation by token type ({SCOPE_NAMES[scope]}), log scale; ␣ blank, ↵ newline, \\x.. bytes"
    if not leaders:
        return nothing(title, subtitle, NO_LATENT)
    height = 0.8 + token_grid_height(len(leaders), tokens)
    picture = Picture(12, height, title, subtitle)
    token_grid(picture, height - 0.7, leaders, leading_tokens(table, scope), tokens)
    return picture


def layers(recurrence: pl.DataFrame, *, conditions: Sequence[str], scope: str) -> Picture:
    """Draw how many latents recur in at least t traces, for each site, one panel a condition.

    recurrence: the tables of all sites, with a `site` column.
    """
    title = "Recurrence across sites"
    subtitle = f"latents among the top of at least that many traces ({SCOPE_NAMES[scope]})"
    table = recurrence.filter(scope=scope)
    if table.is_empty():
        return nothing(title, subtitle, NO_LATENT)
    total, most = table["of"].to_numpy().max(), table.group_by("site", "condition").len()["len"].to_numpy().max()
    least = np.arange(1, total + 1)
    picture = Picture(1.2 + 4.3 * len(conditions), 4.4, title, subtitle)
    for column, condition in enumerate(conditions):
        panel = Panel(0.75 + 4.3 * column, 0.57, 3.9, 2.86, (0.5, total + 0.5), (0, 1.3 * most))
        picture.heading(panel, condition)
        axes = picture.axes_at(panel, xlabel="traces, at least", ylabel="" if column else "latents")
        for line, site in enumerate(recurrence["site"].unique(maintain_order=True)):
            traces = table.filter(site=site, condition=condition)["traces"].to_numpy()
            axes.step(least, (traces[:, None] >= least).sum(axis=0), where="mid", label=site, linewidth=1.8,
                      color=LATENT_COLORS[(0, 2, 4, 6, 1, 8)[line % 6]],
                      linestyle=CONDITION_LINES[line // 6 % 4])  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="upper right")
    return picture
