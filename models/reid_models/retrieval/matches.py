"""A query's own image among its matches, found by its file and left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from ..data.records import split_name


def own_rows(
    names: Sequence[str], gallery: Sequence[str], locate: Callable[[int], str] | None = None
) -> np.ndarray:
    """The gallery row int64 (Q,) of each query's own image, -1 for none.

    Images are the same if their names are, or if their files are one file (and their boxes are the same).

    Args:
        names: of the queries.
        gallery: names of the gallery's images.
        locate: where the image of a row is now; None: at its name.
    """
    asked = {os.path.basename(name) for name in names}
    places: dict[str, int] = {}
    for row, name in enumerate(gallery):
        if os.path.basename(name) in asked:
            places.setdefault(name, row)
            places.setdefault(_real(name if locate is None else locate(row)), row)
    return np.array(
        [places.get(name, places.get(_real(name), -1)) for name in names], dtype=np.int64
    ).reshape(-1)


def drop_rows(
    scores: np.ndarray, rows: np.ndarray, own: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` matches of each query without its own row; NaN and -1 where there are fewer.

    Args:
        scores: (Q, K), best first.
        rows: (Q, K) gallery rows, -1 for none.
        own: (Q,), -1 for none.
        count: from 1.
    """
    mine = (rows == own[:, None]) & (own >= 0)[:, None]
    order = np.argsort(mine, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(mine, order, axis=1)
    found, places = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return np.where(kept, np.float32("nan"), found), np.where(kept, -1, places)


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file: the queries are then the gallery."""
    return os.path.realpath(one) == os.path.realpath(other)


def _real(name: str) -> str:
    path, _ = split_name(name)
    return os.path.realpath(path) + name[len(path) :]
