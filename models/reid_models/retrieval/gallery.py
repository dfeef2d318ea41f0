"""Galleries to search: an index, the names of its images, and whose features they are, in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_ops import GalleryIndex
from reid_ops.search import RecallReport

from ..data.records import ImageRecord, split_name
from .alignment import Alignment
from .features import ROWS, Features, Source, check_comparable, decode_paths, encode_paths
from .labels import UNKNOWN, Names
from .matches import drop_rows, own_rows

NAMES, IDENTITIES, SOURCE = "reid_models paths", "reid_models identities", "reid_models source"
CALLED, HOME = "reid_models names", "reid_models folder"
HERE = f".{os.sep}"  # begins the paths in a file that are relative to its folder


@dataclass(frozen=True)
class Gallery:
    """A searchable gallery.

    Attributes:
        index: its identifiers are rows of what follows.
        paths: names of the images.
        identities: int64 (N,), -1: not known.
        source: what the features come from; None: not known.
        names: the user's own names of identities and cameras.
        moved: the folder that the file is in and the one that it was written in, absolute, where they differ.
    """

    index: GalleryIndex
    paths: Sequence[str]
    identities: np.ndarray
    source: Source | None
    names: Names = field(default_factory=Names)
    moved: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        known = len({*self.identities.tolist()} - {-1})
        whom = f"of {known} identities" if known else "of unknown identities"
        return f"<Gallery of {len(self)} images {whom}: {self.index!r}>"

    @staticmethod
    def build(
        parts: Iterable[Features],
        *,
        kind: str = "flat",
        metric: str = "cosine",
        recall: float = 0.99,
        device: str = "auto",
    ) -> tuple[Gallery, RecallReport | None]:
        """A gallery of features, and for approximate kinds what its search is worth.

        Args:
            parts: features of one model; each is let go before the next is asked for.
            kind: as in :class:`reid_ops.GalleryIndex`, like the rest.
            metric: as there.
            recall: as there.
            device: as there.

        Raises:
            ValueError: no features, features of different models, or as there.
        """
        index: GalleryIndex | None = None
        first: Features | None = None
        paths: list[str] = []
        identities: list[np.ndarray] = []
        labels = Alignment()
        for part in map(labels.add, parts):
            if index is None or first is None:
                first = part.rows([])  # what is to be compared, without the features
                index = GalleryIndex(part.dim, metric=metric, kind=kind, recall=recall, device=device)
            check_comparable(part, first, "index")
            # In blocks: what adding needs besides is then of a block, not of all.
            for features, cameras in zip(part.features.split(ROWS), part.cameras.split(ROWS), strict=True):
                index.add(features, cameras=cameras)
            paths += part.paths
            identities.append(part.identities.numpy())
            del part, features, cameras  # or two parts would be in memory
        if index is None or first is None or not paths:
            raise ValueError("index: there must be at least one image, got none")
        report = index.build()
        return Gallery(index, paths, np.concatenate(identities), first.source, labels.names), report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, a :class:`reid_ops.GalleryIndex` with the names attached, in one step.

        Paths that are relative and there are written relative to the file's folder, others as they are.
        """
        home = os.path.dirname(os.path.abspath(path))
        self.index.attachments |= {
            NAMES: encode_paths([_to_file(name, home) for name in self.paths]).numpy().tobytes(),
            CALLED: self.names.to_json().encode(),
            HOME: os.fsencode(home),
            IDENTITIES: self.identities.astype("<i8").tobytes(),
            SOURCE: b"" if self.source is None else self.source.to_json().encode(),
        }
        self.index.save(path)

    @staticmethod
    def load(path: str | os.PathLike[str], **options: Any) -> Gallery:
        """Reads a file of :meth:`save`; the options are those of ``GalleryIndex.load``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged or another one.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"index must be a file, got {path}")
        index = GalleryIndex.load(path, **options)
        attached = index.attachments
        if not {NAMES, IDENTITIES, SOURCE} <= set(attached):
            raise ValueError(f"{path} is an index without names of images: make it with `reid index`")
        written = decode_paths(torch.frombuffer(bytearray(attached[NAMES]), dtype=torch.uint8))
        folder = os.path.dirname(os.fspath(path))
        paths = [_from_file(name, folder) for name in written]
        identities = np.frombuffer(attached[IDENTITIES], "<i8")
        if len(paths) != len(identities):
            raise ValueError(f"{path} is damaged: {len(paths)} names with {len(identities)} identities")
        if not np.array_equal(index.ids, np.arange(len(paths))):
            raise ValueError(
                f"{path} was changed by other means than `reid index`: the identifiers of its {len(index)} "
                f"items are not the numbers of its {len(paths)} names"
            )
        text = attached[SOURCE].decode()
        source = Source.from_json(text) if text else None
        names = Names.from_json(attached[CALLED].decode()) if CALLED in attached else Names()
        home, now = os.fsdecode(attached.get(HOME, b"")), os.path.abspath(folder)
        moved = (now, home) if home and home != now else None
        return Gallery(index, paths, identities, source, names, moved)

    def record(self, row: int) -> ImageRecord:
        """The image of a row, at the place where it is now, with what is known of it."""
        return self.names.record(self.locate(row), int(self.identities[row]), int(self.cameras[row]))

    @cached_property
    def cameras(self) -> np.ndarray:
        """int64 (N,), -1: not known."""
        return self.index.cameras

    def locate(self, row: int) -> str:
        """The name of the image of a row. One that went with the index to another folder is found there."""
        name = self.paths[row]
        path, _ = split_name(name)
        if self.moved is None or not os.path.isabs(path) or os.path.exists(path):
            return name
        now, home = self.moved
        there = os.path.normpath(os.path.join(now, os.path.relpath(path, home)))
        return there + name[len(path) :] if os.path.exists(there) else name

    def search(
        self,
        query: Features,
        k: int,
        *,
        rerank: Mapping[str, Any] | None = None,
        other_cameras: bool = False,
        own: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best images of each query: scores (Q, k) and rows (Q, k), NaN and -1 where there are fewer.

        Args:
            query: features of the gallery's model.
            k: from 1.
            rerank: options of :meth:`reid_ops.GalleryIndex.rerank`, which re-ranks each query's candidates;
                scores are then distances. None: scores are those of the index.
            other_cameras: leave images of the query's own camera out, where it is known.
            own: int64 (Q,), each query's own row, which is left out, -1 for none; see :meth:`own_rows`.

        Raises:
            TypeError, ValueError: features of another model or length, or as ``GalleryIndex.search``.
        """
        self.check(query)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        cameras = query.cameras.numpy() if other_cameras else None
        vectors = query.features.float().numpy()
        inside = np.zeros(len(query), bool) if own is None else own >= 0
        if rerank is None:
            # One more than asked for: a query's own image is among the nearest, or not at all.
            scores, rows = self.index.search(vectors, k + int(inside.any()), cameras=cameras)
            return (scores, rows) if own is None else drop_rows(scores, rows, own, k)
        width = min(k, len(self))
        scores = np.full((len(query), width), np.nan, np.float32)
        rows = np.full((len(query), width), -1, np.int64)
        groups: list[tuple[np.ndarray, list[int] | None]] = [(np.flatnonzero(~inside), None)]
        if own is not None:  # each by itself: what is left out is another image for each
            groups += [(np.array([row]), [int(own[row])]) for row in np.flatnonzero(inside)]
        for group, exclude in groups:
            if len(group):
                seen = None if cameras is None else cameras[group]
                found = self.index.rerank(vectors[group], k, cameras=seen, exclude=exclude, **rerank)
                scores[group], rows[group] = found
        return scores, rows

    def own_rows(self, query: Features) -> np.ndarray:
        """The row int64 (Q,) of each query's own image, -1 where it is not in the gallery."""
        return own_rows(query.paths, self.paths, self.locate)

    def align(self, query: Features, own: np.ndarray | None = None) -> Features:
        """The query with labels in the gallery's numbering; with those of its own row where it has none."""
        common = Alignment()
        empty = torch.empty(len(self), 1)
        cameras = torch.from_numpy(self.cameras)
        labels = torch.from_numpy(np.array(self.identities)), cameras
        common.add(Features(empty, *labels, self.paths, names=self.names))
        query = common.add(query)
        if own is None:
            return query
        row = np.maximum(own, 0)

        def known(given: torch.Tensor, here: np.ndarray) -> torch.Tensor:
            mine = given.numpy()
            return torch.from_numpy(np.where((mine == UNKNOWN) & (own >= 0), here[row], mine))

        identities, cameras = known(query.identities, self.identities), known(query.cameras, self.cameras)
        return replace(query, identities=identities, cameras=cameras)

    def check(self, query: Features) -> None:
        """Raises ``ValueError`` for features of another model or length."""
        dim = self.index.dim
        if query.dim != dim:
            raise ValueError(f"the index holds features of length {dim}, but the query's have {query.dim}")
        if query.source is not None and self.source is not None:
            difference = self.source.difference(query.source)
            if difference is not None:
                raise ValueError(
                    f"the index and the query must be of one model, given images in one way; they have "
                    f"{difference}"
                )


def _to_file(name: str, home: str) -> str:
    """A name as a file in the folder ``home`` has it."""
    path, _ = split_name(name)
    if os.path.isabs(path) or not os.path.exists(path):
        return name
    return f"{HERE}{os.path.relpath(path, home)}{name[len(path) :]}"


def _from_file(name: str, folder: str) -> str:
    """The inverse of :func:`_to_file`, relative to the working folder as ``folder`` is."""
    return os.path.normpath(os.path.join(folder, name)) if name.startswith(HERE) else name
