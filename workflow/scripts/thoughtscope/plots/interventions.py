"""Pictures of interventions: what taking latents away, and adding them, does to the model."""

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from ..interventions.tables import CHOSEN, CONTROLS
from .canvas import LATENT_COLORS, Panel, Picture, nothing, shown
from .evidence import GREY, PALE, VERDICT_COLORS

ACTING = VERDICT_COLORS["thinking pattern"]
CONTROL_STYLES = dict(zip(CONTROLS, (("s", LATENT_COLORS[1]), ("^", LATENT_COLORS[4]), ("v", LATENT_COLORS[5])),
                          strict=True))  # fmt: skip
"""Marker and colour of each kind of control."""

NAMES = {"matched_latent": "latents alike", "random_direction": "random directions", "shifted": "shifted"}

BESIDE = {"before": "leads to", "after": "goes with"}
"""How a latent stands to its pattern, by window."""

GROUPS = {"name": "named in the config", "link": "by their link", "prediction": "by the largest predicted effect"}
"""By what latents were chosen, as a heading over them."""


def effects(table: pl.DataFrame, *, site: str, alpha: float) -> Picture:
    """Draw what taking each latent away does at its pattern, beside its controls, and what adding it elsewhere does."""
    title = f"Does the model use its latents at {site}?"
    subtitle = (
        "log-odds of what is next at the pattern, less at places alike without it, with 95 % intervals; blue: the model"
        f" uses it, more than its controls and at the pattern itself (q < {alpha:g})"
    )
    if table.is_empty():
        return nothing(title, subtitle, "no latent was tried")
    order = {how: place for place, how in enumerate(CHOSEN)}
    table = table.with_columns(pl.col("chosen").cast(pl.String)).sort(
        pl.col("chosen").replace_strict(order), "effect", "latent", descending=[False, True, False]
    )
    # A row a latent, with room for a heading over each group.
    table = table.with_columns(row=pl.int_range(pl.len()) + 1.1 * (1 + pl.col("chosen").rle_id()))
    unit, end = 0.27, table["row"][-1] + 0.6
    height = 1.65 + unit * (end + 0.1)
    picture = Picture(12, height, title, subtitle)
    left = Panel(2.75, 0.95, 5.0, height - 1.65, _ends(table, ["effect", "effect_low", "effect_high", *CONTROLS,
                                                            "predicted", "lost"]), (end, -0.1))  # fmt: skip
    axes = picture.axes_at(left, xlabel="log-odds that its ablation takes", yticks=[])
    axes.axvline(0, color=PALE, linewidth=1)
    axes.hlines(table["row"], *left.x_range, colors="#eeeeee", linewidth=0.6, zorder=0.5)
    for control, (marker, color) in CONTROL_STYLES.items():
        axes.plot(table[control], table["row"], marker=marker, color=color, linestyle="", markersize=4, zorder=2.5)
    axes.plot(table["predicted"], table["row"], marker="D", color="#222222", linestyle="", markersize=5.5,
              markerfacecolor="none", markeredgewidth=0.9, zorder=2.7)  # fmt: skip
    axes.plot(table["lost"], table["row"], marker="|", color="#222222", linestyle="", markersize=9, zorder=2.8)
    colors = np.where((table["q"] < alpha).fill_null(value=False), ACTING, GREY)
    sure = table["effect_low"].is_not_null().to_numpy()
    axes.hlines(table["row"].filter(sure), table["effect_low"].filter(sure), table["effect_high"].filter(sure),
                colors=colors[sure], linewidth=2, alpha=0.6)  # fmt: skip
    axes.scatter(table["effect"], table["row"], s=42, c=colors, zorder=3)
    doses = table.explode("strengths", "added", "added_low", "added_high").drop_nulls("added")
    right = Panel(8.15, 0.95, 2.55, height - 1.65, _ends(doses, ["added", "added_low", "added_high"]), (end, -0.1))
    if doses.is_empty():
        picture.empty(right, "nothing was added")
    else:
        axes = picture.axes_at(right, xlabel="log-odds that adding it gives", yticks=[])
        axes.axvline(0, color=PALE, linewidth=1)
        strengths = doses["strengths"].unique().sort().to_list()
        place = pl.col("strengths").replace_strict(dict(zip(strengths, np.linspace(-0.22, 0.22, len(strengths)),
                                                            strict=True)))  # fmt: skip
        doses = doses.with_columns(y=pl.col("row") + place)
        known = doses.drop_nulls("added_low")
        axes.hlines(known["y"], known["added_low"], known["added_high"], colors=PALE, linewidth=1)
        for index, strength in enumerate(strengths):
            its = doses.filter(strengths=strength)
            axes.plot(its["added"], its["y"], marker="o", linestyle="", color=ACTING, markersize=3 + index,
                      markeredgewidth=0, alpha=0.85, zorder=3, clip_on=False)  # fmt: skip
    for (chosen,), rows in table.group_by("chosen", maintain_order=True):
        picture.write(0.2, left.y(rows["row"][0] - 0.85), GROUPS[str(chosen)], weight="bold")
        names = [f"{row['latent']}  {BESIDE[row['window']]} {shown(row['pattern'])}" for row in rows.to_dicts()]
        y = left.y(rows["row"])
        picture.letters(names, left.left - 0.1, y, size=8.5, align="right")
        columns = (("q", 11.3, [_number(q) for q in rows["q"]]), ("traces", 11.85, [str(n) for n in rows["traces"]]))
        for _, x, texts in columns:
            picture.letters(texts, x, y, size=8.5, color="#222222", align="right")
    for name, x in (("q", 11.3), ("traces", 11.85)):
        picture.write(x, left.y(-0.1) + 0.02, name, ha="right", size=8, color=GREY)
    handles: list[Artist] = [
        Line2D([], [], marker="o", linestyle="", color=GREY, label="the latent"),
        *[Line2D([], [], marker=marker, linestyle="", color=color, markersize=4, label=NAMES[control])
          for control, (marker, color) in CONTROL_STYLES.items()],
        Line2D([], [], marker="D", linestyle="", color="#222222", markerfacecolor="none", label="predicted"),
        Line2D([], [], marker="|", linestyle="", color="#222222", markersize=9, label="at the pattern alone"),
    ]  # fmt: skip
    if len(doses):
        label = "added, ×" + ", ".join(f"{strength:g}" for strength in strengths)
        handles.append(Line2D([], [], marker="o", linestyle="", color=ACTING, markersize=4, label=label))
    picture.legend(handles=handles, loc="lower center", ncols=7, columnspacing=1.4, handletextpad=0.2)
    return picture


def _ends(table: pl.DataFrame, columns: list[str]) -> tuple[float, float]:
    """Return the ends of an axis that holds 0 and all numbers of some columns, with some room."""
    values = [0.0, *(value for column in columns for value in table[column].drop_nulls().to_list())]
    low, high = min(values), max(values)
    room = 0.05 * max(high - low, 1e-3)
    return low - room, high + room


def _number(q: float | None) -> str:
    """Return a q as it is written: not more digits than it is worth."""
    return "–" if q is None else "<.001" if q < 0.001 else f"{q:.2g}".removeprefix("0")
