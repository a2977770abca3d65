"""Room 8, plots: the tables as pictures.

A latent has the same colour in every picture, chosen by its number alone. There are ten colours for thousands of
latents, so colour helps the eye and the number beside it identifies. Where latents are judged, colour is the verdict.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .. import files
from ..evidence.recurrence import leading_latents, leading_tokens
from ..statistics import wilson
from ..evidence.checks import BY_NAME, CHECKS, VERDICTS
from ..evidence.verdict import leading
from ..evidence.verdict import waterfall as steps_left
from ..vocabulary import escape, label

LATENT_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that stay apart for colour-blind readers (Petroff 2021, arXiv 2107.02270, table of ten)."""

CONDITION_MARKERS = "oDs^vP*X"
CONDITION_LINES = ("-", "--", ":", "-.")
CONDITION_COLORS = tuple(LATENT_COLORS[index] for index in (0, 2, 4, 6))
INK, FAINT, WARNING = "#222222", "#d8d8d8", "#bd1f01"

VERDICT_COLORS = dict(zip(VERDICTS, ("#0072b2", "#7a7a7a", "#d55e00"), strict=True))
"""Blue, grey and vermilion, which stay apart for colour-blind readers (Okabe and Ito 2008)."""

VERDICT_MARKERS = dict(zip(VERDICTS, ("o", "x", "D"), strict=True))


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


def _note_empty(axes: Axes, text: str = "nothing active here") -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#888888", transform=axes.transAxes)


def _nothing(title: str, subtitle: str, text: str) -> Figure:
    """Return a picture that has only this to say."""
    figure = _figure(9, 2, title, subtitle)
    _note_empty(figure.add_axes((0.05, 0.05, 0.9, 0.6)), text)
    return figure


