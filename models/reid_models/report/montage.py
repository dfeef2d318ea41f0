"""A dataset at a glance: identities in rows, cameras in columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..data import ImageRecord
from ..data.records import JUNK
from . import style
from .pictures import load_picture, usual_shape


def plot_montage(
    records: Sequence[ImageRecord], *, identities: int = 6, cameras: int = 8, seed: int = 0, title: str = ""
) -> Figure:
    """One image of each of some identities by each camera (hybrid attention, Fig. 6).

    Identities, and the image of an identity and camera that has several, are drawn at random; a cell stays
    empty where a camera has not seen the identity. Junk is left out.

    Args:
        records: such as ``dataset.train``.
        identities: rows at most, at least 1.
        cameras: columns at most, at least 1; those that saw most of the chosen identities.
        seed: of the choice, at least 0.
        title: of the figure.

    Raises:
        ValueError: no records but junk, or an argument out of range.

    Example:
        >>> save_figure(plot_montage(read_dataset("omniglot").train, title="Omniglot"), "montage.png")
    """
    op = "plot_montage"
    for argument, value in (("identities", identities), ("cameras", cameras)):
        if value < 1:
            raise ValueError(f"{op}: {argument} must be at least 1, got {value}")
    shown = [record for record in records if record.identity != JUNK]
    if not shown:
        raise ValueError(f"{op}: records must hold an image that is not junk, got {len(records)}")
    who = {record.identity: record.who for record in shown}
    where = {record.camera: record.where for record in shown}
    random = np.random.default_rng(seed)
    known = sorted({record.identity for record in shown})
    chosen = sorted(int(i) for i in random.permutation(known)[:identities])
    cells: dict[tuple[int, int], list[ImageRecord]] = {}
    for record in shown:
        if record.identity in chosen:
            cells.setdefault((record.identity, record.camera), []).append(record)
    views = [camera for _, camera in cells]
    columns = sorted(sorted(set(views), key=lambda camera: (-views.count(camera), camera))[:cameras])
    picked = {
        cell: load_picture(images[int(random.integers(len(images)))])
        for cell, images in sorted(cells.items())
        if cell[1] in columns
    }
    shape = usual_shape(list(picked.values()))
    grid = style.PictureGrid(len(chosen), len(columns), shape, title=title, left=0.7, headings=True)
    for row, identity in enumerate(chosen):
        grid.label(row, f"id {who[identity]}")
    for column, camera in enumerate(columns):
        grid.heading(column, f"camera {where[camera]}" if where[camera] else "no camera known")
    for (identity, camera), picture in picked.items():
        grid.cell(chosen.index(identity), columns.index(camera), picture)
    return grid.figure
