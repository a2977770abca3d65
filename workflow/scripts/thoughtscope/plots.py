"""Room 8, plots: the tables as pictures.

A latent has the same colour in every picture, chosen by its number alone. There are ten colours for thousands of
latents, so colour helps the eye and the number beside it identifies.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import files
from .evidence import leading_latents, leading_tokens
from .vocabulary import escape, label

LATENT_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that stay apart for colour-blind readers (Petroff 2021, arXiv 2107.02270, table of ten)."""

CONDITION_MARKERS = "oDs^vP*X"
CONDITION_LINES = ("-", "--", ":", "-.")
INK, FAINT = "#222222", "#d8d8d8"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # fixed: finding a place takes a fifth of the drawing time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a token may contain '$'
}

mpl.rcParams.update(STYLE)

SCOPE_NAMES = {"all": "prompt and generated tokens", "generated": "generated tokens"}


def latent_color(latent: int) -> str:
    """Return a latent's colour: one of LATENT_COLORS, by a multiplicative hash, so that neighbours differ."""
    return LATENT_COLORS[(latent * 2654435761 % 2**32) * len(LATENT_COLORS) >> 32]


@cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def shown(token: str, most: int = 16) -> str:
    """Return a token's label as the pictures' font can show it: other characters as escapes, long ones cut."""
    text = "".join(char if ord(char) in _glyphs() else escape(char) for char in token)
    return text if len(text) <= most else text[: most - 1] + "…"


def save(figure: Figure, path: str | Path, dpi: int) -> None:
    """Write a figure as png."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, facecolor="white", metadata={"Software": "thoughtscope"})


def _figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """Return an empty figure, size in inches, with a title and a line under it, both at the left."""
    figure = Figure(figsize=(width, height))
    figure.text(0.2 / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(0.2 / width, 1 - 0.38 / height, subtitle, size=9, color="#555555", va="top")
    return figure


def _log_y(axes: Axes, low: float, high: float) -> None:
    """Make y logarithmic from `low` to `high`, with plain numbers as labels, so many as the range has room for."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _plain_log_labels(axes.yaxis, low, high)
    axes.tick_params(axis="y", which="minor", labelsize=7)


def _plain_log_labels(axis: Axis, low: float, high: float) -> None:
    decades = np.log10(high / low)
    # Without math text the default labels would show their markup; minor ones serve where decades are few.
    labelled = {1, 2, 3, 4, 5, 6, 7, 8} if decades < 0.6 else {1, 2, 5} if decades < 1.5 else {1}

    def text(value: float, _position: float | None = None) -> str:
        mantissa = value / 10.0 ** np.floor(np.log10(value) + 1e-9)
        return f"{value:g}" if round(mantissa) in labelled else ""

    axis.set_major_formatter(text)
    axis.set_minor_formatter(text)