def recurrence(
    table: pl.DataFrame, top_tokens: pl.DataFrame, *, site: str, conditions: Sequence[str], scope: str, latents: int
) -> Figure:
    """Draw in how many traces each leading latent is a relevant one, by condition, with its top tokens beside it."""
    rows = leading_latents(table, scope, latents)
    total = int(table["of"].max() or 0)  # type: ignore[arg-type]
    title = f"Recurring latents at {site}"
    subtitle = f"in how many of {total} traces a latent is among the top by maximum activation ({SCOPE_NAMES[scope]})"
    if not rows:
        return _nothing(title, subtitle, "no latent is active in any trace")
    unit = 0.2 + 0.06 * len(conditions)
    height = 1.3 + unit * len(rows)
    figure = _figure(9, height, title, f"{subtitle}, with 95 % intervals")
    axes = figure.add_axes((0.09, 0.55 / height, 0.47, (height - 1.3) / height))
    table, tokens = table.filter(scope=scope), leading_tokens(top_tokens, scope)
    never = [0, 0.0, float(wilson(np.array([0]), total)[1][0])]
    # Conditions side by side within a row, so that equal counts don't hide each other.
    offsets = np.linspace(-0.2, 0.2, len(conditions)) if len(conditions) > 1 else [0.0]
    for row, latent in enumerate(rows):
        found = table.filter(pl.col("latent") == latent).select("condition", "traces", "low", "high")
        counts = {condition: numbers for condition, *numbers in found.iter_rows()}
        values = [counts.get(condition, never) for condition in conditions]
        color = latent_color(latent)
        axes.plot([min(values)[0], max(values)[0]], [row, row], color=color, linewidth=5, alpha=0.22, zorder=1.9,
                  solid_capstyle="butt")  # fmt: skip
        for index, (value, low, high) in enumerate(values):
            face = color if index == 0 else "white"
            axes.plot([low * total, high * total], [row + offsets[index]] * 2, color=color, linewidth=1.1, alpha=0.75,
                      zorder=2, clip_on=False)  # fmt: skip
            axes.plot(value, row + offsets[index], CONDITION_MARKERS[index % 8], color=color, markerfacecolor=face,
                      markersize=5.5, markeredgewidth=1.4, zorder=3, clip_on=False)  # fmt: skip
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
        mpl.lines.Line2D([], [], marker=CONDITION_MARKERS[index % 8], linestyle="-", color="#555555",
                         markersize=6, linewidth=1.1,
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
    title, subtitle = f"Activations at {site}", f"all active latents of {SCOPE_NAMES[scope]}, all traces"
    table = table.filter(pl.col("scope") == scope, pl.col("condition").is_in(list(conditions)))
    if table.is_empty():
        return _nothing(title, subtitle, "no latent is active in any trace")
    figure = _figure(8, 4.2, title, subtitle)
    axes = figure.add_axes((0.09, 0.12, 0.89, 0.7))
    for index, condition in enumerate(conditions):
        bins = table.filter(condition=condition)
        if bins.is_empty():
            continue
        axes.stairs(bins["count"].to_numpy(), [*bins["lower"], bins["upper"][-1]], label=condition, linewidth=1.6,
                    color=CONDITION_COLORS[index % 4], linestyle=CONDITION_LINES[index % 4])  # fmt: skip
    _log_y(axes, 0.5, 1.5 * table["count"].to_numpy().max())
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

    Those that count, and in words how many are on sinks if these count too.
    """
    along = table.filter(pl.col("rank_with_sinks").is_not_null())
    on_sinks = along.filter("sink")
    table = table.filter(pl.col("rank").is_not_null())
    sinks = f"with sinks counted, {len(on_sinks)} of the {len(along)} largest are on sinks"
    if len(on_sinks):
        sinks += f" (up to {on_sinks['activation'][0]:.3g})"
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
    title = f"Top tokens of the leading latents at {site}"
    subtitle = f"maximum activation by token type ({SCOPE_NAMES[scope]}), log scale; ␣ blank, ↵ newline, \\x.. bytes"
    if not names:
        return _nothing(title, subtitle, "no latent is active in any trace")
    figure = _figure(12, height, title, subtitle)
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
    axes.set_title(str(latent), size=9, pad=3, color=INK)
    if table.is_empty():
        return _note_empty(axes, "none")
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
    title = "Recurrence across sites"
    subtitle = f"latents among the top of at least that many traces ({SCOPE_NAMES[scope]})"
    if all(table.filter(pl.col("scope") == scope).is_empty() for table in recurrences.values()):
        return _nothing(title, subtitle, "no latent is active in any trace")
    width = 1.2 + 4.3 * len(conditions)
    figure = _figure(width, 4.4, title, subtitle)
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
    title = "Does each SAE fit what it reads?"
    subtitle = (
        "fraction of variance unexplained (FVU) on this study's generated tokens without sinks, all conditions, with"
        " 95 % intervals over problems; filled: the site this study reads"
    )
    pooled = table.filter(pl.col("condition").is_null())
    if pooled.is_empty():
        return _nothing(title, subtitle, "no site was read")
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
    figure = _figure(11, height, title, subtitle)
    axes = figure.add_axes((0.19, 0.75 / height, 0.45, (height - 1.75) / height))
    ends = pl.concat([pooled[name] for name in ("fvu", "fvu_low", "fvu_high")]).drop_nulls().to_numpy()
    low, high = 0.9 * min([0.5, *ends]), 1.2 * max([2.0, *ends])
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_log_labels(axes.xaxis, low, high)
    axes.axvline(1, color="#999999", linewidth=1)
    axes.axvline(max_fvu, color=WARNING, linewidth=1, linestyle="--")
    axes.text(1, -2.05, " 1: no better than\n the mean", size=7.5, color="#777777", va="bottom")
    axes.text(max_fvu, -2.05, f"warns above \n{max_fvu:g} ", size=7.5, color=WARNING, va="bottom", ha="right")
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


LABELLED = 12
"""Latents named in the picture of the verdict."""


def verdict(
    table: pl.DataFrame, reason_scores: pl.DataFrame, lexicality: pl.DataFrame, *, site: str, max_top_3: float
) -> Figure:
    """Draw each recurring latent's ReasonScore against its lexicality, with its verdict, and name the leading ones."""
    title = f"Verdict on the recurring latents at {site}"
    subtitle = (
        "how much more a latent is active at reasoning words (ReasonScore, up) against how much of it is a matter of a"
        " few tokens (right)"
    )
    if table.is_empty():
        return _nothing(title, subtitle, "no latent recurs")
    known = (
        table.select("latent", pl.col("verdict").cast(pl.String))
        .join(reason_scores.select("latent", "score", "low", "high"), on="latent", how="left")
        .join(lexicality.select("latent", "top_3"), on="latent", how="left")
        .drop_nulls("top_3")
    )
    scored = reason_scores["score"].is_not_null().any()
    points = known.drop_nulls("score") if scored else known
    if not scored:
        notes = reason_scores["note"].drop_nulls()
        why = f": {notes[0]}" if len(notes) else ""
        subtitle = f"no latent has a ReasonScore{why}; how much of a latent is a matter of a few tokens (right)"
    leaders = leading(table, LABELLED)
    figure = _figure(12.2, 6, title, subtitle)
    axes = figure.add_axes((1 / 12.2, 0.8 / 6, 5.75 / 12.2, 4.3 / 6))
    _verdict_list(figure, leaders, lexicality, len(table))
    if points.is_empty():
        _note_empty(axes, "no recurring latent is active on a token that counts")
        return figure
    axes.set_xlim(-0.02, 1.03)
    axes.set_xlabel("share of activation on its three top token types")
    counts = {name: len(table.filter(pl.col("verdict").cast(pl.String) == name)) for name in VERDICTS}
    if scored:
        y = points["score"].to_numpy()
        axes.axhline(0, color="#999999", linewidth=1)
        axes.set_ylabel("ReasonScore")
        ends = leaders.select("latent").join(points, on="latent").drop_nulls(["low", "high"])
        drawn = [0.0, *y, *ends["low"], *ends["high"]]
        spread = max(drawn) - min(drawn) or 1.0
        axes.set_ylim(min(drawn) - 0.08 * spread, max(drawn) + 0.08 * spread)
        axes.vlines(ends["top_3"], ends["low"], ends["high"], linewidth=1, alpha=0.45,
                    colors=[VERDICT_COLORS[name] for name in ends["verdict"]], zorder=2)  # fmt: skip
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    else:
        # Without a score a row a verdict, spread out within it.
        rows = points["verdict"].replace_strict({name: row for row, name in enumerate(VERDICTS)}).to_numpy()
        y = rows + 0.5 * (np.arange(len(points)) * 0.618034 % 1 - 0.5)
        axes.set_ylim(2.6, -0.6)
        axes.set_yticks(range(3), [name.replace(" ", "\n") for name in VERDICTS])
    points = points.with_columns(y=y)
    named = leaders.select("latent").join(points, on="latent", maintain_order="left")
    few = len(points) <= 100
    for name in VERDICTS:
        mine = points.filter(verdict=name)
        color, marker, edge = VERDICT_COLORS[name], VERDICT_MARKERS[name], 1.5 if name == "no" else 0
        axes.scatter(mine["top_3"], mine["y"], s=34 if few else 14, marker=marker, color=color, zorder=2.5,
                     alpha=0.85 if few else 0.4, linewidth=edge)  # fmt: skip
        mine = named.filter(verdict=name)
        axes.scatter(mine["top_3"], mine["y"], s=34, marker=marker, color=color, zorder=3, linewidth=edge,
                     label=f"{name} ({counts[name]})")  # fmt: skip
    axes.axvline(max_top_3, color=WARNING, linewidth=1, linestyle="--")
    axes.text(max_top_3, 1.01, f" token detector\n from {max_top_3:g}", size=7.5, color=WARNING, va="bottom",
              transform=axes.get_xaxis_transform())  # fmt: skip
    _place_labels(axes, points.select("top_3", "y").to_numpy(), named.select("top_3", "y").to_numpy(),
                  [str(latent) for latent in named["latent"]])  # fmt: skip
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handletextpad=0.2, columnspacing=1.2,
                borderpad=0)  # fmt: skip
    remarks = []
    if scored and not (reason_scores["entropy"] > 0).any():
        remarks.append("no latent is active at more than one reasoning word: with entropy 0 no score is above 0")
    if len(points) < len(table):
        remarks.append(f"{len(table) - len(points)} of {len(table)} not drawn, as they have no number")
    figure.text(0.2 / 12.2, 0.12 / 6, "; ".join(remarks), size=8, color="#777777")
    return figure


