"""Legends that hide no data, and names that are not too long for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, ScaledTranslation

from .fonts import complete_fonts
from .style import NORMAL, plain

BELOW = 0.5  # inches from the axes to a legend below them: ticks' labels and the axis' own are between
CLEARANCE = 4.0  # points kept free between lines and a legend among them


def shorten(name: str, length: int) -> str:
    """A name of at most ``length`` characters: the middle goes, since names differ at the beginning or end.

    Example:
        >>> shorten("hsgnet_market1501_seed_7", 15)
        'hsgnet_…_seed_7'
    """
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[len(name) - end :]}"


def legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str], **options: Any) -> Any:
    """A legend of exactly these labels, also of those that begin with an underscore."""
    made = axes.legend(handles, [" "] * len(labels), fontsize=NORMAL - 0.5, frameon=False, **options)
    for text, label in zip(made.get_texts(), labels, strict=True):
        plain(text).set_text(label)
    return made


def place_legends(figure: Figure, wanted: Sequence[tuple[Axes, Sequence[str]]], *, loc: str) -> None:
    """A legend of all lines within each axes at ``loc``; below the axes where it would cover a line.

    The figure grows by what stands below, so that the axes keep their size.

    Args:
        figure: complete but for the legends.
        wanted: axes, and a label for each of its lines.
        loc: as matplotlib's.
    """
    inside = [legend(axes, axes.lines, labels, loc=loc) for axes, labels in wanted]
    for made in inside:
        made.set_in_layout(False)  # else a wide one would squeeze the axes
    complete_fonts(figure)
    figure.draw_without_rendering()  # type: ignore[no-untyped-call]
    added = 0.0
    for made, (axes, labels) in zip(inside, wanted, strict=True):
        box = made.get_window_extent()
        room = axes.get_window_extent()
        fits = box.x0 >= room.x0 and box.x1 <= room.x1 and box.y0 >= room.y0 and box.y1 <= room.y1
        if fits and not covers_line(axes, box.padded(CLEARANCE * figure.dpi / 72)):
            continue
        down = ScaledTranslation(0, -BELOW, figure.dpi_scale_trans)
        legend(
            axes,
            axes.lines,
            labels,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=axes.transAxes + down,
            borderaxespad=0,
        )
        added = max(added, box.height / figure.dpi)
    figure.set_figheight(figure.get_figheight() + added)


def covers_line(axes: Axes, box: Bbox) -> bool:
    """Whether a line of the axes, or a point of one, is within a box of the canvas."""
    for line in axes.lines:
        path = line.get_path().transformed(line.get_transform())
        points = np.asarray(path.vertices)
        if box.count_contains(points) or (len(points) > 1 and path.intersects_bbox(box, filled=False)):
            return True
    return False
