"""How every figure looks, and how it gets into a file. matplotlib's settings stay as they are."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from .._output import replacing
from .._suggest import unknown
from .fonts import complete_fonts

DPI = 150
SMALL, NORMAL, LARGE = 7.0, 8.5, 11.0  # points
CHARACTER = 0.075  # inches, of an average character of NORMAL size
THIN = 0.8  # points, of a frame that says nothing
INK, QUIET, GRID = "#222222", "#666666", "#dddddd"

# Okabe and Ito's colours, which people with any kind of colour blindness tell apart; the wrong ones' red is
# Tol's, since theirs looks orange; and a grey.
RIGHT, WRONG, PROBE = "#009E73", "#CC3311", "#222222"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
# Another number than of colours: no pair comes twice soon.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")

# Files of the same figure are the same: no date goes into them.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "ModDate": None},
}


def new_figure(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    """A white figure of that many inches, drawn by Agg; pyplot does not know of it."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")  # type: ignore[arg-type]
    FigureCanvasAgg(figure)
    return figure


def plain(text: Text) -> Text:
    """The text as it is: names may hold ``$``, which matplotlib would read as mathematics."""
    text.set_parse_math(False)
    return text


def series_style(color: int, dashes: int) -> dict[str, Any]:
    """A line's colour and dashes by their indices, which begin anew when there are no more."""
    return {
        "color": SERIES[color % len(SERIES)],
        "linestyle": DASHES[dashes % len(DASHES)],
        "linewidth": 1.6,
    }


def tidy(axes: Axes, *, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Titles and a light grid, without a box."""
    plain(axes.set_title(title, fontsize=NORMAL + 1, color=INK, loc="left", fontweight="bold"))
    plain(axes.set_xlabel(xlabel, fontsize=NORMAL, color=INK))
    plain(axes.set_ylabel(ylabel, fontsize=NORMAL, color=INK))
    axes.tick_params(labelsize=SMALL + 0.5, colors=INK, length=3, width=0.6)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(QUIET)


class PictureGrid:
    """A figure of equally large pictures in rows and columns, with labels on the left and room for text.

    Args:
        rows: how many.
        columns: how many.
        shape: height over width of a cell.
        title: of the whole figure; "" for none.
        cell: width of a cell in inches.
        left: inches for the labels of the rows.
        above: inches over each picture.
        below: inches under each picture.
        breaks: rows that start a group: there is more room above them.
        headings: leave room over the columns for :meth:`heading`.
        end: inches below all of it, for :meth:`note`.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        shape: float,
        *,
        title: str = "",
        cell: float = 0.85,
        left: float = 1.25,
        above: float = 0.0,
        below: float = 0.0,
        breaks: Sequence[int] = (),
        headings: bool = False,
        end: float = 0.0,
    ) -> None:
        gap, margin, group = 0.07, 0.12, 0.22
        self.cell_width, self.cell_height = cell, cell * min(max(shape, 0.4), 3.0)
        heading = (0.38 if title else 0.0) + (0.2 if headings else 0.0)
        extra = [group * sum(1 for start in breaks if 0 < start <= row) for row in range(rows)]
        step = above + self.cell_height + below + gap
        self._tops = [margin + heading + row * step + extra[row] + above for row in range(rows)]
        self._lefts = [margin + left + column * (cell + gap) for column in range(columns)]
        self._above, self._left = above, margin
        self._characters = int(left / CHARACTER)
        self.width = self._lefts[-1] + cell + margin
        self.height = self._tops[-1] + self.cell_height + below + margin + end
        self.figure = new_figure(self.width, self.height, layout=None)
        if title:
            y = 1 - (margin + 0.04) / self.height
            text = self.figure.text(
                margin / self.width, y, title, fontsize=LARGE, fontweight="bold", color=INK, va="top"
            )
            plain(text)

    def cell(self, row: float, column: int, picture: Any, *, frame: str = GRID, width: float = THIN) -> Axes:
        """Axes with a picture (H, W, 3), framed. ``row`` may lie between two rows."""
        low = int(row)
        high = min(low + 1, len(self._tops) - 1)
        top = self._tops[low] + (row - low) * (self._tops[high] - self._tops[low])
        bottom = self.height - top - self.cell_height
        box = Bbox.from_bounds(
            self._lefts[column] / self.width,
            bottom / self.height,
            self.cell_width / self.width,
            self.cell_height / self.height,
        )
        axes = self.figure.add_axes(box)  # type: ignore[call-overload]
        axes.imshow(picture, interpolation="antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor(frame)
            spine.set_linewidth(width)
        return axes  # type: ignore[no-any-return]

    def heading(self, column: int, text: str) -> None:
        """Text over a column."""
        x = (self._lefts[column] + self.cell_width / 2) / self.width
        y = 1 - (self._tops[0] - self._above - 0.04) / self.height
        plain(self.figure.text(x, y, text, fontsize=NORMAL - 0.5, ha="center", va="bottom", color=INK))

    def note(self, text: str) -> None:
        """A line at the end, in the room of ``end``."""
        x, y = self._left / self.width, self._left / self.height
        plain(self.figure.text(x, y, text, fontsize=SMALL, color=QUIET, va="bottom"))

    def label(self, row: int, name: str, *more: str) -> None:
        """Text to the left of a row: a name, on two lines if it is long, and lines below it.

        Of a longer one the beginning and the end are shown: it may end in what tells rows apart.
        """
        lines = textwrap.wrap(name, self._characters, break_on_hyphens=False)
        if len(lines) > 2:
            lines = [name[: self._characters].rstrip(), "…" + name[1 - self._characters :].lstrip()]
        y = 1 - (self._tops[row] + self.cell_height / 2) / self.height
        text = self.figure.text(
            self._left / self.width, y, "\n".join([*lines, *more]), fontsize=NORMAL, va="center", color=INK
        )
        plain(text)


def check_output(path: str | os.PathLike[str]) -> str:
    """The format of a figure's file by its name; ``ValueError`` for others than PNG, SVG and PDF."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in _METADATA:
        raise unknown("figure format", f".{suffix}" if suffix else str(path), [f".{s}" for s in _METADATA])
    return suffix


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = DPI) -> None:
    """Writes a figure as PNG, SVG or PDF, by the name. An older file is replaced once the new one is whole.

    Args:
        figure: any matplotlib figure.
        path: ends in ``.png``, ``.svg`` or ``.pdf``; its folder must exist.
        dpi: pixels an inch for PNG and for pictures within SVG and PDF.

    Raises:
        ValueError: another ending.
        FileNotFoundError: no such folder.

    Example:
        >>> save_figure(plot_cmc({"baseline": report}), "cmc.pdf")
    """
    suffix = check_output(path)
    complete_fonts(figure)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format=suffix, dpi=dpi, metadata=_METADATA[suffix])


def figure_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """A figure as the bytes of a PNG file."""
    complete_fonts(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()