def _verdict_list(figure: Figure, leaders: pl.DataFrame, lexicality: pl.DataFrame, total: int) -> None:
    """Write a line for each of a verdict's leading latents, to the right of its picture."""
    width, height = figure.get_size_inches()
    tokens = dict(lexicality.select("latent", "top_tokens").iter_rows())

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, y / height, text, va="center", **{"size": 8.5, **style})

    top = height - 1.12
    for x, text, align in ((7.75, "latent", "right"), (8.4, "traces", "right"), (8.6, "top tokens", "left"),
                           (10.15, "verdict", "left")):  # fmt: skip
        write(x, top, text, ha=align, size=8, color="#777777")
    for index, row in enumerate(leaders.iter_rows(named=True)):
        y = top - 0.3 - 0.3 * index
        color = VERDICT_COLORS[row["verdict"]]
        write(7.75, y, str(row["latent"]), ha="right", weight="bold", color=color)
        write(8.4, y, f"{row['traces']}/{row['of']}", ha="right")
        write(8.6, y, shown(tokens.get(row["latent"]) or "–", 19))
        write(10.15, y, _reason(row), color=color)
    order = "thinking patterns first, then those of the most traces"
    write(7.2, top - 0.3 * (len(leaders) + 1) - 0.1, f"{len(leaders)} of {total}: {order}", size=7.5, color="#777777")


