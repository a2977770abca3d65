"""Pictures of the evidence: what is left after each check, the verdict and what it rests on."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..evidence.checks import BY_NAME, VERDICTS, asked
from ..evidence.outcomes import OF_EQUAL_LENGTH
from ..evidence.links import WINDOWS, links
from ..evidence.verdict import leading
from ..evidence.verdict import waterfall as steps_left
from ..statistics import Floats
from .canvas import CONDITION_COLORS, CONDITION_MARKERS, INK, WARNING, Panel, Picture, nothing, shown

GREY, PALE = "#777777", "#999999"
"""Of remarks, and of lines of reference."""

VERDICT_COLORS = dict(zip(VERDICTS, ("#0072b2", "#7a7a7a", "#d55e00"), strict=True))
"""Blue, grey and vermilion, which stay apart for colour-blind readers (Okabe and Ito 2008)."""

VERDICT_MARKERS = dict(zip(VERDICTS, ("o", "x", "D"), strict=True))

PLACES = {
    "site": ("its own site", "#3f90da"),
    "residual_in": ("residual stream, entering", "#e76300"),
    "residual_out": ("residual stream, leaving", "#a96b59"),
    "below": ("one block below", "#717581"),
    "above": ("one block above", "#94a4a2"),
}
"""Name and colour of a place where an SAE was tried."""

FIT_COLUMNS = {
    "FVU": ("fvu", "{:.2f}"),
    "cosine": ("cosine", "{:.2f}"),
    "L0": ("l0", "{:.1f}"),
    "fired": ("fired", "{:.1%}"),
    "‖x‖": ("median_norm", "{:.3g}"),
    "sinks": ("sinks", "{}"),
}
"""What is written beside a fit: the table's column, and how."""


def site_gate(table: pl.DataFrame, *, max_fvu: float) -> Picture:
    """Draw each SAE's FVU at its own site and at those around it, with the other measures as columns of numbers."""
    title = "Does each SAE fit what it reads?"
    subtitle = (
        "fraction of variance unexplained (FVU) on this study's generated tokens without sinks, all conditions, with"
        " 95 % intervals over problems; filled: the site this study reads"
    )
    pooled = table.filter(pl.col("condition").is_null())
    if pooled.is_empty():
        return nothing(title, subtitle, "no site was read")
    # A row a place, with room before each SAE for its name.
    pooled = pooled.with_columns(row=pl.int_range(pl.len()) + 1.2 * pl.col("hookpoint").rle_id())
    known, end = pooled.drop_nulls("fvu"), pooled["row"][-1] + 2.2
    height = 1.75 + 0.235 * (end + 0.3)
    picture = Picture(11, height, title, subtitle)
    ends = [value for name in ("fvu", "fvu_low", "fvu_high") for value in known[name].drop_nulls()]
    low, high = 0.9 * min([0.5, *ends]), 1.2 * max([2.0, *ends])
    panel = Panel(2.09, 0.75, 4.95, height - 1.75, (low, high), (end - 1.4, -1.4), log="x")
    axes = picture.axes_at(panel, xlabel="FVU (logarithmic; less is better)", yticks=[])
    axes.axvline(1, color=PALE, linewidth=1)
    axes.axvline(max_fvu, color=WARNING, linewidth=1, linestyle="--")
    axes.text(1, -2.05, " 1: no better than\n the mean", size=7.5, color=GREY, va="bottom")
    axes.text(max_fvu, -2.05, f"warns above \n{max_fvu:g} ", size=7.5, color=WARNING, va="bottom", ha="right")
    colors = [PLACES[place][1] for place in known["place"]]
    faces = [color if used else "white" for color, used in zip(colors, known["used"], strict=True)]
    sure = known.drop_nulls(["fvu_low", "fvu_high"])
    axes.hlines(sure["row"], sure["fvu_low"], sure["fvu_high"], colors=[PLACES[place][1] for place in sure["place"]],
                linewidth=2, alpha=0.6)  # fmt: skip
    axes.scatter(known["fvu"], known["row"], s=49, linewidth=1.6, facecolors=faces, edgecolors=colors, zorder=3)
    for (used,), rows in pooled.group_by("used", maintain_order=True):
        y = panel.y(rows["row"])
        picture.letters([PLACES[place][0] for place in rows["place"]], panel.left - 0.08, y, size=9, align="right")
        for index, (name, form) in enumerate(FIT_COLUMNS.values()):
            texts = [
                "–" if fvu is None else form.format(value) for fvu, value in rows.select("fvu", value=name).iter_rows()
            ]
            picture.letters(texts, 7.68 + 0.604 * index, y, size=8.5, color=INK, align="right", bold=bool(used))
    for index, name in enumerate(FIT_COLUMNS):
        picture.write(7.68 + 0.604 * index, panel.y(-1.2), name, ha="right", size=8, color=GREY)
    for (hookpoint,), rows in pooled.group_by("hookpoint", maintain_order=True):
        picture.write(0.11, panel.y(rows["row"][0] - 0.9), f"SAE of {hookpoint}", weight="bold")
    remark = "cosine: between x and its reconstruction; fired: share of latents active on any token; ‖x‖: median"
    picture.write(10.83, 0.15, remark, ha="right", size=7.5, color=GREY)
    return picture


