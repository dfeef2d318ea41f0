"""The index's table: a vector, an identifier and a camera per row, growing at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from reid_ops import _checks

NO_CAMERA = -1
_CHECKED = 1 << 20  # elements that are checked and normalised at a time

# Squared lengths up to this make squared distances, at most four times that, and sums with them finite.
LARGEST_SQUARE = float(np.finfo(np.float32).max) / 16


class Rows:
    """Columns of a growing table. Rows that were removed stay, marked dead, until it is :meth:`compacted`."""

    def __init__(self, dim: int) -> None:
        self._vectors: np.ndarray = np.empty((0, dim), np.float32)
        self._ids = np.empty(0, np.int64)
        self._cameras = np.empty(0, np.int64)
        self._alive = np.empty(0, bool)
        self.count = 0
        self.dead = 0
        self._order: np.ndarray | None = None  # positions by identifier, of living rows

    @staticmethod
    def of(vectors: np.ndarray, ids: np.ndarray, cameras: np.ndarray, alive: np.ndarray) -> Rows:
        """A table over arrays that are there already, such as a mapped file's."""
        rows = Rows(vectors.shape[1])
        rows._vectors, rows._ids, rows._cameras, rows._alive = vectors, ids, cameras, alive
        rows.count, rows.dead = len(ids), int((~alive).sum())
        return rows

    @property
    def vectors(self) -> np.ndarray:
        """float32 ``(count, D)``, dead rows too."""
        return self._vectors[: self.count]

    @property
    def ids(self) -> np.ndarray:
        """int64 ``(count,)``."""
        return self._ids[: self.count]

    @property
    def cameras(self) -> np.ndarray:
        """int64 ``(count,)``, -1: unknown."""
        return self._cameras[: self.count]

    @property
    def alive(self) -> np.ndarray:
        """Bool ``(count,)``, False: removed."""
        return self._alive[: self.count]

    @property
    def living(self) -> int:
        """Rows that are not dead."""
        return self.count - self.dead

    def append(self, vectors: np.ndarray, ids: np.ndarray, cameras: np.ndarray) -> None:
        """Adds checked rows."""
        end = self.count + len(ids)
        if end > len(self._ids):
            capacity = max(end, len(self._ids) * 3 // 2, 1024)
            self._vectors = _grown(self.vectors, capacity)
            self._ids = _grown(self.ids, capacity)
            self._cameras = _grown(self.cameras, capacity)
            self._alive = _grown(self.alive, capacity)
        new = slice(self.count, end)
        self._vectors[new], self._ids[new], self._cameras[new], self._alive[new] = vectors, ids, cameras, True
        self.count = end
        self._order = None

    def overwrite(self, slots: np.ndarray, vectors: np.ndarray, cameras: np.ndarray | None) -> None:
        """Changes rows in their places."""
        self._vectors[slots] = vectors
        if cameras is not None:
            self._cameras[slots] = cameras

    def kill(self, slots: np.ndarray) -> None:
        """Marks rows dead."""
        self._alive[slots] = False
        self.dead += len(slots)
        self._order = None

    def compacted(self) -> Rows:
        """A table without the dead rows; the others keep their order and move up.

        Another one, since somebody may be searching this one.
        """
        kept = self.alive
        ids = self.ids[kept]
        return Rows.of(self.vectors[kept], ids, self.cameras[kept], np.ones(len(ids), bool))

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Positions of identifiers, -1 where there is no living row of that name."""
        if self._order is None:
            living = np.flatnonzero(self.alive)
            self._order = living[np.argsort(self.ids[living], kind="stable")]
        if len(self._order) == 0:
            return np.full(len(ids), -1, np.int64)
        names = self.ids[self._order]
        place = np.minimum(np.searchsorted(names, ids), len(names) - 1)
        return np.where(names[place] == ids, self._order[place], -1)


def _grown(column: np.ndarray, capacity: int) -> np.ndarray:
    wider = np.empty((capacity, *column.shape[1:]), column.dtype)
    wider[: len(column)] = column
    return wider


def check_features(values: Any, argument: str, dim: int, unit_length: bool) -> np.ndarray:
    """float32 ``(N, D)``, finite, L2-normalised if asked for; a new array unless nothing had to change."""
    if isinstance(values, Tensor):
        if not values.is_floating_point():
            raise TypeError(f"GalleryIndex: {argument} must be of a floating type, got {values.dtype}")
        given, values = values.data_ptr(), values.detach().float().cpu().numpy()
    elif isinstance(values, np.ndarray):
        given = values.ctypes.data
    else:
        raise TypeError(
            f"GalleryIndex: {argument} must be a numpy array or a torch.Tensor, got {type(values).__name__}"
        )
    if not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"GalleryIndex: {argument} must be of a floating type, got {values.dtype}")
    if values.ndim != 2 or values.shape[1] != dim:
        raise ValueError(f"GalleryIndex: {argument} must have shape (N, {dim}), got {values.shape}")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        features = np.ascontiguousarray(values, np.float32)
    ours = features.ctypes.data != given  # a copy already, which may be written to
    result = features if ours or not unit_length else np.empty_like(features)
    step = max(1, _CHECKED // dim)
    for first in range(0, len(features), step):
        rows = slice(first, first + step)
        _check_finite(features[rows], argument, first)
        if not unit_length:
            _check_lengths(features[rows], argument, first)
        else:
            result[rows] = _unit_length(features[rows], argument, first)
    return result


def _check_finite(features: np.ndarray, argument: str, first: int) -> None:
    finite = np.isfinite(features).all(1)
    if not finite.all():
        row = first + int(finite.argmin())
        raise ValueError(f"GalleryIndex: {argument} must be finite, but row {row} is not")


def _check_lengths(features: np.ndarray, argument: str, first: int) -> None:
    """That squared distances are finite in float32, whichever engine computes them."""
    squares = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    if squares.max(initial=0.0) > LARGEST_SQUARE:
        row = int((squares > LARGEST_SQUARE).argmax())
        raise ValueError(
            f"GalleryIndex: {argument} must have lengths up to {LARGEST_SQUARE**0.5:.3g} for their distances "
            f"to be finite, but row {first + row} has {squares[row] ** 0.5:.3g}"
        )


def _unit_length(features: np.ndarray, argument: str, first: int) -> np.ndarray:
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    if (lengths == 0).any():
        row = first + int((lengths == 0).argmax())
        raise ValueError(f"GalleryIndex: {argument} has no direction in row {row}, a vector of zeros")
    return features / lengths[:, None]


def check_integers(
    values: Any, argument: str, size: int | None = None, least: int | None = None
) -> np.ndarray:
    """int64 ``(size,)`` from a list, an array or a tensor of integers."""
    return _checks.integer_array(values, argument, "GalleryIndex", size, least)


def check_items(ids: Any, size: int) -> np.ndarray:
    """Identifiers of new items, int64 ``(size,)``; names are refused with what to do about them."""
    if not isinstance(ids, Tensor) and np.asarray(ids).dtype.kind in "OUST":
        raise TypeError(
            "GalleryIndex: ids must be integers, got names: number the items, as ids=range(len(names)), and "
            "find names again by names[ids]"
        )
    return check_integers(ids, "ids", size, 0)


def first_repeated(ids: np.ndarray) -> int | None:
    """An identifier that occurs twice, or None."""
    values, counts = np.unique(ids, return_counts=True)
    return int(values[counts > 1][0]) if (counts > 1).any() else None
