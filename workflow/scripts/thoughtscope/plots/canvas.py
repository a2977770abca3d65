"""What pictures are drawn on and with: style, colours, fonts, figures, and drawing many marks at a time.

A latent has the same colour in every picture, chosen by its number alone. There are ten colours for thousands of
latents, so colour helps the eye and the number beside it identifies. Where latents are judged, colour is the verdict.

An axes with its ticks takes matplotlib as long as thousands of dots. Where a picture has many panels or labels, a
`Panel` says where its numbers lie, and a Picture's `dots`, `strokes` and `letters` are drawn there.
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
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.ft2font import LoadFlags
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator
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


def log_ticks(low: float, high: float) -> tuple[list[float], list[float]]:
    """Return the ticks of a logarithmic axis: those with a number, as many as there is room for, and the others."""
    decades = np.log10(high / low)
    numbered = (1, 2, 3, 4, 5, 6, 8) if decades < 0.6 else (1, 2, 5) if decades < 1.5 else (1,)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = [(digit * power, digit in numbered) for power in powers for digit in range(1, 10)]
    inside = [(float(value), number) for value, number in ticks if low <= value <= high]
    if sum(number for _, number in inside) < 2:
        return linear_ticks(low, high), []
    return [value for value, number in inside if number], [value for value, number in inside if not number]


def linear_ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a linear axis."""
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(value) for value in ticks if low <= value <= high]


def _numbers(ticks: Sequence[float]) -> list[str]:
    """Return what is written at ticks, in four characters or so."""
    sizes = [(1e6, "M") if value >= 1e6 else (1e3, "k") if value >= 1e4 else (1, "") for value in ticks]
    return [f"{value / size:g}{suffix}" for value, (size, suffix) in zip(ticks, sizes, strict=True)]


@dataclass(frozen=True)
class Panel:
    """Where numbers lie on a picture: a rectangle, in inches from the lower left corner, and two scales."""

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


class Picture(Figure):
    """A figure with a title and a line under it, both at the left; all places on it are in inches, sizes in points."""

    def __init__(self, width: float, height: float, title: str, subtitle: str) -> None:
        super().__init__(figsize=(width, height))
        self.write(0.2, height - 0.12, title, size=13, weight="bold", va="top")
        self.write(0.2, height - 0.38, subtitle, size=9, color="#555555", va="top")

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text, centred on its height."""
        self.text(x, y, text, transform=self.dpi_scale_trans, **{"va": "center", **style})

    def heading(self, panel: Panel, text: str) -> None:
        """Write a panel's title."""
        self.write(panel.left, panel.top + 0.11, text, size=10, weight="bold")

    def empty(self, panel: Panel, text: str = "nothing active here") -> None:
        """Say that a panel has nothing to show."""
        x, y = panel.left + panel.width / 2, panel.bottom + panel.height / 2
        self.write(x, y, text, ha="center", color="#888888")

    def axes_at(self, panel: Panel, **style: Any) -> Axes:
        """Add axes where a panel lies, with its ranges and scales."""
        width, height = self.get_size_inches()
        place = panel.left / width, panel.bottom / height, panel.width / width, panel.height / height
        axes = self.add_axes(place, xlim=panel.x_range, ylim=panel.y_range, **style)
        for name, axis, ends in (("x", axes.xaxis, panel.x_range), ("y", axes.yaxis, panel.y_range)):
            if name in panel.log:
                axes.set(**{f"{name}scale": "log"})
                numbered, others = log_ticks(*ends)
                axis.set_ticks(numbered, _numbers(numbered))
                axis.set_ticks(others, [""] * len(others), minor=True)
        return axes

    def name_rows(self, panel: Panel, axes: Axes, names: Sequence[str], *, grid: bool = True) -> None:
        """Write the names of axes' rows 0, 1, … at their left, in place of ticks."""
        rows = np.arange(len(names))
        axes.set_yticks([])
        self.letters(names, panel.left - 0.08, panel.y(rows), size=9, align="right")
        if grid:
            axes.hlines(rows, *panel.x_range, colors=FAINT, linewidth=0.6, zorder=0.5)

    def frame(self, panel: Panel, *, y_label: str, x_label: str = "") -> None:
        """Draw a panel's edges, as of axes, with ticks and grid along y (logarithmic) and, if labelled, x (linear)."""
        left, bottom, right, top = panel.left, panel.bottom, panel.right, panel.top
        numbered, others = log_ticks(*panel.y_range)
        y, more = panel.y(numbered), panel.y(others)
        self.strokes(left, y, right, y, color=FAINT, width=0.6)
        self.strokes(left - 0.05, y, left, y, color=EDGE, width=0.8)
        self.strokes(left - 0.03, more, left, more, color=EDGE, width=0.6)
        self.letters(_numbers(numbered), left - 0.08, y, size=9, align="right")
        self.write(left - 0.5, (bottom + top) / 2, y_label, rotation=90, ha="center")
        if x_label:
            ticks = linear_ticks(*panel.x_range)
            x = panel.x(ticks)
            self.strokes(x, bottom, x, top, color=FAINT, width=0.6)
            self.strokes(x, bottom - 0.05, x, bottom, color=EDGE, width=0.8)
            self.letters(_numbers(ticks), x, bottom - 0.15, size=9, align="center")
            self.write((left + right) / 2, bottom - 0.36, x_label, ha="center")
        self.corners(left, bottom, right, top)

    def corners(self, left: ArrayLike, bottom: ArrayLike, right: ArrayLike, top: ArrayLike) -> None:
        """Draw the left and lower edges of rectangles."""
        self.strokes(left, bottom, left, top, color=EDGE, width=0.8)
        self.strokes(left, bottom, right, bottom, color=EDGE, width=0.8)

    def dots(self, x: ArrayLike, y: ArrayLike, color: Any, *, radius: float = 2.6) -> None:
        """Draw dots with one colour or one each; their radius is in points."""
        self.add_artist(
            PathCollection([Outline.unit_circle()], [radius**2], offsets=_points(x, y).reshape(-1, 2), zorder=1.5,
                           transform=IdentityTransform(), offset_transform=self.dpi_scale_trans, facecolors=color,
                           linewidths=0)
        )  # fmt: skip

    def strokes(self, x: ArrayLike, y: ArrayLike, to_x: ArrayLike, to_y: ArrayLike, *, color: Any, width: float,
                alpha: float = 1.0) -> None:  # fmt: skip
        """Draw lines from (x, y) to (to_x, to_y) with one colour or one each."""
        self.add_artist(
            LineCollection(_points(x, y, to_x, to_y), colors=color, linewidths=width, alpha=alpha,
                           transform=self.dpi_scale_trans, zorder=1)
        )  # fmt: skip

    def letters(self, texts: Sequence[str], x: ArrayLike, y: ArrayLike, *, size: float,
                color: str | Sequence[str] = "#555555", align: str = "left", bold: bool = False,
                turned: bool = False) -> None:  # fmt: skip
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
        if outlines:
            colors = color if isinstance(color, str) else np.repeat(color, [len(text) for text in texts])
            self.add_artist(
                PathCollection(outlines, [size**2], offsets=np.concatenate(places), transform=IdentityTransform(),
                               offset_transform=self.dpi_scale_trans, facecolors=colors, linewidths=0, snap=False,
                               zorder=1, label="\n".join(texts))
            )  # fmt: skip


def nothing(title: str, subtitle: str, text: str) -> Picture:
    """Return a picture that has only this to say."""
    picture = Picture(9, 2, title, subtitle)
    picture.empty(Panel(0.45, 0.1, 8.1, 1.2), text)
    return picture