LABELLED = 12
"""Latents named in the picture of the verdict."""

WIDEST = 0.5
"""Share to which intervals widen the picture of the verdict."""


def verdict(
    table: pl.DataFrame,
    pattern_tests: pl.DataFrame,
    lexicality: pl.DataFrame,
    *,
    site: str,
    max_typed: float,
    min_share: float,
) -> Picture:
    """Draw how much of each candidate latent is beside a pattern's words against its lexicality, with its verdict."""
    title = f"Verdict on the candidate latents at {site}"
    subtitle = (
        "how much of a latent’s activation is beside a thinking pattern’s words, beyond what the same tokens have"
        " elsewhere (up), against how much token types alone would give (right)"
    )
    if table.is_empty():
        return nothing(title, subtitle, "no latent is a candidate")
    table = table.with_columns(pl.col("verdict").cast(pl.String))
    # The check's number is the share of one of its windows.
    intervals = pattern_tests.select("latent", "share", "low", "high").unique(["latent", "share"], keep="first")
    known = (
        table.select("latent", "verdict", share="pattern_linked_number")
        .join(intervals, on=["latent", "share"], how="left")
        .join(lexicality.select("latent", "typed"), on="latent", how="left")
        .drop_nulls("typed")
    )
    scored = known["share"].is_not_null().any()
    points = known.drop_nulls("share") if scored else known
    if not scored:
        notes = pattern_tests["note"].drop_nulls()
        why = f" ({notes[0]})" if len(notes) else ""
        subtitle = (
            f"no candidate could be tested for a link{why}; how much of a latent token types alone would give (right)"
        )
    leaders = leading(table, LABELLED)
    picture = Picture(13.2, 6, title, subtitle)
    panel = Panel(1, 0.8, 5.5, 4.3, x_range=(-0.02, 1.03))
    _verdict_list(picture, leaders, lexicality, len(table))
    if points.is_empty():
        picture.empty(panel, "no candidate is active on a token that counts")
        return picture
    axes = picture.axes_at(panel, xlabel="share of activation that token types alone would give")
    if scored:
        y = points["share"].to_numpy()
        axes.axhline(0, color=PALE, linewidth=1)
        axes.axhline(min_share, color=WARNING, linewidth=1, linestyle="--")
        axes.text(1.01, min_share, f"linked from\n{min_share:.0%}", size=7.5, color=WARNING, va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_ylabel("share of activation beside a pattern’s words")
        ends = leaders.select("latent").join(points, on="latent").drop_nulls(["low", "high"])
        # Wide intervals go beyond the picture, so that the points are told apart.
        drawn = [0.0, min_share, *y, *ends["low"].clip(-WIDEST), *ends["high"].clip(upper_bound=WIDEST)]
        spread = max(drawn) - min(drawn)
        axes.set_ylim(min(drawn) - 0.08 * spread, max(drawn) + 0.08 * spread)
        axes.vlines(ends["typed"], ends["low"], ends["high"], linewidth=1, alpha=0.45,
                    colors=[VERDICT_COLORS[name] for name in ends["verdict"]], zorder=2)  # fmt: skip
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%".replace("-", "−"))
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
        style: dict[str, Any] = {"marker": VERDICT_MARKERS[name], "color": VERDICT_COLORS[name]}
        style["linewidth"] = 1.5 if name == "no" else 0
        all_of_it, named_of_it = points.filter(verdict=name), named.filter(verdict=name)
        axes.scatter(all_of_it["typed"], all_of_it["y"], s=34 if few else 14, zorder=2.5, alpha=0.85 if few else 0.4,
                     **style)  # fmt: skip
        axes.scatter(named_of_it["typed"], named_of_it["y"], s=34, zorder=3,
                     label=f"{name} ({(table['verdict'] == name).sum()})", **style)  # fmt: skip
    axes.axvline(max_typed, color=WARNING, linewidth=1, linestyle="--")
    axes.text(max_typed, 0.99, f" token detector\n from {max_typed:g}", size=7.5, color=WARNING, va="top",
              transform=axes.get_xaxis_transform())  # fmt: skip
    _place_labels(axes, points.select("typed", "y").to_numpy(), named.select("typed", "y").to_numpy(),
                  [str(latent) for latent in named["latent"]])  # fmt: skip
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handletextpad=0.2, columnspacing=1.2,
                borderpad=0)  # fmt: skip
    remark = "up: of the window with the clearest link, before or after a pattern’s words, the words left out"
    if len(points) < len(table):
        remark += f"; {len(table) - len(points)} of {len(table)} not drawn, as they have no number"
    picture.write(0.2, 0.18, remark, size=8, color=GREY)
    return picture


