"""A report as one HTML file that needs nothing else: no script, no request, pictures inside."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from .._output import check_folder, replacing
from .style import DPI, figure_png

CSS_DPI = 96  # CSS pixels in an inch
LONG = 30  # characters of a cell
MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Text:
    """Paragraphs, plain: whatever looks like HTML is shown as it is.

    Attributes:
        paragraphs: one or several.
        heading: of the section; "" goes on under the heading before.
    """

    paragraphs: Sequence[str]
    heading: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """A table, the first column being the rows' names.

    Attributes:
        columns: headings; all empty: no line of them.
        rows: cells: text, numbers, or None for what is not known, shown as a dash.
        heading: as for :class:`Text`.
        caption: below it.
        decimals: of floats.
        best: columns whose largest number is in bold type.

    Raises:
        ValueError: a row of another length than ``columns``, or a column in ``best`` that there is not.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    heading: str = ""
    caption: str = ""
    decimals: int = 1
    best: Sequence[str] = ()
    kind: str = field(default="table", init=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"Table: rows must have {len(self.columns)} cells, got {len(row)}: {row!r}")
        for name in self.best:
            if name not in self.columns:
                raise ValueError(f"Table: best must be of {', '.join(self.columns)}, got {name!r}")

    @property
    def shown(self) -> list[list[tuple[str, str]]]:
        """Each cell's text and its classes for CSS."""
        bold = [self._best_rows(index) for index in range(len(self.columns))]
        return [
            [(self._text(cell), _classes(cell, number in bold[index])) for index, cell in enumerate(row)]
            for number, row in enumerate(self.rows)
        ]

    def _best_rows(self, column: int) -> list[int]:
        """Rows with the largest number of a column; none in a table of one row."""
        numbers = {n: row[column] for n, row in enumerate(self.rows) if _is_number(row[column])}
        if self.columns[column] not in self.best or len(self.rows) == 1 or not numbers:
            return []
        largest = max(numbers.values())  # type: ignore[type-var]
        return [n for n, number in numbers.items() if number == largest]

    def _text(self, cell: Cell) -> str:
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return "–"
        return f"{cell:.{self.decimals}f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Picture:
    """A figure or an image file's bytes.

    Attributes:
        content: a matplotlib figure, or a PNG, JPEG, WebP or GIF.
        description: what is to be seen, for those who can't see it.
        heading: as for :class:`Text`.
        caption: below it.
        narrow: what is shown instead on a narrow screen; None: ``content``, which then scrolls sideways.

    Raises:
        ValueError: not an image, or no description.
    """

    content: Figure | bytes
    description: str
    heading: str = ""
    caption: str = ""
    narrow: Figure | bytes | None = None
    kind: str = field(default="picture", init=False)

    def __post_init__(self) -> None:
        if not self.description:
            raise ValueError("Picture: description must say what is to be seen, got an empty text")
        for content in (self.content, self.narrow):
            if isinstance(content, bytes):
                _format(content)

    @property
    def shown(self) -> tuple[str, int, int]:
        """Data URI, and width and height in CSS pixels."""
        return _shown(self.content)

    @property
    def shown_narrow(self) -> tuple[str, int, int] | None:
        """Likewise, of :attr:`narrow`."""
        return None if self.narrow is None else _shown(self.narrow)


@dataclass(frozen=True)
class Code:
    """Text of fixed width, folded until it is asked for: a recipe.

    Attributes:
        text: as it is.
        summary: what is seen while it is folded.
        heading: as for :class:`Text`.
    """

    text: str
    summary: str
    heading: str = ""
    kind: str = field(default="code", init=False)


Section: TypeAlias = Text | Table | Picture | Code


@dataclass(frozen=True)
class Report:
    """A page: a title, a line below it, and sections in order.

    Example:
        >>> report = Report("Baseline and HSGNet", [Table(["method", "mAP"], [["baseline", 76.9]])])
        >>> report.write_html("report.html")
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""

    def to_html(self) -> str:
        """The page, the same for the same contents."""
        source = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        return environment.from_string(source).render(report=self)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Writes the page; an older file is replaced once the new one is whole.

        Raises:
            FileNotFoundError: the folder does not exist.
        """
        path = Path(path)
        check_folder(path, "write_html: path")
        # File names may hold bytes that are no UTF-8, which Python keeps as lone surrogates.
        page = self.to_html().encode("utf-8", "replace")
        with replacing(path) as unfinished:
            unfinished.write_bytes(page)


def _shown(given: Figure | bytes) -> tuple[str, int, int]:
    """Data URI, and width and height in CSS pixels."""
    content = given if isinstance(given, bytes) else figure_png(given)
    name, width, height = _format(content)
    scale = 1.0 if isinstance(given, bytes) else CSS_DPI / DPI
    uri = f"data:{MIME[name]};base64,{base64.b64encode(content).decode('ascii')}"
    return uri, round(width * scale), round(height * scale)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not math.isnan(cell)


def _classes(cell: Cell, best: bool) -> str:
    """``number``; ``long`` for a text that would otherwise be a narrow column of many lines."""
    names = ["number"] if cell is None or isinstance(cell, int | float) else []
    names += ["long"] if isinstance(cell, str) and len(cell) > LONG else []
    return " ".join([*names, "best"] if best else names)


def _format(content: bytes) -> tuple[str, int, int]:
    """Pillow's name of an image file's format, and the image's width and height."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            name, (width, height) = image.format or "", image.size
    except UnidentifiedImageError:
        raise ValueError(
            f"Picture: content must be an image file's bytes ({', '.join(MIME)}), got {len(content)} others"
        ) from None
    if name not in MIME:
        raise ValueError(f"Picture: content must be {', '.join(MIME)}, got {name}")
    return name, width, height
