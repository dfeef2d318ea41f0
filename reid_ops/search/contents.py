"""What an index holds, and how it changes: the part of GalleryIndex that needs no search."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .approximate import Approximate
from .rows import NO_CAMERA, Rows, check_features, check_integers, check_items, first_repeated

_OP = "GalleryIndex"
REBUILD_DEAD = 0.25  # an index is put in order again when this share of its rows is dead


class Contents:
    """Adding, removing and changing items; every argument is checked before anything happens."""

    dim: int
    metric: str
    kind: str
    _rows: Rows
    _next_id: int
    _approximate: Approximate | None
    _placed: tuple[tuple[int, Tensor], ...]
    _mapped: bool

    def __len__(self) -> int:
        return self._rows.living

    @property
    def ids(self) -> np.ndarray:
        """Identifiers int64 ``(N,)``, in order of position."""
        return self._rows.ids[self._rows.alive]

    @property
    def cameras(self) -> np.ndarray:
        """Cameras int64 ``(N,)`` likewise, -1: unknown."""
        return self._rows.cameras[self._rows.alive]

    def features(self, ids: Any) -> np.ndarray:
        """Stored features float32 ``(n, D)`` of some identifiers; ValueError if one is unknown."""
        return np.array(self._rows.vectors[self._known(check_integers(ids, "ids"))])

    def add(self, features: Any, ids: Any = None, cameras: Any = None) -> np.ndarray:
        """Adds items; nothing is added if an argument is refused.

        Args:
            features: ``(n, D)``, numpy or torch, any floating type; kept as float32.
            ids: identifiers ``(n,)`` of the items, not of those on them: integers from 0, new and each once;
                None: running numbers. Keep names and identities beside the index, by identifier.
            cameras: ``(n,)``, integers from -1 (unknown); None: unknown.

        Returns:
            The identifiers, int64 ``(n,)``.
        """
        self._check_writable()
        vectors = check_features(features, "features", self.dim, self.metric == "cosine")
        size = len(vectors)
        if ids is None:
            if self._next_id + size > 2**63:
                raise ValueError(f"{_OP}: ids must be given: the running numbers end at 2**63 - 1")
            names = self._next_id + np.arange(size, dtype=np.int64)
        else:
            names = check_items(ids, size)
            repeated = first_repeated(names)
            if repeated is not None:
                raise ValueError(
                    f"{_OP}: ids must not repeat, but {repeated} does: they are of items, such as images; "
                    "identities are kept beside the index, as in identities[ids]"
                )
            there = self._rows.find(names) >= 0
            if there.any():
                raise ValueError(f"{_OP}: id {names[there.argmax()]} is in the index already; use update")
        seen = self._check_cameras(cameras, size)
        self._rows.append(vectors, names, np.full(size, NO_CAMERA) if seen is None else seen)
        self._next_id = max(self._next_id, int(names.max(initial=-1)) + 1)
        if self._approximate is not None:
            self._approximate.add(vectors)
        self._placed = ()
        return names

    def remove(self, ids: Any) -> None:
        """Removes items by identifier; nothing is removed if one is unknown or named twice."""
        self._check_writable()
        slots = self._known(check_integers(ids, "ids"))
        self._rows.kill(slots)
        if self.kind == "flat" and self._rows.dead > REBUILD_DEAD * self._rows.count:
            self._rows = self._rows.compacted()
            self._placed = ()

    def update(self, ids: Any, features: Any, cameras: Any = None) -> None:
        """Gives known items new features ``(n, D)`` and, unless None, new cameras ``(n,)``."""
        self._check_writable()
        names = check_integers(ids, "ids")
        slots = self._known(names)
        vectors = check_features(features, "features", self.dim, self.metric == "cosine")
        if len(vectors) != len(names):
            raise ValueError(f"{_OP}: features must have {len(names)} rows, as ids, got {len(vectors)}")
        seen = self._check_cameras(cameras, len(names))
        if self.kind == "flat":
            self._rows.overwrite(slots, vectors, seen)
        else:  # what faiss has stored can't be changed
            kept = self._rows.cameras[slots] if seen is None else seen
            self._rows.kill(slots)
            self._rows.append(vectors, names, kept)
            if self._approximate is not None:
                self._approximate.add(vectors)
        self._placed = ()

    def _allowed(self, rows: Rows, only: Any, exclude: Any) -> np.ndarray | None:
        if only is None and exclude is None and rows.dead == 0:
            return None
        allowed = rows.alive.copy()
        if only is not None:
            chosen = np.zeros_like(allowed)
            chosen[self._known(np.unique(check_integers(only, "only")), "only", rows)] = True
            allowed &= chosen
        if exclude is not None:
            slots = rows.find(check_integers(exclude, "exclude"))
            allowed[slots[slots >= 0]] = False
        return allowed

    def _known(self, names: np.ndarray, argument: str = "ids", rows: Rows | None = None) -> np.ndarray:
        repeated = first_repeated(names)
        if repeated is not None:
            raise ValueError(f"{_OP}: {argument} must not repeat, but {repeated} does")
        slots = (self._rows if rows is None else rows).find(names)
        if (slots < 0).any():
            unknown = names[(slots < 0).argmax()]
            raise ValueError(f"{_OP}: {argument} must be in the index, but {unknown} is not")
        return slots

    def _check_cameras(self, cameras: Any, size: int) -> np.ndarray | None:
        return None if cameras is None else check_integers(cameras, "cameras", size, NO_CAMERA)

    def _check_writable(self) -> None:
        if self._mapped:
            raise RuntimeError(f"{_OP}: an index loaded with mmap=True is read-only")