def _verdict_list(picture: Picture, leaders: pl.DataFrame, lexicality: pl.DataFrame, total: int) -> None:
    """Write a line for each of a verdict's leading latents, to the right of its picture."""
    rows = leaders.join(lexicality.select("latent", "top_tokens"), on="latent", how="left", maintain_order="left")
    top = 4.88
    y = top - 0.3 * np.arange(1, len(rows) + 1)
    colors = [VERDICT_COLORS[name] for name in rows["verdict"]]
    counts = [f"{traces}/{of}" for traces, of in rows.select("traces", "of").iter_rows()]
    tokens = [shown(text or "–", 19) for text in rows["top_tokens"]]
    reasons = [_reason(row) for row in rows.iter_rows(named=True)]
    picture.letters(
        [str(latent) for latent in rows["latent"]], 7.75, y, size=8.5, color=colors, align="right", bold=True
    )
    picture.letters(counts, 8.4, y, size=8.5, color=INK, align="right")
    picture.letters(tokens, 8.6, y, size=8.5, color=INK)
    picture.letters(reasons, 10.15, y, size=8.5, color=colors)
    for x, text, align in ((7.75, "latent", "right"), (8.4, "traces", "right"), (8.6, "top tokens", "left"),
                           (10.15, "verdict", "left")):  # fmt: skip
        picture.write(x, top, text, ha=align, size=8, color=GREY)
    order = "thinking patterns first, the surest ahead, then those of the most traces"
    picture.write(7.2, top - 0.3 * (len(rows) + 1) - 0.1, f"{len(rows)} of {total}: {order}", size=7.5, color=GREY)


def _reason(row: Mapping[str, Any]) -> str:
    """Say a verdict in a few words: why not, or what is open."""
    if row["removed_by"] is not None:
        return f"no: {BY_NAME[row['removed_by']].fails}"
    open_checks = [check.topic for check in BY_NAME.values() if row[check.name] == "undecided"]
    if row["pattern"] is not None and not open_checks:
        return f"{row['pattern']}: {WINDOWS[row['window']]}"
    return f"{row['verdict']}: {', '.join(open_checks)}" if open_checks else str(row["verdict"])


