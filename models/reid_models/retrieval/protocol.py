"""What counts in retrieval: junk, cameras, a dataset's draws, single-shot. Said here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops.metrics import (
    RankingReport,
    SingleShotReport,
    evaluate_features,
    evaluate_ranking,
    single_shot_cmc,
)

from ..data.records import JUNK, UNKNOWN_CAMERA, ImageRecord, ReidDataset, have_positive
from .features import Features
from .labels import Names

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Protocol:
    """How rankings are measured. Items of identity -1 are junk: neither right nor wrong.

    Attributes:
        same_camera_is_junk: leave items of a query's identity and camera out, as most datasets do.
        average_precision: see :func:`reid_ops.metrics.evaluate_ranking`.
        ranks: where CMC is reported.
        exclude_self: leave each query's own image, the one of its name, out of its ranking.
    """

    same_camera_is_junk: bool = True
    average_precision: str = "mean_precision"
    ranks: tuple[int, ...] = RANKS
    exclude_self: bool = False

    def measure(
        self,
        query: Features,
        gallery: Features,
        codes: tuple[Tensor, Tensor],
        distances: Callable[[Tensor, Tensor], Tensor],
    ) -> RankingReport:
        """CMC, mAP and mINP; distances are made and used a block of queries at a time.

        Args:
            query: whose labels count.
            gallery: likewise.
            codes: what is compared, (Q, D) and (G, D), rows as in ``query`` and ``gallery``.
            distances: of a block of queries' codes to all of the gallery's, (B, G), smaller is nearer.

        Raises:
            TypeError, ValueError: as :func:`reid_ops.metrics.evaluate_features`.
        """
        own = self._own_rows(query, gallery)
        labels = _labels(query, gallery)
        return evaluate_features(*codes, *labels, metric=distances, exclude_self=own, **self._options)

    def measure_distances(self, query: Features, gallery: Features, distance: Tensor) -> RankingReport:
        """The same of distances (Q, G) that are there already."""
        own = self._own_rows(query, gallery)
        return evaluate_ranking(distance, *_labels(query, gallery), exclude_self=own, **self._options)

    def measure_single_shot(
        self, query: Features, gallery: Features, distance: Tensor, *, repeats: int = 100, seed: int = 0
    ) -> SingleShotReport:
        """CMC where one gallery image of each identity is drawn, ``repeats`` times, from distances (Q, G).

        Raises:
            TypeError, ValueError: as :func:`reid_ops.metrics.single_shot_cmc`.
        """
        labels = _labels(query, gallery)
        return single_shot_cmc(
            distance,
            *labels,
            ranks=self.ranks,
            repeats=repeats,
            seed=seed,
            exclude_self=self._own_rows(query, gallery),
            **self._removal,
        )

    def measure_lists(self, query: Features, gallery: Features, rows: Tensor) -> float:
        """Share of queries with a positive that have one in their lists, gallery rows (Q, K)."""
        found = []
        identities, cameras = gallery.identities.numpy(), gallery.cameras.numpy()
        own = self._own_rows(query, gallery)
        for place, (identity, camera) in enumerate(zip(query.identities, query.cameras, strict=True)):
            probe = ImageRecord("", int(identity), int(camera))
            right = self.counts(probe, identities, cameras) & (identities == probe.identity)
            if own is not None and own[place] >= 0:
                right[own[place]] = False
            if probe.identity != JUNK and right.any():
                found.append(bool(right[rows[place].numpy()].any()))
        return sum(found) / max(1, len(found))

    def counts(self, probe: ImageRecord, identities: np.ndarray, cameras: np.ndarray) -> np.ndarray:
        """Which of the items, whose identities and cameras are given, count for a query: bool, alike.

        The query's own image, if that is to be left out, is not looked for here.
        """
        kept: np.ndarray = identities != JUNK
        if self.same_camera_is_junk and probe.camera != UNKNOWN_CAMERA:
            kept &= (identities != probe.identity) | (cameras != probe.camera)
        return kept

    def has_positive(self, query: Features, gallery: Features) -> bool:
        """Whether any query has an image of its identity in the gallery that counts."""
        asked, items = _records(query), _records(gallery)
        return any(have_positive(asked, items, self.same_camera_is_junk, self.exclude_self))

    def _own_rows(self, query: Features, gallery: Features) -> np.ndarray | None:
        """The gallery row of each query's own image, -1 for none; None where it is not left out."""
        if not self.exclude_self:
            return None
        places = {name: row for row, name in enumerate(gallery.paths)}
        return np.array([places.get(name, -1) for name in query.paths], dtype=np.int64)

    @property
    def _removal(self) -> dict[str, Any]:
        return {"junk_id": JUNK, "camera_rule": "same_identity" if self.same_camera_is_junk else "none"}

    @property
    def _options(self) -> dict[str, Any]:
        return {**self._removal, "ranks": self.ranks, "average_precision": self.average_precision}


def draw_images(dataset: ReidDataset) -> tuple[ImageRecord, ...]:
    """Every image of a dataset's draws once: one that several draws share is looked at once."""
    draws = dataset.draws
    return tuple(
        dict.fromkeys(record for draw in draws for part in (draw.query, draw.gallery) for record in part)
    )


def draw_features(dataset: ReidDataset, features: Features) -> Iterator[tuple[Features, Features]]:
    """Each draw's features of (query, gallery), from those of :func:`draw_images`, in its order."""
    places = {record: row for row, record in enumerate(draw_images(dataset))}
    for draw in dataset.draws:
        query, gallery = ([places[record] for record in part] for part in (draw.query, draw.gallery))
        yield features.rows(query), features.rows(gallery)


def label_features(features: Tensor, records: Sequence[ImageRecord]) -> Features:
    """Features (N, D), wherever they are, with the labels and names of their images."""
    return Features(
        features,
        torch.tensor([record.identity for record in records], dtype=torch.int64),
        torch.tensor([record.camera for record in records], dtype=torch.int64),
        [record.name for record in records],
        names=Names.of(records),
    )


def _records(features: Features) -> list[ImageRecord]:
    labels = features.identities.tolist(), features.cameras.tolist()
    return [ImageRecord(*image) for image in zip(features.paths, *labels, strict=True)]


def _labels(query: Features, gallery: Features) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return query.identities, gallery.identities, query.cameras, gallery.cameras