def _note_empty(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing active here", ha="center", va="center", color="#888888", transform=axes.transAxes)


def recurrence(
    table: pl.DataFrame, top_tokens: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, latents: int
) -> Figure:
    """Draw in how many traces each leading latent is a relevant one, by condition, with its top tokens beside it."""
    rows = leading_latents(table, scope, latents)
    total = int(table["of"].max() or 0)  # type: ignore[arg-type]
    height = 1.3 + 0.26 * len(rows)
    figure = _figure(
        9, height, f"Recurring latents at {site}",
        f"in how many of {total} traces a latent is among the top by maximum activation ({SCOPE_NAMES[scope]})",
    )  # fmt: skip
    axes = figure.add_axes((0.09, 0.55 / height, 0.47, (height - 1.3) / height))
    table, tokens = table.filter(scope=scope), leading_tokens(top_tokens, scope)
    # Conditions side by side within a row, so that equal counts don't hide each other.
    offsets = np.linspace(-0.15, 0.15, len(conditions)) if len(conditions) > 1 else [0.0]
    for row, latent in enumerate(rows):
        counts = dict(table.filter(pl.col("latent") == latent).select("condition", "traces").iter_rows())
        values = [counts.get(condition, 0) for condition in conditions]
        color = latent_color(latent)
        axes.plot([min(values), max(values)], [row, row], color=color, linewidth=2, alpha=0.5, zorder=2)
        for index, value in enumerate(values):
            face = color if index == 0 else "white"
            axes.plot(value, row + offsets[index], CONDITION_MARKERS[index % 8], color=color, markerfacecolor=face,
                      markersize=6, markeredgewidth=1.5, zorder=3, clip_on=False)  # fmt: skip
        words = tokens.filter(latent=latent)["token"].head(5)
        axes.text(1.04, row, "  ".join(shown(token, 12) for token in words), va="center", size=8.5,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.text(1.04, -0.9, "tokens it is most active on", va="center", size=8, color="#777777",
              transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_yticks(range(len(rows)), [str(latent) for latent in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, total)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("traces")
    axes.set_ylabel("latent")
    handles = [
        mpl.lines.Line2D([], [], marker=CONDITION_MARKERS[index % 8], linestyle="", color="#555555", markersize=7,
                         markerfacecolor="#555555" if index == 0 else "white", label=condition)
        for index, condition in enumerate(conditions)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower right", ncols=len(conditions), bbox_to_anchor=(0.98, 0.0))
    return figure


def _condition_panels(
    title: str, subtitle: str, conditions: Sequence[str], panel_height: float
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one wide panel a condition, stacked."""
    height = 0.75 + (panel_height + 0.6) * len(conditions)
    figure = _figure(11, height, title, subtitle)
    panels: list[Axes] = []
    for index, condition in enumerate(conditions):
        bottom = height - 0.95 - panel_height - index * (panel_height + 0.6)
        axes = figure.add_axes((0.065, bottom / height, 0.92, panel_height / height))
        axes.set_title(condition, pad=4)
        panels.append(axes)
    return figure, panels


def frequencies(table: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, latents: int) -> Figure:
    """Draw on how many tokens each of the most frequent latents is active, one panel a condition."""
    figure, panels = _condition_panels(
        f"Most frequent latents at {site}", f"tokens a latent is active on ({SCOPE_NAMES[scope]}), all traces",
        conditions, 1.9,
    )  # fmt: skip
    for axes, condition in zip(panels, conditions, strict=True):
        _frequency_bars(axes, table.filter(scope=scope, condition=condition).head(latents))
    return figure


def _frequency_bars(axes: Axes, table: pl.DataFrame) -> None:
    if table.is_empty():
        return _note_empty(axes)
    names, counts = table["latent"].to_list(), table["tokens"].to_numpy()
    # The axis starts at a half: on a log axis a bar for 1 token would otherwise have no height.
    axes.bar(np.arange(len(names)), counts - 0.5, bottom=0.5, width=0.8, color=[latent_color(name) for name in names])
    _log_y(axes, 0.5, counts.max() * 1.3)
    axes.set_xlim(-0.8, len(names) - 0.2)
    axes.set_xticks(range(len(names)), [str(name) for name in names], rotation=90, size=6.5)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("tokens")


def histogram(table: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str) -> Figure:
    """Draw the histogram of all activations over all traces, one line a condition."""
    figure = _figure(8, 4.2, f"Activations at {site}", f"all active latents of {SCOPE_NAMES[scope]}, all traces")
    axes = figure.add_axes((0.09, 0.12, 0.89, 0.7))
    for index, condition in enumerate(conditions):
        bins = table.filter(scope=scope, condition=condition)
        if bins.is_empty():
            continue
        axes.stairs(bins["count"].to_numpy(), [*bins["lower"], bins["upper"][-1]], label=condition, linewidth=1.6,
                    color=LATENT_COLORS[(0, 2, 4, 6)[index % 4]], linestyle=CONDITION_LINES[index % 4])  # fmt: skip
    _log_y(axes, 0.5, 1.5 * table.filter(scope=scope)["count"].to_numpy().max())
    axes.set_xlim(left=0)
    axes.set_xlabel("activation")
    axes.set_ylabel("active latents, over tokens")
    axes.legend(loc="upper right")
    return figure


def top_activations(table: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, latents: int) -> Figure:
    """Draw the largest activations over all traces, a column a latent, one panel a condition."""
    figure, panels = _condition_panels(
        f"Largest activations at {site}",
        f"the largest over all traces, by latent; each mark is one token ({SCOPE_NAMES[scope]})",
        conditions, 2.2,
    )  # fmt: skip
    for axes, condition in zip(panels, conditions, strict=True):
        _activation_strips(axes, table.filter(scope=scope, condition=condition), latents)
    return figure


def _activation_strips(axes: Axes, table: pl.DataFrame, latents: int) -> None:
    """Draw a table of largest activations, a column of marks for each latent, the latent with the largest first.

    Those that count, and in words what sinks are or would be among them.
    """
    on_sinks = table.filter(pl.col("sink"), pl.col("rank_with_sinks").is_not_null())
    table = table.filter(pl.col("rank").is_not_null())
    sinks = "none" if on_sinks.is_empty() else f"{len(on_sinks)}, the largest {on_sinks['activation'][0]:.3g}"
    sinks = f"on sinks: {sinks}" if table["sink"].any() else f"on sinks, if they counted: {sinks}"
    if table.is_empty():
        return _note_empty(axes)
    order = (
        table.group_by("latent")
        .agg(high=pl.col("activation").max(), low=pl.col("activation").min())
        .sort("high", "latent", descending=True)
    )
    leaders = order.head(latents).with_row_index("column")
    names = leaders["latent"].to_list()
    colors = [latent_color(latent) for latent in names]
    marks = table.join(leaders.select("latent", "column"), on="latent")
    axes.vlines(leaders["column"], leaders["low"], leaders["high"], colors=colors, linewidth=1, alpha=0.5)
    axes.scatter(marks["column"], marks["activation"], marker="_", s=30, linewidth=1,
                 color=[colors[column] for column in marks["column"]])  # fmt: skip
    axes.text(1, 1.02, f"{len(marks)} of the {len(table)} largest; {len(names)} of their {len(order)} latents; {sinks}",
              ha="right", va="bottom", size=8, color="#777777", transform=axes.transAxes)  # fmt: skip
    _log_y(axes, 0.93 * marks["activation"].to_numpy().min(), 1.1 * marks["activation"].to_numpy().max())
    axes.set_xlim(-0.8, len(names) - 0.2)
    axes.set_xticks(range(len(names)), [str(name) for name in names], rotation=90, size=6.5)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("activation")


def top_tokens(
    table: pl.DataFrame, recurrence: pl.DataFrame, *, site: str, scope: str, latents: int, tokens: int
) -> Figure:
    """Draw the top token types of each leading latent by maximum activation over all traces and conditions."""
    names = leading_latents(recurrence, scope, latents)
    columns = 5
    rows = max(1, -(-len(names) // columns))
    panel = 0.55 + 0.17 * tokens
    height = 0.75 + rows * panel + 0.05
    figure = _figure(
        12, height, f"Top tokens of the leading latents at {site}",
        f"maximum activation by token type ({SCOPE_NAMES[scope]}), log scale; ␣ blank, ↵ newline, \\x.. bytes",
    )  # fmt: skip
    best = leading_tokens(table, scope)
    for index, latent in enumerate(names):
        row, column = divmod(index, columns)
        axes = figure.add_axes(
            (
                0.085 + column * 0.185,
                (height - 0.85 - (row + 1) * panel + 0.4) / height,
                0.095,
                (panel - 0.5) / height,
            )
        )
        _token_bars(axes, latent, best.filter(latent=latent).head(tokens), tokens)
    return figure


def _token_bars(axes: Axes, latent: int, table: pl.DataFrame, tokens: int) -> None:
    values = table["max"].to_numpy()
    floor = values.min() * 0.5
    axes.barh(np.arange(len(values)), values - floor, left=floor, height=0.72, color=latent_color(latent))
    axes.set_yticks(range(len(values)), [shown(token, 11) for token in table["token"]], size=7.5)
    axes.set_ylim(tokens - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(floor, values.max() * 1.05)
    axes.set_xticks([values.max()], [f"{values.max():.3g}"], size=7)
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_title(str(latent), size=9, pad=3, color=INK)


def trace(
    about: Mapping[str, Any],
    *,
    site: str,
    scope: str,
    activations: pl.DataFrame,
    frequent: pl.DataFrame,
    bins: pl.DataFrame,
    relevant: pl.DataFrame,
    tokens_of: pl.DataFrame,
    latents: int,
    tokens: int,
) -> Figure:
    """Draw one trace: its largest activations, most frequent latents, histogram, and its relevant latents' top tokens.

    `about` is the trace's row in its traces file; each frame is narrowed to the trace and scope.
    """
    names = relevant["latent"].to_list()
    columns = 5
    rows = max(1, -(-len(names) // columns))
    panel = 0.5 + 0.17 * tokens
    height = 4.85 + rows * panel + 0.2
    outcome = {True: "correct", False: "wrong", None: "not graded"}[about["correct"]]
    figure = _figure(
        12, height, f"Trace {about['trace_id']}, {about['condition']}, at {site}",
        f"{len(about['generated_ids'])} tokens written ({about['finish_reason']}); answer"
        f" {shown(label(about['predicted'] or 'none'), 30)}, reference {shown(label(about['reference']), 30)}:"
        f" {outcome}; shown: {SCOPE_NAMES[scope]}",
    )  # fmt: skip

    def place(left: float, top: float, width: float, tall: float) -> Axes:
        return figure.add_axes((left, (height - top - tall) / height, width, tall / height))

    axes = place(0.06, 0.85, 0.6, 1.45)
    _activation_strips(axes, activations, latents)
    axes.set_title("largest activations", pad=4)
    axes = place(0.72, 0.85, 0.265, 1.45)
    if bins.is_empty():
        _note_empty(axes)
    else:
        axes.stairs(bins["count"].to_numpy(), [*bins["lower"], bins["upper"][-1]], fill=True, color="#717581")
        _log_y(axes, 0.5, 1.5 * bins["count"].to_numpy().max())
        axes.set_xlabel("activation")
        axes.set_ylabel("count")
    axes.set_title("all activations", pad=4)
    axes = place(0.06, 2.85, 0.925, 1.2)
    _frequency_bars(axes, frequent.head(latents))
    axes.set_title(f"{min(latents, len(frequent))} most frequent latents", pad=4)
    for index, latent in enumerate(names):
        row, column = divmod(index, columns)
        axes = place(0.085 + column * 0.185, 4.95 + row * panel, 0.095, panel - 0.45)
        _token_bars(axes, latent, tokens_of.filter(latent=latent).head(tokens), tokens)
    figure.text(0.2 / 12, (height - 4.72) / height, "top tokens of its relevant latents (maximum, logarithmic)",
                size=10, weight="bold", va="bottom")  # fmt: skip
    return figure


def layers(recurrences: dict[str, pl.DataFrame], *, conditions: Sequence[str], scope: str) -> Figure:
    """Draw how many latents recur in at least t traces, for each site, one panel a condition."""
    width = 1.2 + 4.3 * len(conditions)
    figure = _figure(
        width, 4.4, "Recurrence across sites",
        f"latents among the top of at least that many traces ({SCOPE_NAMES[scope]})",
    )  # fmt: skip
    shared = None
    for index, condition in enumerate(conditions):
        axes = figure.add_axes((0.75 / width + index * 4.3 / width, 0.13, 3.9 / width, 0.65), sharey=shared)
        shared = shared or axes
        for line, (site, table) in enumerate(recurrences.items()):
            mine = table.filter(scope=scope, condition=condition)
            total = int(table["of"].max() or 0)  # type: ignore[arg-type]
            least = np.arange(1, total + 1)
            counts = [int((mine["traces"] >= value).sum()) for value in least]
            axes.step(least, counts, where="mid", label=site, color=LATENT_COLORS[(0, 2, 4, 6, 1, 8)[line % 6]],
                      linestyle=CONDITION_LINES[line // 6 % 4], linewidth=1.8)  # fmt: skip
        axes.set_title(condition, pad=4)
        axes.set_xlabel("traces, at least")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if index == 0:
            axes.set_ylabel("latents")
    figure.axes[-1].legend(loc="upper right")
    return figure


PLACE_NAMES = {
    "site": "its own site",
    "residual_in": "residual stream, entering",
    "residual_out": "residual stream, leaving",
    "below": "one block below",
    "above": "one block above",
}
PLACE_COLORS = {
    "site": "#3f90da", "residual_in": "#e76300", "residual_out": "#a96b59", "below": "#717581", "above": "#94a4a2",
}  # fmt: skip


def site_gate(table: pl.DataFrame, *, max_fvu: float) -> Figure:
    """Draw each SAE's FVU at its own site and at those around it, with the other measures as columns of numbers."""
    pooled = table.filter(pl.col("condition").is_null())
    hookpoints = pooled["hookpoint"].unique(maintain_order=True).to_list()
    positions, labels, y = [], [], 0.0
    for hookpoint in hookpoints:
        for row in pooled.filter(hookpoint=hookpoint).iter_rows(named=True):
            positions.append((y, row))
            labels.append(PLACE_NAMES[row["place"]])
            y += 1
        y += 1.2
    unit = 0.235
    height = 1.75 + unit * (y + 0.3)
    figure = _figure(
        11, height, "Does each SAE fit what it reads?",
        "fraction of variance unexplained (FVU) on this study's generated tokens without sinks, all conditions, with"
        " 95 % intervals over problems; filled: the site this study reads",
    )  # fmt: skip
    axes = figure.add_axes((0.19, 0.75 / height, 0.45, (height - 1.75) / height))
    ends = pl.concat([pooled[name] for name in ("fvu", "fvu_low", "fvu_high")]).drop_nulls().to_numpy()
    low, high = 0.9 * min([0.5, *ends]), 1.2 * max([2.0, *ends])
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_log_labels(axes.xaxis, low, high)
    axes.axvline(1, color="#999999", linewidth=1)
    axes.axvline(max_fvu, color="#bd1f01", linewidth=1, linestyle="--")
    axes.text(1, -2.05, " 1: no better than\n the mean", size=7.5, color="#777777", va="bottom")
    axes.text(max_fvu, -2.05, f"warns above \n{max_fvu:g} ", size=7.5, color="#bd1f01", va="bottom", ha="right")
    for position, row in positions:
        color = PLACE_COLORS[row["place"]]
        if row["fvu"] is None:
            continue
        if row["fvu_low"] is not None:
            axes.plot([row["fvu_low"], row["fvu_high"]], [position] * 2, color=color, linewidth=2, alpha=0.6)
        axes.plot(row["fvu"], position, "o", color=color, markerfacecolor=color if row["used"] else "white",
                  markersize=7, markeredgewidth=1.6)  # fmt: skip
    columns = {
        "FVU": lambda row: f"{row['fvu']:.2f}",
        "cosine": lambda row: f"{row['cosine']:.2f}",
        "L0": lambda row: f"{row['l0']:.1f}",
        "fired": lambda row: f"{row['fired']:.1%}",
        "‖x‖": lambda row: f"{row['median_norm']:.3g}",
        "sinks": lambda row: f"{row['sinks']}",
    }
    for index, (name, text) in enumerate(columns.items()):
        x = 1.13 + 0.122 * index
        axes.text(x, -1.0, name, ha="right", size=8, color="#777777", transform=axes.get_yaxis_transform())
        for position, row in positions:
            axes.text(x, position, text(row) if row["fvu"] is not None else "–", ha="right", va="center", size=8.5,
                      weight="bold" if row["used"] else "normal", transform=axes.get_yaxis_transform())  # fmt: skip
    for hookpoint in hookpoints:
        first = next(position for position, row in positions if row["hookpoint"] == hookpoint)
        axes.text(-0.4, first - 0.9, f"SAE of {hookpoint}", weight="bold", size=9, va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_yticks([position for position, _ in positions], labels)
    axes.set_ylim(y - 1.4, -1.4)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("FVU (logarithmic; less is better)")
    figure.text(0.985, 0.1 / height, "cosine: between x and its reconstruction; fired: share of latents active on any"
                " token; ‖x‖: median", size=7.5, color="#777777", ha="right")  # fmt: skip
    return figure