def _place_labels(axes: Axes, points: Floats, at: Floats, labels: Sequence[str]) -> None:
    """Write each label beside its point, (labels, 2) among (points, 2), where it hides least, with a line to it."""
    size, marker = 7.5, 4.0  # points, as all lengths here; half the side of a marker
    scale = 72 / axes.figure.dpi
    marks, anchors = (axes.transData.transform(xy) * scale for xy in (points, at))
    corners = axes.transAxes.transform([(0, 0), (1, 1)]) * scale
    reaches, angles = np.repeat([0.0, 8.0, 15.0, 23.0, 32.0, 42.0], 8), np.tile(np.arange(8) * np.pi / 4, 6)
    ways = np.column_stack([np.cos(angles), np.sin(angles)])
    # Boxes, each left, bottom, right, top, and what it costs to hide one.
    taken, costs = np.hstack([marks - marker, marks + marker]), np.ones(len(marks))
    for text, xy, anchor in zip(labels, at, anchors, strict=True):
        half = size * np.array([0.32 * len(text) + 0.2, 0.65])
        middles = anchor + ways * (half + marker + reaches[:, None])
        boxes = np.hstack([middles - half, middles + half])
        overlap = ((boxes[:, None, :2] < taken[:, 2:]) & (boxes[:, None, 2:] > taken[:, :2])).all(axis=2)
        outside = ((boxes[:, :2] < corners[0]) | (boxes[:, 2:] > corners[1])).any(axis=1)
        best = np.argmin(overlap @ costs + 100 * outside + reaches / 50)
        taken, costs = np.vstack([taken, boxes[best]]), np.append(costs, 10)
        line = {"arrowstyle": "-", "color": PALE, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(text, xy, xytext=middles[best] - anchor, textcoords="offset points", ha="center", va="center",
                      size=size, arrowprops=line if reaches[best] else None, zorder=4,
                      path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


STRONG, PRINTED = 0.5, 0.03
"""Shares from which a cell of the picture of patterns has its full colour, and its number."""


def patterns(table: pl.DataFrame, verdict: pl.DataFrame, *, site: str, latents: int, alpha: float) -> Picture:
    """Draw as a heat map what share of each leading latent's activation is before, on and after a pattern's words."""
    title = f"What the candidate latents at {site} lead to, go with, or are the word of"
    subtitle = (
        "share of a latent’s activation, in percent, that is before, on or after a pattern’s words, beyond what such"
        " tokens in such places have"
    )
    order = {name: index for index, name in enumerate((VERDICTS[0], VERDICTS[2], VERDICTS[1]))}
    by_verdict = pl.col("verdict").replace_strict(order, return_dtype=pl.UInt8)
    leaders = leading(verdict, latents).sort(by_verdict, "traces", "latent", descending=[False, True, False])
    if leaders.is_empty():
        return nothing(title, subtitle, "no latent is a candidate")
    table = table.with_columns(pl.col("window").cast(pl.String))
    about = table.group_by("pattern").agg(pl.col("traces").max(), pl.col("share").is_not_null().any().alias("known"))
    names = about.sort(~pl.col("known"), "pattern")  # patterns that have no number last
    if names.is_empty():
        return nothing(title, subtitle, "no pattern is looked for, or no latent could be tested")
    columns = {latent: column for column, latent in enumerate(leaders["latent"])}
    # A row a window, and one for a pattern without a number.
    known = names.filter("known")["pattern"].to_list()
    cells = [*((name, window) for name in known for window in WINDOWS),
             *((name, None) for name in names.filter(~pl.col("known"))["pattern"])]  # fmt: skip
    rows = {cell: row for row, cell in enumerate(cells)}
    shares = np.full((len(rows), len(columns)), np.nan)
    of_leaders = table.filter(pl.col("latent").is_in(list(columns))).drop_nulls("share")
    for latent, name, window, share in of_leaders.select("latent", "pattern", "window", "share").iter_rows():
        shares[rows[name, window], columns[latent]] = share
    cell, tall = 0.36, 0.235
    across, high = cell * len(columns), tall * len(rows)
    width, height = max(9.6, 4.6 + across), 2.15 + high
    picture = Picture(width, height, title, subtitle)
    panel = Panel(2.55, 1.0, across, high, (-0.5, len(columns) - 0.5), (len(rows) - 0.5, -0.5))
    axes = picture.axes_at(panel, xticks=[], yticks=[])
    colors = mpl.colormaps["RdBu_r"].with_extremes(bad="#f4f4f4")
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colors, vmin=-STRONG, vmax=STRONG, aspect="auto")
    edges = np.arange(1, len(rows)) - 0.5
    between = np.array([cell[0] != after[0] for cell, after in pairwise(cells)], dtype=bool)
    axes.hlines(edges[~between], *panel.x_range, colors="white", linewidth=0.8)
    axes.hlines(edges[between], *panel.x_range, colors="white", linewidth=4)
    axes.vlines(np.arange(1, len(columns)) - 0.5, *panel.y_range, colors="white", linewidth=1.5)
    axes.spines[:].set_visible(False)
    x, y = panel.x(np.arange(len(columns))), panel.y(np.arange(len(rows)))
    in_cell = [(panel.x(column), panel.y(row), value) for (row, column), value in np.ndenumerate(shares)
               if abs(value) >= PRINTED]  # fmt: skip
    if in_cell:
        across_, up, values = zip(*in_cell, strict=True)
        ink = ["white" if abs(value) > 0.7 * STRONG else INK for value in values]
        texts = [f"{100 * value:.0f}".replace("-", "−") for value in values]
        picture.letters(texts, across_, up, size=7, color=ink, align="center")
    marked = _linked(of_leaders, alpha)
    places = [(columns[latent] - 0.5, rows[name, window] - 0.5) for latent, name, window in marked]
    for left, top in places:
        axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=INK, linewidth=1.8, zorder=3, clip_on=False))
    picture.letters([str(latent) for latent in columns], x, panel.bottom - 0.06, size=8, align="right", turned=True)
    windows = ["" if window is None else WINDOWS[window] for _, window in cells]
    picture.letters(windows, panel.left - 0.08, y, size=8, align="right")
    middle = [panel.y(np.mean([row for (of, _), row in rows.items() if of == name])) for name in names["pattern"]]
    picture.letters([shown(name) for name in names["pattern"]], 0.2, middle, size=9, color=INK, bold=True)
    counts = [str(traces) for traces in names.filter("known")["traces"]]
    picture.letters(counts, panel.right + 0.1, middle[: len(known)], size=8.5, color=INK)
    notes = [_no_number(table, name) for name in names["pattern"][len(known) :]]
    picture.letters(notes, panel.left + 0.1, middle[len(known) :], size=8.5, color=GREY)
    above = panel.top + 0.12
    place = panel.y_range[1] - 0.12 / tall
    for name in VERDICTS:
        judged = np.flatnonzero(leaders["verdict"] == name)
        axes.plot(judged, np.full(len(judged), place), VERDICT_MARKERS[name], color=VERDICT_COLORS[name], markersize=5,
                  clip_on=False)  # fmt: skip
    picture.write(panel.left - 0.1, above, "verdict", ha="right", size=8, color=GREY)
    picture.write(panel.right + 0.1, above, "traces with it", size=8, color=GREY)
    picture.write(panel.left + across / 2, 0.42, "latent", ha="center")
    bar = picture.colorbar(image, cax=picture.axes_at(Panel(3.95 + across, 1.0, 0.13, min(high, 2.2))))
    ends = f"{100 * STRONG:.0f}%"
    bar.set_ticks([-STRONG, 0, STRONG], labels=[f"−{ends}", "0", ends], size=7.5)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    handles = [Line2D([], [], marker=VERDICT_MARKERS[name], linestyle="", color=VERDICT_COLORS[name], markersize=5,
                      label=name) for name in order]  # fmt: skip
    handles.append(Line2D([], [], marker="s", linestyle="", markerfacecolor="none", color=INK, markersize=7,
                          markeredgewidth=1.8, label="linked"))  # fmt: skip
    picture.legend(handles=handles, loc="lower left", ncols=4, bbox_to_anchor=(0.1 / width, 0.0), handletextpad=0.1,
                  columnspacing=1.4)  # fmt: skip
    return picture


