"""P x K batches whose shape follows the data: :class:`FittedSampler`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .identity import IdentitySampler


class FittedSampler(IdentitySampler):
    """As :class:`IdentitySampler`, for sets of any size: a batch has no more identities than there are.

    Identities are cut into groups of K as there, and every group is used in every epoch: where too few
    identities have groups left for a batch, others give some of theirs again. An epoch has at least
    ``least_batches``: a set too small for them is gone through several times, in another order each.

    Args:
        identities: identity of every image, by index in the dataset (:attr:`ImageDataset.identities`).
        identities_per_batch: P at most, of the joint batch of all processes.
        images_per_identity: K at most, at least 2; less where no identity has so many images.
        least_batches: of an epoch, at least 1.
        **processes: ``seed``, ``rank`` and ``world_size`` of :class:`TrainSampler`.

    Raises:
        TypeError, ValueError: an argument is out of range, there are fewer than two identities or fewer than
            processes, or no identity has two images.

    Example:
        >>> FittedSampler([0, 0, 0, 1, 1, 2, 2, 2]).identities_per_batch
        3
    """

    def __init__(
        self,
        identities: Sequence[int],
        *,
        identities_per_batch: int = 16,
        images_per_identity: int = 4,
        least_batches: int = 1,
        **processes: Any,
    ) -> None:
        self.check_integer(identities_per_batch, "identities_per_batch", 2)
        self.check_integer(images_per_identity, "images_per_identity", 2)
        self.check_integer(least_batches, "least_batches", 1)
        _, counts = np.unique(np.asarray(identities, dtype=np.int64), return_counts=True)
        if len(counts) < 2:
            raise ValueError(
                f"FittedSampler: identities must be at least two, to be told apart, got {len(counts)}: add "
                "images of others, or split the data otherwise"
            )
        world_size = processes.get("world_size", 1)
        count = min(identities_per_batch, len(counts))
        if count < world_size:
            raise ValueError(
                f"FittedSampler: identities must be at least as many as processes ({world_size}), got {count}"
            )
        super().__init__(
            identities,
            identities_per_batch=count - count % world_size,
            images_per_identity=max(2, min(images_per_identity, int(counts.max()))),
            **processes,
        )
        self.least_batches = least_batches
        self._configuration["least_batches"] = least_batches

    def make_batches(self, random: np.random.Generator) -> list[np.ndarray]:
        """Batches (P, K)."""
        batches = self._once(random)
        while len(batches) < self.least_batches:
            batches += self._once(random)
        return batches

    def _once(self, random: np.random.Generator) -> list[np.ndarray]:
        """Batches that have every group once, and some again where others have none left."""
        owned = [self._groups(images, random) for images in np.split(self._indices, self._ends[:-1])]
        left = np.array([len(groups) for groups in owned])
        batches = []
        while left.any():
            # Those with the most left first, so that few are asked again; equals in random order.
            order = np.lexsort((random.random(len(left)), -left))
            rows = []
            for identity in order[: self.identities_per_batch]:
                groups = owned[identity]
                left[identity] -= left[identity] > 0
                rows.append(groups[left[identity]])
            batches.append(np.stack(rows))
        return batches
