"""faiss's serialised indexes, walked before faiss reads them: sizes, positions and links that fit together.

faiss takes memory for whatever a file claims, and hands out whatever positions its lists hold. Of its layouts
(faiss/impl/index_write.cpp) these are the three that :mod:`.approximate` writes. Nothing is copied: stored
vectors are passed over, so the walk of a mapped file reads the lists of positions and links alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_INNER_PRODUCT, _L2 = 0, 1  # faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
_FLAT = {_INNER_PRODUCT: b"IxFI", _L2: b"IxF2"}


class LayoutError(ValueError):
    """What of a serialised index can't be, without a file's name."""


def check(content: memoryview, kind: str, metric: str, dim: int, count: int) -> None:
    """Raises :class:`LayoutError` unless this is an index of so many items that faiss can search.

    Args:
        content: what ``faiss.write_index`` wrote.
        kind: ``"ivf"``, ``"ivfpq"`` or ``"hnsw"``.
        metric: ``"cosine"`` or ``"euclidean"``.
        dim: length of the vectors.
        count: items; their positions are 0 to count - 1.
    """
    walk = _Walk(content, _INNER_PRODUCT if metric == "cosine" else _L2, dim, count)
    layouts: dict[str, Callable[[_Walk], None]] = {"ivf": _ivf, "ivfpq": _ivfpq, "hnsw": _hnsw}
    layouts[kind](walk)
    walk.expect("bytes behind its end", len(content) - walk.at, 0)


class _Walk:
    """A place in a serialised index."""

    def __init__(self, content: memoryview, metric: int, dim: int, count: int) -> None:
        self.content, self.metric, self.dim, self.count = content, metric, dim, count
        self.at = 0

    def expect(self, what: str, found: object, *expected: object) -> None:
        if found not in expected:
            wanted = " or ".join(map(str, expected))
            raise LayoutError(f"{what} must be {wanted}, got {found}")

    def array(self, what: str, dtype: str, size: int) -> np.ndarray:
        length = size * np.dtype(dtype).itemsize
        if not 0 <= length <= len(self.content) - self.at:
            raise LayoutError(f"{what} must be in the {len(self.content) - self.at} bytes left, got {length}")
        found = np.frombuffer(self.content, dtype, size, self.at)
        self.at += length
        return found

    def number(self, what: str, dtype: str = "<u8") -> int:
        return int(self.array(what, dtype, 1)[0])

    def vector(self, what: str, dtype: str, *sizes: int, unit: int = 1) -> np.ndarray:
        """An array behind its own size in so many bytes each; one of the sizes, if any are given."""
        size = self.number(f"size of {what}")
        if sizes:
            self.expect(f"size of {what}", size, *sizes)
        return self.array(what, dtype, size * unit)

    def name(self, *expected: bytes) -> bytes:
        found = self.array("a name", "u1", 4).tobytes()
        self.expect("a name", found, *expected)
        return found

    def header(self, name: bytes, count: int) -> None:
        """What every index begins with."""
        self.name(name)
        self.expect("dimension", self.number("dimension", "<i4"), self.dim)
        self.expect("number of items", self.number("number of items", "<i8"), count)
        self.array("what is not used", "<i8", 2)
        self.expect("is_trained", self.number("is_trained", "u1"), 1)
        self.expect("metric", self.number("metric", "<i4"), self.metric)

    def flat(self, count: int) -> None:
        """An IndexFlat of so many vectors."""
        self.header(_FLAT[self.metric], count)
        self.vector("vectors", "u1", count * self.dim, unit=4)

    def lists(self, nlist: int, code_size: int) -> None:
        """Inverted lists, in which every position is once."""
        self.name(b"ilar")
        self.expect("number of lists", self.number("number of lists"), nlist)
        self.expect("bytes of a code", self.number("bytes of a code"), code_size)
        if self.name(b"full", b"sprs") == b"full":
            sizes = self.vector("lists' sizes", "<u8", nlist)
        else:
            pairs = self.vector("lists' sizes", "<u8").reshape(-1, 2) if self._is_even() else None
            if pairs is None or not (pairs[:, 0] < nlist).all():
                raise LayoutError(f"lists must be below {nlist}")
            self.expect("every list once", (np.diff(pairs[:, 0].astype(np.int64)) > 0).all(), np.True_)
            sizes = pairs[:, 1]
        there = np.zeros(self.count, bool)
        for size in sizes[sizes > 0].tolist():
            self.array("a list's codes", "u1", size * code_size)
            positions = self.array("a list's positions", "<i8", size)
            if positions.min() < 0 or positions.max() >= self.count:
                raise LayoutError(f"positions must be from 0 to {self.count - 1}")
            there[positions] = True
        self.expect("positions in its lists", (int(sizes.sum()), int(there.sum())), (self.count, self.count))

    def _is_even(self) -> bool:
        place = self.at
        size = self.number("size of lists' sizes")
        self.at = place
        return size % 2 == 0


def _coarse(walk: _Walk, name: bytes) -> int:
    """What both kinds of inverted lists begin with; the number of lists."""
    walk.header(name, walk.count)
    nlist = walk.number("number of lists")
    if not 1 <= nlist <= max(1, walk.count):
        raise LayoutError(f"number of lists must be from 1 to the number of items, got {nlist}")
    walk.number("nprobe")  # every search brings its own
    walk.flat(nlist)
    walk.expect("direct map", walk.number("direct map", "u1"), 0)
    walk.vector("direct map", "<i8", 0)
    return nlist


def _ivf(walk: _Walk) -> None:
    walk.lists(_coarse(walk, b"IwFl"), 4 * walk.dim)


def _ivfpq(walk: _Walk) -> None:
    nlist = _coarse(walk, b"IwPQ")
    walk.expect("by_residual", walk.number("by_residual", "u1"), 0, 1)
    code_size = walk.number("bytes of a code")
    walk.expect("dimension", walk.number("dimension"), walk.dim)
    parts, bits = walk.number("parts"), walk.number("bits of a part")
    if parts < 1 or walk.dim % parts or bits not in (4, 8):
        raise LayoutError(f"parts must divide {walk.dim} and have 4 or 8 bits, got {parts} of {bits}")
    walk.expect("bytes of a code", code_size, (parts * bits + 7) // 8)
    walk.vector("centroids", "<f4", walk.dim << bits)
    walk.lists(nlist, code_size)


def _hnsw(walk: _Walk) -> None:
    count = walk.count
    walk.header(b"IHNf", count)
    walk.vector("probabilities of levels", "<f8")
    widths = walk.vector("links up to a level", "<i4").astype(np.int64)  # all levels below
    levels = walk.vector("levels", "<i4", count).astype(np.int64)  # from 1
    offsets = walk.vector("offsets", "<u8", count + 1)
    neighbours = walk.vector("links", "<i4")
    entry, highest = walk.number("entry", "<i4"), walk.number("highest level", "<i4")
    walk.array("effort and beam", "<i4", 3)  # every search brings its own
    walk.flat(count)
    if len(widths) < 2 or widths[0] != 0 or (np.diff(widths) < 0).any():
        raise LayoutError("links up to a level must ascend from 0")
    if levels.min(initial=1) < 1 or levels.max(initial=1) >= len(widths):
        raise LayoutError(f"levels must be from 1 to {len(widths) - 1}")
    expected = np.concatenate([[0], np.cumsum(widths[levels])])
    walk.expect("offsets that follow from levels", bool((offsets == expected.astype(np.uint64)).all()), True)
    walk.expect("number of links", len(neighbours), int(expected[-1]))
    if not 0 <= entry < count or highest != levels[entry] - 1 or highest != levels.max() - 1:
        raise LayoutError(f"the entry must be an item of the highest level, got {entry} and {highest}")
    if neighbours.min(initial=-1) < -1 or neighbours.max(initial=-1) >= count:
        raise LayoutError(f"links must be from -1 to {count - 1}")
    for level in range(1, highest + 1):  # an item linked to on a level must have that level
        above = np.flatnonzero(levels > level)
        starts, width = expected[above] + widths[level], int(widths[level + 1] - widths[level])
        linked = neighbours[starts[:, None] + np.arange(width)]
        if (levels[linked[linked >= 0]] <= level).any():
            raise LayoutError(f"links on level {level} must lead to items of that level")