def _reason(row: Mapping[str, Any]) -> str:
    """Say a verdict in a few words: why not, or what is open."""
    if row["removed_by"] is not None:
        return f"no: {BY_NAME[row['removed_by']].fails}"
    open_checks = [check.topic for check in CHECKS if row[check.name] == "undecided"]
    return f"{row['verdict']}: {', '.join(open_checks)}" if open_checks else str(row["verdict"])


def _place_labels(axes: Axes, points: NDArray[np.float64], at: NDArray[np.float64], labels: Sequence[str]) -> None:
    """Write each label beside its point, (labels, 2) among (points, 2), where it hides least, with a line to it."""
    size, marker = 7.5, 4.0  # points, as all lengths here; half the side of a marker
    scale = 72 / axes.figure.dpi
    marks, anchors = (axes.transData.transform(xy) * scale for xy in (points, at))
    corners = axes.transAxes.transform([(0, 0), (1, 1)]) * scale
    boxes = [np.column_stack([marks - marker, marks + marker])]
    for label_text, (x, y), anchor in zip(labels, at, anchors, strict=True):
        half = size * np.array([0.32 * len(label_text) + 0.2, 0.65])
        best: tuple[float, float, Any, Any] | None = None
        for reach in (0.0, 8.0, 15.0, 23.0, 32.0, 42.0):
            for angle in np.arange(8) * np.pi / 4:
                way = np.array([np.cos(angle), np.sin(angle)])
                middle = anchor + way * (half + marker + reach)
                box = np.concatenate([middle - half, middle + half])
                hidden = _overlaps(box, boxes[0]) + 10 * sum(_overlaps(box, other) for other in boxes[1:])
                outside = 100 * bool((box[:2] < corners[0]).any() or (box[2:] > corners[1]).any())
                cost = hidden + outside + reach / 50
                if best is None or cost < best[0]:
                    best = cost, reach, middle, box
        assert best is not None
        _, reach, middle, box = best
        boxes.append(box[None])
        line: dict[str, Any] = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(label_text, (x, y), xytext=middle - anchor, textcoords="offset points", ha="center", va="center",
                      size=size, arrowprops=line if reach else None, zorder=4,
                      path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> int:
    """Return how many of the boxes (n, 4), each left, bottom, right, top, a box overlaps."""
    return int(((box[:2] < others[:, 2:]) & (box[2:] > others[:, :2])).all(axis=1).sum())


def patterns(table: pl.DataFrame, verdict: pl.DataFrame, *, site: str, latents: int, alpha: float) -> Figure:
    """Draw how much more active each leading latent is inside each pattern's windows than outside, as a heat map."""
    title = f"What the recurring latents at {site} respond to"
    subtitle = "mean activation inside a pattern's windows minus outside, relative to the latent's largest difference"
    order = {name: index for index, name in enumerate((VERDICTS[0], VERDICTS[2], VERDICTS[1]))}
    leaders = leading(verdict, latents).sort(
        pl.col("verdict").replace_strict(order, return_dtype=pl.UInt8),
        "traces",
        "latent",
        descending=[False, True, False],
    )
    if leaders.is_empty():
        return _nothing(title, subtitle, "no latent recurs")
    about = table.group_by("pattern").agg(pl.col("traces").max(), pl.col("note").first())
    # Patterns that have no number last.
    names = about.sort(pl.col("traces") == 0, "pattern")
    if names.is_empty():
        return _nothing(title, subtitle, "no pattern is looked for")
    columns = {latent: column for column, latent in enumerate(leaders["latent"])}
    rows = {name: row for row, name in enumerate(names["pattern"])}
    differences = np.full((len(rows), len(columns)), np.nan)
    q = np.full_like(differences, np.nan)
    tested = table.filter(pl.col("latent").is_in(list(columns))).drop_nulls("difference")
    for latent, name, difference, value in tested.select("latent", "pattern", "difference", "q").iter_rows():
        differences[rows[name], columns[latent]] = difference
        q[rows[name], columns[latent]] = np.nan if value is None else value
    largest = np.abs(np.nan_to_num(differences)).max(axis=0)
    scaled = differences / np.where(largest > 0, largest, 1)
    cell, across = 0.38, 0.38 * len(columns)
    width, height = max(9.0, 3.8 + across), 2.15 + cell * len(rows)
    figure = _figure(width, height, title, subtitle)
    axes = figure.add_axes((1.75 / width, 1.0 / height, across / width, cell * len(rows) / height))
    colors = mpl.colormaps["RdBu_r"].with_extremes(bad="#f4f4f4")
    image = axes.imshow(np.ma.masked_invalid(scaled), cmap=colors, vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="major", visible=False)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    with np.errstate(invalid="ignore"):
        row_of, column_of = np.nonzero(q < alpha)
    axes.plot(column_of, row_of, "o", color=INK, markeredgecolor="white", markeredgewidth=0.8, markersize=5.5)
    axes.set_xticks(range(len(columns)), [str(latent) for latent in columns], rotation=90, size=8)
    axes.set_yticks(range(len(rows)), [shown(name) for name in rows])
    for row, (traces, note) in enumerate(names.select("traces", "note").iter_rows()):
        axes.text(
            len(columns) - 0.2, row, str(traces or note), va="center", size=8.5, color=INK if traces else "#777777"
        )
    axes.text(len(columns) - 0.2, -0.8, "traces with it", va="center", size=8, color="#777777")
    for column, (name, peak) in enumerate(zip(leaders["verdict"], largest, strict=True)):
        axes.plot(column, -0.8, VERDICT_MARKERS[name], color=VERDICT_COLORS[name], markersize=5, clip_on=False)
        axes.text(column, -1.05, f"{peak:.2g}" if peak else "–", ha="center", va="bottom", size=7, color="#777777")
    axes.text(-0.75, -1.05, "largest difference", ha="right", va="bottom", size=8, color="#777777")
    axes.text(-0.75, -0.8, "verdict", ha="right", va="center", size=8, color="#777777")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("latent")
    place = ((3.1 + across) / width, 1.0 / height, 0.13 / width, cell * len(rows) / height)
    bar = figure.colorbar(image, cax=figure.add_axes(place))
    bar.set_ticks([-1, 0, 1], labels=["outside", "0", "inside"], size=7.5)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    handles = [
        mpl.lines.Line2D([], [], marker=marker, linestyle="", color=color, markersize=5, label=name)
        for name, marker, color in [(name, VERDICT_MARKERS[name], VERDICT_COLORS[name]) for name in order]
        + [(f"more active inside, q < {alpha:g}", "o", INK)]
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", ncols=4, bbox_to_anchor=(0.1 / width, 0.0), handletextpad=0.1,
                  columnspacing=1.4)  # fmt: skip
    return figure


def waterfall(table: pl.DataFrame, *, site: str) -> Figure:
    """Draw how many of the latents that recur each check takes away."""
    steps = steps_left(table)
    total, survivors = steps[0][1], steps[-1][1]
    title = f"{survivors} of {total} recurring latents at {site} pass every check"
    subtitle = "latents that recurrence alone would call thinking features, and what speaks against them, in turn"
    if not total:
        return _nothing(f"Recurring latents at {site}", subtitle, "no latent recurs: there is nothing to check")
    last = steps[-2][1]
    # Label, where the bar begins and ends, its color, its number, what is left.
    bars: list[tuple[str, int, int, str, str, int | None]]
    bars = [("recurring latents", 0, total, "#555555", str(total), total)]
    bars += [
        (BY_NAME[check].fails, left, before, VERDICT_COLORS["no"], f"−{before - left}" if before > left else "0", left)
        for (_, before), (check, left) in pairwise(steps[:-1])
    ]
    bars += [
        ("undecided", survivors, last, VERDICT_COLORS["undecided"], str(last - survivors), None),
        ("thinking patterns", 0, survivors, VERDICT_COLORS[VERDICTS[0]], str(survivors), None),
    ]
    height = 1.7 + 0.36 * len(bars)
    figure = _figure(10, height, title, subtitle)
    axes = figure.add_axes((2.1 / 10, 0.75 / height, 5.05 / 10, 0.36 * len(bars) / height))
    for row, (_, low, high, color, number, left) in enumerate(bars):
        axes.barh(row, high - low, left=low, height=0.62, color=color, zorder=2)
        bold = row in (0, len(bars) - 1)
        axes.text(high, row, f" {number}", va="center", size=9.5, weight="bold" if bold else "normal", zorder=3)
        if left is not None:
            axes.plot([left, left], [row - 0.31, row + 1.31], color="#999999", linewidth=0.8, zorder=1.5)
    axes.plot([survivors, survivors], [len(bars) - 2.31, len(bars) - 0.69], color="#999999", linewidth=0.8, zorder=1.5)

    def column(x: float, name: str, texts: Sequence[str]) -> None:
        for row, text in enumerate(texts):
            axes.text(x, row + 1, text, ha="right", va="center", size=8.5, transform=axes.get_yaxis_transform())
        axes.text(x, 0, name, ha="right", va="center", size=8, color="#777777", transform=axes.get_yaxis_transform())

    column(1.22, "left", [str(left) for _, left in steps[1:-1]])
    for x, result in ((1.36, "fail"), (1.54, "undecided")):
        column(x, result, [str((table[check.name].cast(pl.String) == result).sum()) for check in CHECKS])
    axes.text(1.54, -0.65, "of all, by this check alone", ha="right", va="center", size=8, color="#777777",
              transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_yticks(range(len(bars)), [text for text, *_ in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.5, -0.6)
    axes.set_xlim(0, 1.06 * total)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("latents")
    others = len(table) - total
    remark = "a latent is counted where the first check takes it away"
    remark += f"; {others} more recur only with sinks left out" if others else ""
    figure.text(0.2 / 10, 0.1 / height, remark, size=7.5, color="#777777")
    return figure


OUTCOME_NAMES = {"correct": "correct against wrong", "truncated": "truncated against finished"}
VALUE_STYLES = {"max": ("o", "#832db6", "maximum"), "mean": ("s", "#e76300", "mean")}
"""Marker, color and name of the per-trace value an area is of."""


def outcomes(table: pl.DataFrame, verdict: pl.DataFrame, *, site: str, latents: int) -> Figure:
    """Draw how well each leading latent tells how a trace ends, beside how well the trace's length alone does."""
    title = f"Do the recurring latents at {site} tell how a trace ends?"
    subtitle = (
        "AUROC of a latent's activation in the trace, with 95 % intervals, against that of the trace's length alone"
    )
    leaders = leading(verdict, latents)["latent"].to_list()
    table = table.filter(pl.col("latent").is_in(leaders))
    if table.is_empty():
        return _nothing(title, subtitle, "no latent recurs")
    numbers = table.drop_nulls("auroc")
    rows = len(leaders) if len(numbers) else 2
    height = 1.9 + 0.28 * rows
    figure = _figure(12, height, title, subtitle)
    for panel, (outcome, name) in enumerate(OUTCOME_NAMES.items()):
        axes = figure.add_axes(((0.85 + 6.0 * panel) / 12, 0.8 / height, 4.95 / 12, 0.28 * rows / height))
        mine, about = numbers.filter(outcome=outcome), table.filter(outcome=outcome)
        axes.set_title(name, pad=16)
        if mine.is_empty():
            notes = about["note"].drop_nulls()
            _note_empty(axes, notes[0] if len(notes) else "no latent has a number")
            continue
        axes.set_title(f"{name}: {about['positive'][0]} against {about['negative'][0]} traces", pad=16)
        _areas(axes, mine, rows)
    handles: list[Artist] = [
        mpl.lines.Line2D([], [], marker=marker, color=color, markerfacecolor=face, markersize=5, linestyle=line,
                         linewidth=1.2, label=f"{name} in the trace" + ("" if line else ", at equal length"))
        for marker, color, name in VALUE_STYLES.values() for face, line in ((color, "-"), ("white", ""))
    ]  # fmt: skip
    handles.append(mpl.patches.Patch(color="#bbbbbb", alpha=0.5, label="length alone"))
    if len(numbers):
        figure.legend(handles=handles, loc="lower center", ncols=5, columnspacing=1.6)
    return figure


def _areas(axes: Axes, table: pl.DataFrame, rows: int) -> None:
    """Draw one outcome's areas, a row a latent, the largest by maximum first."""
    order = (
        table.group_by("latent")
        .agg(by=pl.col("auroc").filter(pl.col("value") == "max").max(), otherwise=pl.col("auroc").max())
        .sort(pl.coalesce("by", "otherwise"), "latent", descending=[True, False])["latent"]
        .to_list()
    )
    length = table.row(0, named=True)
    if length["length_auroc"] is not None:
        axes.axvspan(length["length_low"], length["length_high"], color="#bbbbbb", alpha=0.4, linewidth=0, zorder=1)
        axes.axvline(length["length_auroc"], color="#717581", linewidth=1.4, zorder=1.5)
        axes.text(length["length_auroc"], 1.0, "length", ha="center", va="bottom", size=7.5, color="#717581",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.axvline(0.5, color="#999999", linewidth=1, linestyle=":", zorder=1.5)
    for row in table.iter_rows(named=True):
        marker, color, _ = VALUE_STYLES[row["value"]]
        y = order.index(row["latent"]) + (-0.17 if row["value"] == "max" else 0.17)
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.2, alpha=0.6, zorder=2)
        axes.plot(row["auroc"], y, marker, color=color, markersize=4.5, zorder=3)
        if row["within_length"] is not None:
            axes.plot(row["within_length"], y, marker, color=color, markerfacecolor="white", markersize=4.5,
                      markeredgewidth=1.1, zorder=2.5)  # fmt: skip
    axes.set_yticks(range(len(order)), [str(latent) for latent in order], size=8)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC (0.5: no better than chance)")
    axes.set_ylabel("latent")


def pattern_counts(table: pl.DataFrame, *, conditions: Sequence[str]) -> Figure:
    """Draw how often each pattern is in what the model wrote, trace by trace and on average, by condition."""
    title, subtitle = "Thinking patterns in the text", "matches per 100 tokens: each trace, and the mean over traces"
    table = table.with_columns(pl.col("per_100_tokens").fill_nan(None)).drop_nulls("per_100_tokens")
    table = table.filter(pl.col("condition").is_in(list(conditions)))
    if table.is_empty():
        return _nothing(title, subtitle, "no trace has any text, or no pattern is looked for")
    names = (
        table.group_by("pattern")
        .agg(pl.col("per_100_tokens").mean())
        .sort("per_100_tokens", "pattern", descending=[True, False])["pattern"]
        .to_list()
    )
    unit = 0.2 + 0.2 * len(conditions)
    height = 1.85 + unit * len(names)
    figure = _figure(9.5, height, title, subtitle)
    axes = figure.add_axes((1.6 / 9.5, 0.9 / height, 6 / 9.5, unit * len(names) / height))
    apart = 0.66 / len(conditions)
    right = axes.get_yaxis_transform()
    for row, name in enumerate(names):
        if row % 2 == 0:
            axes.axhspan(row - 0.5, row + 0.5, color="#f5f5f5", linewidth=0, zorder=0)
        for index, condition in enumerate(conditions):
            values = table.filter(pattern=name, condition=condition)["per_100_tokens"].to_numpy()
            if not len(values):
                continue
            y, color = row + apart * (index - (len(conditions) - 1) / 2), CONDITION_COLORS[index % 4]
            # Spread out, but the same in every run.
            scatter = y + 0.8 * apart * (np.arange(len(values)) * 0.618034 % 1 - 0.5)
            axes.plot(values, scatter, "o", color=color, markersize=3, alpha=0.3, markeredgewidth=0, clip_on=False)
            axes.plot(values.mean(), y, CONDITION_MARKERS[index % 8], color=color, markersize=7.5, zorder=3,
                      markeredgecolor="white", markeredgewidth=0.8, clip_on=False)  # fmt: skip
            axes.text(
                1.09,
                y,
                f"{values.mean():.2f}" if values.any() else "0",
                ha="right",
                va="center",
                size=8,
                color=color,
                transform=right,
            )
            axes.text(1.25, y, f"{(values > 0).sum()} of {len(values)}", ha="right", va="center", size=8, color=color,
                      transform=right)  # fmt: skip
    for x, head in ((1.09, "mean"), (1.25, "traces with it")):
        axes.text(x, -0.58, head, ha="right", va="bottom", size=8, color="#777777", transform=right)
    axes.set_yticks(range(len(names)), [shown(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    most = max(float(table["per_100_tokens"].to_numpy().max()), 0.1)
    axes.set_xlim(-0.015 * most, 1.05 * most)
    axes.set_xlabel("matches per 100 tokens")
    handles = [
        mpl.lines.Line2D([], [], marker=CONDITION_MARKERS[index % 8], linestyle="", color=CONDITION_COLORS[index % 4],
                         markersize=7, label=condition)
        for index, condition in enumerate(conditions)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", ncols=len(conditions), bbox_to_anchor=(1.4 / 9.5, 0.0))
    return figure
