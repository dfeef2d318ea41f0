"""Batches of images in random order, whatever they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import TrainSampler


class ShuffledSampler(TrainSampler):
    """Every image once an epoch, in random order; what no longer makes a batch is left out.

    Other images are left out the next time. Epochs, processes and resuming: :class:`TrainSampler`.

    Args:
        identities: one for every image; only their number counts.
        batch_size: images of the joint batch of all processes; a multiple of ``world_size``.
        **processes: ``seed``, ``rank`` and ``world_size`` of :class:`TrainSampler`.

    Raises:
        TypeError, ValueError: an argument is out of range, or there are fewer images than ``batch_size``.

    Example:
        >>> sampler = ShuffledSampler(images.identities, batch_size=16)
    """

    def __init__(self, identities: Sequence[int], *, batch_size: int = 64, **processes: Any) -> None:
        self.check_integer(batch_size, "batch_size", 1)
        settings = {"batch_size": batch_size}
        super().__init__(len(identities), batch_size, 1, "batch_size", settings, **processes)
        if len(identities) < batch_size:
            raise ValueError(
                f"ShuffledSampler: identities must be of at least batch_size ({batch_size}) images, got "
                f"{len(identities)}"
            )

    def make_batches(self, random: np.random.Generator) -> np.ndarray:
        """All batches (batches, batch_size)."""
        whole = self.images // self.batch_size
        return random.permutation(self.images)[: whole * self.batch_size].reshape(whole, self.batch_size)
