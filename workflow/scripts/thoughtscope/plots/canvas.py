"""What pictures are drawn on and with: style, colours, fonts, figures, and drawing many marks at a time.

A latent has the same colour in every picture, chosen by its number alone. There are ten colours for thousands of
latents, so colour helps the eye and the number beside it identifies. Where latents are judged, colour is the verdict.

An axes and its ticks take matplotlib as long as thousands of bars. Where a picture has many panels or labels, a `Panel`
says where its numbers lie on the figure, and `rectangles`, `lines` and `letters` draw there, in inches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ft2font import LoadFlags
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator, NullFormatter
from matplotlib.transforms import IdentityTransform
from numpy.typing import ArrayLike

from .. import files
from ..vocabulary import escape

LATENT_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that stay apart for colour-blind readers (Petroff 2021, arXiv 2107.02270, table of ten)."""

CONDITION_MARKERS = "oDs^vP*X"
CONDITION_LINES = ("-", "--", ":", "-.")
CONDITION_COLORS = tuple(LATENT_COLORS[index] for index in (0, 2, 4, 6))
INK, EDGE, FAINT, WARNING = "#222222", "#888888", "#d8d8d8", "#bd1f01"

FONT = "DejaVu Sans"
DIGIT_HEIGHT = 0.73
"""Of the font, in its size."""

STYLE = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # fixed: finding a place takes a fifth of the drawing time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
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
def _font(bold: bool) -> Any:
    weight = "bold" if bold else "normal"
    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=FONT, weight=weight)))


@cache
def _characters() -> frozenset[int]:
    return frozenset(_font(bold=False).get_charmap())


def shown(token: str, most: int = 16) -> str:
    """Return a token's label as the pictures' font can show it: other characters as escapes, long ones cut."""
    text = "".join(char if ord(char) in _characters() else escape(char) for char in token)
    return text if len(text) <= most else text[: most - 1] + "…"


def save(drawn: Figure | Iterable[tuple[int, Figure]], path: str | Path, dpi: int) -> None:
    """Write a figure as png; or numbered ones, each when it is drawn, as png in a folder."""
    with files.replacing(path) as temporary:
        if isinstance(drawn, Figure):
            # Of few colours as they are, pictures get no smaller with more effort, which takes longer.
            drawn.savefig(temporary, format="png", dpi=dpi, facecolor="white", metadata={"Software": "thoughtscope"},
                          pil_kwargs={"compress_level": 3})  # fmt: skip
            return
        temporary.mkdir()
        for number, figure in drawn:
            save(figure, temporary / f"{number:05d}.png", dpi)


