"""Galleries to search: an index, the names of its images, and whose features they are, in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_ops import GalleryIndex
from reid_ops.search import RecallReport

from .features import ROWS, Features, Source, check_comparable, decode_paths, encode_paths

NAMES, IDENTITIES, SOURCE = "reid_models paths", "reid_models identities", "reid_models source"


@dataclass(frozen=True)
class Gallery:
    """A searchable gallery.

    Attributes:
        index: its identifiers are rows of what follows.
        paths: names of the images.
        identities: int64 (N,), -1: not known.
        source: what the features come from; None: not known.
    """

    index: GalleryIndex
    paths: Sequence[str]
    identities: np.ndarray
    source: Source | None

    def __len__(self) -> int:
        return len(self.index)

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
        for part in parts:
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
        return Gallery(index, paths, np.concatenate(identities), first.source), report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, a :class:`reid_ops.GalleryIndex` with the names attached, in one step."""
        self.index.attachments |= {
            NAMES: encode_paths(self.paths).numpy().tobytes(),
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
        paths = decode_paths(torch.frombuffer(bytearray(attached[NAMES]), dtype=torch.uint8))
        identities = np.frombuffer(attached[IDENTITIES], "<i8")
        if len(paths) != len(identities):
            raise ValueError(f"{path} is damaged: {len(paths)} names with {len(identities)} identities")
        if not np.array_equal(index.ids, np.arange(len(paths))):
            raise ValueError(
                f"{path} was changed by other means than `reid index`: the identifiers of its {len(index)} "
                f"items are not the numbers of its {len(paths)} names"
            )
        text = attached[SOURCE].decode()
        return Gallery(index, paths, identities, Source.from_json(text) if text else None)

    def search(
        self,
        query: Features,
        k: int,
        *,
        rerank: Mapping[str, Any] | None = None,
        other_cameras: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best images of each query: scores (Q, k) and rows (Q, k), NaN and -1 where there are fewer.

        Args:
            query: features of the gallery's model.
            k: from 1.
            rerank: options of :meth:`reid_ops.GalleryIndex.rerank`, which re-ranks each query's candidates;
                scores are then distances. None: scores are those of the index.
            other_cameras: leave images of the query's own camera out, where it is known.

        Raises:
            TypeError, ValueError: features of another model or length, or as ``GalleryIndex.search``.
        """
        self.check(query)
        cameras = query.cameras.numpy() if other_cameras else None
        vectors = query.features.float().numpy()
        if rerank is not None:
            return self.index.rerank(vectors, k, cameras=cameras, **rerank)
        return self.index.search(vectors, k, cameras=cameras)

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