def _linked(tests: pl.DataFrame, alpha: float) -> list[tuple[int, str, str]]:
    """Return latent, pattern and window of the tests that pass as links, as the check has it."""
    able = links(tests.lazy()).drop_nulls(["p", "low"])
    passing = able.filter(pl.col("p") * pl.len().over("latent") < alpha)
    return passing.select("latent", "pattern", "window").collect().rows()


def _no_number(table: pl.DataFrame, name: str) -> str:
    """Say why a pattern has no number."""
    notes = table.filter(pattern=name)["note"].drop_nulls()
    return str(notes[0]) if len(notes) else "no latent has a number"


def waterfall(table: pl.DataFrame, *, site: str) -> Picture:
    """Draw how many of the candidate latents each check takes away."""
    steps = steps_left(table)
    total, survivors = steps[0].left, steps[-1].left
    title = f"{survivors} of {total} candidate latents at {site} pass every check"
    subtitle = "latents that recur, or that a test links to a thinking pattern, and what speaks against them, in turn"
    if not total:
        return nothing(f"Candidate latents at {site}", subtitle, "no latent is a candidate: there is nothing to check")
    last = steps[-2].left
    # Label, where the bar begins and ends, its color, its number.
    bars = [
        ("candidates", 0, total, "#555555", str(total)),
        *[
            (BY_NAME[step.name].fails, step.left, before.left, VERDICT_COLORS["no"],
             f"−{before.left - step.left}" if before.left > step.left else "0")
            for before, step in pairwise(steps[:-1])
        ],
        ("undecided", survivors, last, VERDICT_COLORS["undecided"], str(last - survivors)),
        ("thinking patterns", 0, survivors, VERDICT_COLORS[VERDICTS[0]], str(survivors)),
    ]  # fmt: skip
    names, starts, ends, colors, numbers = zip(*bars, strict=True)
    rows, unit = np.arange(len(bars)), 0.36
    height = 1.7 + unit * len(bars)
    picture = Picture(10, height, title, subtitle)
    panel = Panel(2.1, 0.75, 5.05, unit * len(bars), (0, 1.06 * total), (len(bars) - 0.5, -0.6))
    axes = picture.axes_at(panel, xlabel="latents")
    axes.barh(rows, np.subtract(ends, starts), left=starts, height=0.62, color=colors, zorder=2)
    picture.name_rows(panel, axes, names, grid=False)
    bold = np.isin(rows, [0, len(bars) - 1])
    for weight in (False, True):
        chosen = np.flatnonzero(bold == weight)
        picture.letters([numbers[row] for row in chosen], panel.x(np.take(ends, chosen)) + 0.05, panel.y(chosen),
                size=9.5, color=INK, bold=weight)  # fmt: skip
    # What a step leaves, the next one starts from.
    left = [step.left for step in steps]
    axes.vlines(left, rows[:-1] - 0.31, rows[:-1] + 1.31, colors=PALE, linewidth=0.8, zorder=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    results = {result: [str((table[check.name].cast(pl.String) == result).sum()) for check in asked(table)]
               for result in ("fail", "undecided")}  # fmt: skip
    for share, name, texts in ((1.22, "left", [str(number) for number in left[1:-1]]), (1.36, "fail", results["fail"]),
                               (1.54, "undecided", results["undecided"])):  # fmt: skip
        x = panel.left + share * panel.width
        picture.letters(texts, x, panel.y(rows[1 : len(texts) + 1]), size=8.5, color=INK, align="right")
        picture.write(x, panel.y(0), name, ha="right", size=8, color=GREY)
    picture.write(x, panel.y(-0.65), "of all, by this check alone", ha="right", size=8, color=GREY)
    recur = int(table["original"].sum())
    remark = f"a latent is counted where the first check takes it away; by recurrence alone, {recur} of the candidates"
    picture.write(0.2, 0.15, f"{remark} would be called thinking features", size=7.5, color=GREY)
    return picture


OUTCOME_NAMES = {"correct": "correct against wrong", "truncated": "truncated against finished"}
MEDIATOR = (
    "length may be a mediator: what a latent stands for may make traces longer, and longer traces end otherwise; that"
    " less is left at equal length then speaks against no latent"
)
"""What the numbers at equal length mean."""

VALUE_STYLES = {"max": ("o", "#832db6", "maximum", -0.17), "mean": ("s", "#e76300", "mean", 0.17)}
"""Marker, color, name and place in the row of the per-trace value an area is of."""


def outcomes(table: pl.DataFrame, verdict: pl.DataFrame, *, site: str, latents: int) -> Picture:
    """Draw how well each leading latent tells how a trace ends, in all and at equal length, and what length tells."""
    title = f"Do the candidate latents at {site} tell how a trace ends?"
    subtitle = (
        "AUROC, with 95 % intervals: of a latent’s activation in the trace (filled), of the same among traces of equal"
        f" length (open; strata of {OF_EQUAL_LENGTH}), and of length alone"
    )
    leaders = leading(verdict, latents)["latent"].to_list()
    table = table.filter(pl.col("latent").is_in(leaders))
    if table.is_empty():
        return nothing(title, subtitle, "no latent is a candidate")
    numbers = table.drop_nulls("auroc")
    known = [outcome for outcome in OUTCOME_NAMES if outcome in numbers["outcome"]]
    missing = [
        f"{name}: {next(iter(table.filter(outcome=outcome)['note'].drop_nulls()), 'no latent has a number')}"
        for outcome, name in OUTCOME_NAMES.items()
        if outcome not in known
    ]
    if not known:
        return nothing(title, subtitle, "; ".join(missing))
    height = 2.15 + 0.28 * len(leaders) + 0.24 * bool(missing)
    picture = Picture(12, height, title, subtitle)
    for line, text in enumerate([MEDIATOR, *(f"not drawn is {text}" for text in missing)]):
        picture.write(0.2, height - 0.62 - 0.24 * line, text, size=9, color="#555555", va="top")
    width = (12 - 1.05 * len(known) - 0.15) / len(known)
    for index, outcome in enumerate(known):
        left, about = 0.85 + (width + 1.05) * index, numbers.filter(outcome=outcome)
        panel = Panel(left, 0.8, width, 0.28 * len(leaders), (0, 1), (len(leaders) - 0.4, -0.6))
        _areas(picture, panel, about)
        counts = f"{about['positive'][0]} against {about['negative'][0]} traces"
        picture.write(left, panel.top + 0.3, f"{OUTCOME_NAMES[outcome]}: {counts}", size=10, weight="bold")
    handles: list[Artist] = [
        Line2D([], [], marker=marker, color=color, markerfacecolor=face, markersize=5, linestyle=line, linewidth=1.2,
               label=f"{name} in the trace" + ("" if line else ", at equal length"))
        for marker, color, name, _ in VALUE_STYLES.values() for face, line in ((color, "-"), ("white", ""))
    ]  # fmt: skip
    handles.append(Patch(color="#bbbbbb", alpha=0.5, label="length alone"))
    picture.legend(handles=handles, loc="lower center", ncols=5, columnspacing=1.6)
    return picture


def _areas(picture: Picture, panel: Panel, table: pl.DataFrame) -> None:
    """Draw one outcome's areas, a row a latent, the largest by maximum first."""
    order = (
        table.group_by("latent")
        .agg(by=pl.col("auroc").filter(pl.col("value") == "max").max(), otherwise=pl.col("auroc").max())
        .sort(pl.coalesce("by", "otherwise"), "latent", descending=[True, False])
        .select("latent")
        .with_row_index("row")
    )
    axes = picture.axes_at(panel, xlabel="AUROC (0.5: no better than chance)")
    length = table.row(0, named=True)
    if length["length_auroc"] is not None:
        axes.axvspan(length["length_low"], length["length_high"], color="#bbbbbb", alpha=0.4, linewidth=0, zorder=1)
        axes.axvline(length["length_auroc"], color="#717581", linewidth=1.4, zorder=1.5)
        axes.text(length["length_auroc"], 1.0, "length", ha="center", va="bottom", size=7.5, color="#717581",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.axvline(0.5, color=PALE, linewidth=1, linestyle=":", zorder=1.5)
    for value, (marker, color, _, offset) in VALUE_STYLES.items():
        areas = table.filter(value=value).join(order, on="latent").with_columns(y=pl.col("row").cast(pl.Int64) + offset)
        sure, within = areas.drop_nulls("low"), areas.drop_nulls("within_length")
        style: dict[str, Any] = {"marker": marker, "linestyle": "", "color": color, "markersize": 4.5}
        axes.hlines(sure["y"], sure["low"], sure["high"], colors=color, linewidth=1.2, alpha=0.6, zorder=2)
        axes.hlines(within["y"], within["within_low"], within["within_high"], colors=color, linewidth=0.7, alpha=0.6,
                    linestyles=":", zorder=2)  # fmt: skip
        axes.plot(areas["auroc"], areas["y"], zorder=3, **style)
        axes.plot(
            within["within_length"], within["y"], markerfacecolor="white", markeredgewidth=1.1, zorder=2.5, **style
        )
    picture.name_rows(panel, axes, [str(latent) for latent in order["latent"]])
    picture.write(panel.left - 0.65, panel.y((len(order) - 1) / 2), "latent", rotation=90, ha="center")


def pattern_counts(table: pl.DataFrame, *, conditions: Sequence[str]) -> Picture:
    """Draw how often each pattern is in what the model wrote, trace by trace and on average, by condition."""
    title, subtitle = "Thinking patterns in the text", "matches per 100 tokens: each trace, and the mean over traces"
    table = table.with_columns(pl.col("per_100_tokens").fill_nan(None)).drop_nulls("per_100_tokens")
    table = table.filter(pl.col("condition").is_in(list(conditions)))
    if table.is_empty():
        return nothing(title, subtitle, "no trace has any text, or no pattern is looked for")
    names = (
        table.group_by("pattern")
        .agg(pl.col("per_100_tokens").mean())
        .sort("per_100_tokens", "pattern", descending=[True, False])["pattern"]
        .to_list()
    )
    unit = 0.2 + 0.2 * len(conditions)
    height = 1.85 + unit * len(names)
    picture = Picture(9.5, height, title, subtitle)
    most = max(float(table["per_100_tokens"].to_numpy().max()), 0.1)
    panel = Panel(1.6, 0.9, 6, unit * len(names), (-0.015 * most, 1.05 * most), (len(names) - 0.5, -0.5))
    axes = picture.axes_at(panel, xlabel="matches per 100 tokens")
    rows = np.arange(len(names))
    axes.barh(rows[::2], 1, left=0, height=1, color="#f5f5f5", zorder=0, transform=axes.get_yaxis_transform())
    apart = 0.66 / len(conditions)
    handles = []
    for index, condition in enumerate(conditions):
        style: dict[str, Any] = {"color": CONDITION_COLORS[index % 4], "linestyle": "", "clip_on": False}
        offset = apart * (index - (len(conditions) - 1) / 2)
        counts = (
            table.filter(condition=condition)
            .group_by("pattern")
            .agg("per_100_tokens", mean=pl.col("per_100_tokens").mean(), having=(pl.col("per_100_tokens") > 0).sum())
            .join(pl.DataFrame({"pattern": names, "y": rows + offset}), on="pattern")
        )
        each = counts.explode("per_100_tokens").with_columns(number=pl.int_range(pl.len()).over("pattern"))
        # Spread out, but the same in every run.
        scatter = pl.col("y") + 0.8 * apart * (pl.col("number") * 0.618034 % 1 - 0.5)
        axes.plot(each["per_100_tokens"], each.select(scatter).to_series(), marker="o", markersize=3, alpha=0.3,
                  markeredgewidth=0, **style)  # fmt: skip
        axes.plot(counts["mean"], counts["y"], marker=CONDITION_MARKERS[index % 8], markersize=7.5, zorder=3,
                  markeredgecolor="white", markeredgewidth=0.8, **style)  # fmt: skip
        means = [f"{mean:.2f}" if mean else "0" for mean in counts["mean"]]
        having = [f"{traces} of {len(of)}" for traces, of in counts.select("having", "per_100_tokens").iter_rows()]
        y = panel.y(counts["y"])
        picture.letters(means, panel.right + 0.54, y, size=8, color=style["color"], align="right")
        picture.letters(having, panel.right + 1.5, y, size=8, color=style["color"], align="right")
        handles.append(Line2D([], [], marker=CONDITION_MARKERS[index % 8], linestyle="", color=style["color"],
                              markersize=7, label=condition))  # fmt: skip
    for x, head in ((0.54, "mean"), (1.5, "traces with it")):
        picture.write(panel.right + x, panel.top + 0.1, head, ha="right", size=8, color=GREY)
    picture.name_rows(panel, axes, [shown(name) for name in names], grid=False)
    picture.legend(handles=handles, loc="lower left", ncols=len(conditions), bbox_to_anchor=(1.4 / 9.5, 0.0))
    return picture


COUNTED = {"linked": ("linked to a pattern", "#c6dbef"), "passing": ("pass all but the fit", "#6baed6"),
           "called": ("and the fit", "#0072b2")}  # fmt: skip
"""What is counted of each reader's latents, and its colour."""


def twins(table: pl.DataFrame) -> Picture:
    """Draw how many latents the study's own reader and each twin have that are linked, and that pass, site by site."""
    title = "Would a twin do as well?"
    subtitle = "latents of the study’s own SAE and model, and of twins read by the same rules, with as small a p"
    if table.is_empty():
        return nothing(title, subtitle, "no site was read")
    # A row a reader, with room before each site for its name.
    table = table.with_columns(row=pl.int_range(pl.len()) + 1.1 * (1 + pl.col("site").rle_id()))
    unit, end = 0.3, table["row"][-1] + 0.6
    height = 1.6 + unit * (end + 0.1)
    picture = Picture(10.5, height, title, subtitle)
    most = max(1, table.select(pl.max_horizontal(*COUNTED)).to_series().to_numpy().max())
    panel = Panel(1.75, 0.85, 5.6, height - 1.6, (0, 1.12 * most), (end, -0.1))
    axes = picture.axes_at(panel, xlabel="latents", yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    for (name, (label, color)), thick in zip(COUNTED.items(), (0.74, 0.52, 0.3), strict=True):
        axes.barh(table["row"], table[name], height=thick, color=color, label=label, zorder=2)
    y = panel.y(table["row"])
    numbers = [" · ".join(map(str, counts)) for counts in table.select(*COUNTED).iter_rows()]
    ends = panel.x(table.select(pl.max_horizontal(*COUNTED)).to_series()) + 0.06
    picture.letters(numbers, ends, y, size=8, color=INK)
    names = ["the study’s own" if reader == "trained" else reader.replace("_", " ").replace("sae", "SAE")
             for reader in table["reader"]]  # fmt: skip
    picture.letters(names, panel.left - 0.1, y, size=9, align="right")
    ratios = ["" if ratio is None else f"{ratio:.2f} ({low:.2f} to {min(high, 99):.2f})"
              for ratio, low, high in table.select("ratio", "low", "high").iter_rows()]  # fmt: skip
    picture.letters(ratios, 10.3, y, size=8.5, color=INK, align="right")
    picture.letters([f"{tested:,}" for tested in table["tested"]], 8.55, y, size=8.5, color=INK, align="right")
    for x, text in ((8.55, "tested"), (10.3, "passing, for each of its own")):
        picture.write(x, panel.top + 0.1, text, ha="right", size=8, color=GREY)
    for (site,), rows in table.group_by("site", maintain_order=True):
        picture.write(0.2, panel.y(rows["row"][0] - 0.85), str(site), weight="bold")
    picture.legend(loc="lower left", ncols=3, bbox_to_anchor=(1.65 / 10.5, 0.0), columnspacing=1.6)
    return picture