def new_figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """Return an empty figure, size in inches, with a title and a line under it, both at the left."""
    figure = Figure(figsize=(width, height))
    figure.text(0.2 / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(0.2 / width, 1 - 0.38 / height, subtitle, size=9, color="#555555", va="top")
    return figure


def nothing(title: str, subtitle: str, text: str) -> Figure:
    """Return a picture that has only this to say."""
    figure = new_figure(9, 2, title, subtitle)
    write(figure, 4.5, 0.7, text, ha="center", color="#888888")
    return figure


@dataclass(frozen=True)
class Panel:
    """Where numbers lie on a figure: a rectangle, in inches from the figure's lower left corner, and two scales."""

    left: float
    bottom: float
    width: float
    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    log: str = ""
    """Which scales are logarithmic: `x`, `y`, or both."""

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def top(self) -> float:
        """Its upper edge."""
        return self.bottom + self.height

    def x(self, values: Any) -> Any:
        """Return where a value or values lie along x, in inches."""
        return self.left + self.width * _share(values, self.x_range, "x" in self.log)

    def y(self, values: Any) -> Any:
        """Return where a value or values lie along y, in inches."""
        return self.bottom + self.height * _share(values, self.y_range, "y" in self.log)


def _share(values: Any, ends: tuple[float, float], log: bool) -> Any:
    numbers, (low, high) = (np.log(part) if log else np.asarray(part, float) for part in (values, ends))
    return (numbers - low) / (high - low)


def place_axes(figure: Figure, panel: Panel, **style: Any) -> Axes:
    """Add axes where a panel lies."""
    width, height = figure.get_size_inches()
    place = panel.left / width, panel.bottom / height, panel.width / width, panel.height / height
    return figure.add_axes(place, **style)


def name_rows(figure: Figure, panel: Panel, axes: Axes, names: Sequence[str], *, grid: bool = True) -> None:
    """Write the names of axes' rows 0, 1, … at their left, in place of ticks."""
    rows = np.arange(len(names))
    axes.set_yticks([])
    letters(figure, names, panel.left - 0.08, panel.y(rows), size=9, align="right")
    if grid:
        axes.hlines(rows, *panel.x_range, colors=FAINT, linewidth=0.6, zorder=0.5)


def note_empty(axes: Axes, text: str) -> None:
    """Leave axes blank but for this."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#888888", transform=axes.transAxes)


def log_ticks(low: float, high: float) -> tuple[list[float], list[float]]:
    """Return the ticks of a logarithmic axis: those with a number, as many as there is room for, and the others."""
    decades = np.log10(high / low)
    numbered = (1, 2, 3, 4, 5, 6, 8) if decades < 0.6 else (1, 2, 5) if decades < 1.5 else (1,)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = {float(digit * power): digit in numbered for power in powers for digit in range(1, 10)}
    inside = {value: labelled for value, labelled in ticks.items() if low <= value <= high}
    if sum(inside.values()) < 2:
        return _linear_ticks(low, high), []
    return [value for value in inside if inside[value]], [value for value in inside if not inside[value]]


def _linear_ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(value) for value in ticks if low <= value <= high]


def _number(value: float) -> str:
    """Return a tick's number in four characters or so."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def log_axis(axes: Axes, axis: str, low: float, high: float) -> None:
    """Make an axis of axes, `x` or `y`, logarithmic from `low` to `high`, with plain numbers."""
    numbered, others = log_ticks(low, high)
    axes.set(**{f"{axis}scale": "log", f"{axis}lim": (low, high)})
    axes.set(**{f"{axis}ticks": numbered, f"{axis}ticklabels": [_number(value) for value in numbered]})
    ticks = {"x": axes.xaxis, "y": axes.yaxis}[axis]
    ticks.set_minor_formatter(NullFormatter())
    ticks.set_ticks(others, minor=True)


def frame(figure: Figure, panel: Panel, *, y_label: str, x_label: str = "") -> None:
    """Draw a panel's left and lower edge with ticks, numbers and a grid along y (logarithmic) and, if labelled, x."""
    numbered, others = log_ticks(*panel.y_range)
    y = panel.y(numbered)
    lines(figure, panel.left, y, panel.right, y, color=FAINT, width=0.6)
    lines(figure, panel.left - 0.05, y, panel.left, y, color=EDGE, width=0.8)
    lines(figure, panel.left - 0.03, panel.y(others), panel.left, panel.y(others), color=EDGE, width=0.6)
    letters(figure, [_number(value) for value in numbered], panel.left - 0.08, y, size=9, align="right")
    write(figure, panel.left - 0.5, (panel.bottom + panel.top) / 2, y_label, rotation=90, ha="center", color=INK)
    if x_label:
        ticks = _linear_ticks(*panel.x_range)
        x = panel.x(ticks)
        lines(figure, x, panel.bottom, x, panel.top, color=FAINT, width=0.6)
        lines(figure, x, panel.bottom - 0.05, x, panel.bottom, color=EDGE, width=0.8)
        letters(figure, [_number(value) for value in ticks], x, panel.bottom - 0.15, size=9, align="center")
        write(figure, (panel.left + panel.right) / 2, panel.bottom - 0.36, x_label, ha="center", color=INK)
    corner(figure, panel.left, panel.bottom, panel.right, panel.top)


def corner(figure: Figure, left: ArrayLike, bottom: ArrayLike, right: ArrayLike, top: ArrayLike) -> None:
    """Draw the left and lower edges of rectangles."""
    lines(figure, left, bottom, left, top, color=EDGE, width=0.8)
    lines(figure, left, bottom, right, bottom, color=EDGE, width=0.8)


def write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write a text in a place in inches, centred on its height."""
    figure.text(x, y, text, transform=figure.dpi_scale_trans, **{"va": "center", **style})


def rectangles(
    figure: Figure, left: ArrayLike, bottom: ArrayLike, right: ArrayLike, top: ArrayLike, color: Any
) -> None:
    """Fill rectangles, their edges in inches, with one colour or one each."""
    corners = _points(left, bottom, left, top, right, top, right, bottom)
    figure.add_artist(
        PolyCollection(corners, facecolors=color, linewidths=0, transform=figure.dpi_scale_trans, zorder=1)
    )


def lines(
    figure: Figure, x: ArrayLike, y: ArrayLike, to_x: ArrayLike, to_y: ArrayLike, *, color: Any, width: float,
    alpha: float = 1.0,
) -> None:  # fmt: skip
    """Draw lines from (x, y) to (to_x, to_y), in inches, with one colour or one each; `width` is in points."""
    ends = _points(x, y, to_x, to_y)
    figure.add_artist(
        LineCollection(ends, colors=color, linewidths=width, alpha=alpha, transform=figure.dpi_scale_trans, zorder=1)
    )


def _points(*coordinates: ArrayLike) -> Any:
    """Return points (shapes, points of a shape, 2) from coordinates x, y, x, y, …, each one or one a shape."""
    return np.stack(np.broadcast_arrays(*coordinates), axis=-1).reshape(-1, len(coordinates) // 2, 2)


@cache
def _outline(character: str, bold: bool, turned: bool) -> tuple[Outline, float]:
    """Return a character's outline, standing on the origin, and how far it moves the next one, at size 1."""
    font, size = _font(bold), 100
    font.set_size(size, 72)
    glyph = font.load_char(ord(character), LoadFlags.NO_HINTING)
    points, codes = font.get_path()
    points = points @ [[0, 1], [-1, 0]] if turned else points
    return Outline(points.reshape(-1, 2) / size, codes), glyph.linearHoriAdvance / 65536 / size


def letters(
    figure: Figure, texts: Sequence[str], x: ArrayLike, y: ArrayLike, *, size: float,
    color: str | Sequence[str] = "#555555",
    align: str = "left", bold: bool = False, turned: bool = False,
) -> None:  # fmt: skip
    """Write many short texts, centred on their digits' height; `turned` ones upwards, aligned along their way.

    A Text takes a millisecond to lay out and draw; here characters are outlines, each made once. No kerning.
    """
    outlines: list[Outline] = []
    places = []
    for text, place in zip(texts, _points(x, y), strict=True):
        characters = [_outline(character, bold, turned) for character in text]
        starts = np.cumsum([0.0, *(width for _, width in characters)])
        along = starts[:-1] - {"left": 0, "center": 0.5, "right": 1}[align] * starts[-1]
        across = np.full(len(text), DIGIT_HEIGHT / 2)
        outlines += [outline for outline, _ in characters]
        places.append(place + size / 72 * np.column_stack([across, along] if turned else [along, -across]))
    colors = color if isinstance(color, str) else np.repeat(color, [len(text) for text in texts])
    if outlines:
        figure.add_artist(
            PathCollection(outlines, [size**2], offsets=np.concatenate(places), offset_transform=figure.dpi_scale_trans,
                           transform=IdentityTransform(), facecolors=colors, linewidths=0, snap=False, zorder=1,
                           label="\n".join(texts))
        )  # fmt: skip
