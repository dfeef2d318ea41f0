"""Batches of pairs for networks that compare images (CSN, section 4: two negatives to a positive)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import TrainSampler


class PairSampler(TrainSampler):
    """Interleaved images: an anchor, a positive, then negatives; the anchor makes a pair with each of them.

    In an epoch every image that has another of its identity is an anchor once, in random order. Its positive
    is drawn from the other images of its identity, its negatives from those of other identities. Anchors
    that no longer make a batch are left out. Epochs, processes and resuming: :class:`TrainSampler`.

    Args:
        identities: identity of every image, by index in the dataset (:attr:`ImageDataset.identities`).
        anchors_per_batch: of the joint batch of all processes; a multiple of ``world_size``. The batch has
            ``anchors_per_batch * (2 + negatives)`` images and ``anchors_per_batch * (1 + negatives)`` pairs.
        negatives: to each anchor, at least 1.
        **processes: ``seed``, ``rank`` and ``world_size`` of :class:`TrainSampler`.

    Attributes:
        pairs: int64 (B, 2), rows of this process's batch: [anchor, positive], then [anchor, negative].

    Raises:
        TypeError, ValueError: an argument is out of range, there is one identity, or fewer images than
            ``anchors_per_batch`` have another of their identity.

    Example:
        >>> sampler = PairSampler(images.identities, anchors_per_batch=2, negatives=2)
        >>> sampler.pairs.tolist()
        [[0, 1], [0, 2], [0, 3], [4, 5], [4, 6], [4, 7]]
    """

    def __init__(
        self, identities: Sequence[int], *, anchors_per_batch: int = 32, negatives: int = 2, **processes: Any
    ) -> None:
        self.check_integer(anchors_per_batch, "anchors_per_batch", 1)
        self.check_integer(negatives, "negatives", 1)
        settings = {"anchors_per_batch": anchors_per_batch, "negatives": negatives}
        size = 2 + negatives
        super().__init__(len(identities), anchors_per_batch, size, "anchors_per_batch", settings, **processes)
        _, self._owner = np.unique(np.asarray(identities, dtype=np.int64), return_inverse=True)
        self._counts = np.bincount(self._owner)
        if len(self._counts) < 2:
            raise ValueError(
                f"PairSampler: identities must be at least two for negative pairs, got {len(self._counts)}"
            )
        self._anchors = np.flatnonzero(self._counts[self._owner] > 1)
        if len(self._anchors) < anchors_per_batch:
            raise ValueError(
                f"PairSampler: at least anchors_per_batch ({anchors_per_batch}) images must have another of "
                f"their identity, got {len(self._anchors)} of {len(identities)} images"
            )
        # Indices of images, sorted by identity: those of identity i are _indices[_starts[i] : ...].
        self._indices = np.argsort(self._owner, kind="stable")
        self._starts = np.cumsum(self._counts) - self._counts
        self._place = np.empty_like(self._indices)
        self._place[self._indices] = np.arange(len(self._indices))
        self.anchors_per_batch, self.negatives = anchors_per_batch, negatives
        first = np.arange(anchors_per_batch // self.world_size)[:, None] * size
        others = first + np.arange(1, size)
        self.pairs = np.stack([np.broadcast_to(first, others.shape), others], axis=2).reshape(-1, 2)

    def make_batches(self, random: np.random.Generator) -> np.ndarray:
        """All batches (batches, anchors_per_batch, 2 + negatives)."""
        whole = len(self._anchors) // self.anchors_per_batch
        anchors = random.permutation(self._anchors)[: whole * self.anchors_per_batch]
        owner = self._owner[anchors]
        start, count = self._starts[owner], self._counts[owner]
        # Counted on from the anchor, round its identity's images: never the anchor itself.
        step = random.integers(1, count)
        positive = self._indices[start + (self._place[anchors] - start + step) % count]
        # Images of other identities, by their number without those of the anchor's identity.
        number = random.integers(0, (self.images - count)[:, None], size=(len(anchors), self.negatives))
        negative = self._indices[np.where(number < start[:, None], number, number + count[:, None])]
        rows = np.concatenate([anchors[:, None], positive[:, None], negative], axis=1)
        return rows.reshape(whole, self.anchors_per_batch, 2 + self.negatives)
