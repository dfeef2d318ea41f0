"""P x K batches: P identities with K images each (HSGNet, section IV-B: 32 x 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import TrainSampler


class IdentitySampler(TrainSampler):
    """Batches of P identities with K images each.

    In an epoch the images of every identity are shuffled and cut into groups of K; a batch is P groups of P
    different identities. An identity with fewer than K images gives one group with repetitions; otherwise
    what is left over when K does not divide is left out, as are the groups that no longer make a batch.
    Other images are left out the next time. Epochs, processes and resuming: :class:`TrainSampler`.

    Args:
        identities: identity of every image, by index in the dataset (:attr:`ImageDataset.identities`).
        identities_per_batch: P, of the joint batch of all processes; a multiple of ``world_size``.
        images_per_identity: K, at least 2: with one image there is no positive pair.
        **processes: ``seed``, ``rank`` and ``world_size`` of :class:`TrainSampler`.

    Raises:
        TypeError, ValueError: an argument is out of range, there are fewer identities than P, or no identity
            has two images.

    Example:
        >>> sampler = IdentitySampler(images.identities, identities_per_batch=32, images_per_identity=4)
        >>> loader = torch.utils.data.DataLoader(images, batch_sampler=sampler)
        >>> for epoch in range(120):
        ...     sampler.set_epoch(epoch)
        ...     for image, identity, camera in loader:
        ...         ...
    """

    def __init__(
        self,
        identities: Sequence[int],
        *,
        identities_per_batch: int = 32,
        images_per_identity: int = 4,
        **processes: Any,
    ) -> None:
        self.check_integer(identities_per_batch, "identities_per_batch", 1)
        self.check_integer(images_per_identity, "images_per_identity", 2)
        settings = {"identities_per_batch": identities_per_batch, "images_per_identity": images_per_identity}
        super().__init__(
            len(identities),
            identities_per_batch,
            images_per_identity,
            "identities_per_batch",
            settings,
            **processes,
        )
        _, owner = np.unique(np.asarray(identities, dtype=np.int64), return_inverse=True)
        counts = np.bincount(owner)
        if len(counts) < identities_per_batch:
            raise ValueError(
                f"IdentitySampler: identities must be at least identities_per_batch ({identities_per_batch}) "
                f"different ones, got {len(counts)}"
            )
        if counts.max() < 2:
            raise ValueError(
                "IdentitySampler: identities must have one with two images or more, got one image of each: "
                "there are no positive pairs"
            )
        # Indices of images, sorted by identity: those of identity i end at _ends[i].
        self._indices = np.argsort(owner, kind="stable")
        self._ends = np.cumsum(counts)
        self.identities_per_batch, self.images_per_identity = identities_per_batch, images_per_identity

    def make_batches(self, random: np.random.Generator) -> list[np.ndarray]:
        """Batches (P, K)."""
        groups = [self._groups(images, random) for images in np.split(self._indices, self._ends[:-1])]
        left = np.array([len(group) for group in groups])
        batches = []
        while (left > 0).sum() >= self.identities_per_batch:
            # Identities drawn without replacement, in proportion to the groups left, so that few stay behind.
            waits = random.exponential(size=len(left))
            waits = np.divide(waits, left, out=np.full(len(left), np.inf), where=left > 0)
            chosen = np.argsort(waits, kind="stable")[: self.identities_per_batch]
            left[chosen] -= 1
            batches.append(np.stack([groups[identity][left[identity]] for identity in chosen]))
        return batches

    def _groups(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """An identity's images as rows of K."""
        size = self.images_per_identity
        shuffled = random.permutation(images)
        if len(shuffled) < size:
            return np.resize(shuffled, (1, size))
        return shuffled[: len(shuffled) // size * size].reshape(-1, size)
