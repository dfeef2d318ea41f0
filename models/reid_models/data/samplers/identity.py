"""P x K batches: P identities with K images each (HSGNet, section IV-B: 32 x 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

CONFIGURATION = ("seed", "identities_per_batch", "images_per_identity", "images")


class IdentitySampler(Sampler[list[int]]):
    """Batches of P identities with K images each, for a DataLoader's ``batch_sampler``.

    In an epoch the images of every identity are shuffled and cut into groups of K; a batch is P groups of P
    different identities. An identity with fewer than K images gives one group with repetitions; otherwise
    what is left over when K does not divide is left out, as are the groups that no longer make a batch.
    Other images are left out the next time.

    The batches of an epoch follow from the seed and the epoch's number alone. With several processes each
    takes its part of every batch: together, in the order of ranks, they have the batches that one process
    would have. Nothing is communicated.

    Args:
        identities: identity of every image, by index in the dataset (:attr:`ImageDataset.identities`).
        identities_per_batch: P, of the joint batch of all processes; a multiple of ``world_size``.
        images_per_identity: K, at least 2: with one image there is no positive pair.
        seed: at least 0.
        rank, world_size: this process and how many there are.

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
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for value, argument, least in (
            (identities_per_batch, "identities_per_batch", 1),
            (images_per_identity, "images_per_identity", 2),
            (seed, "seed", 0),
            (rank, "rank", 0),
            (world_size, "world_size", 1),
        ):
            _check_integer(value, argument, least)
        if rank >= world_size:
            raise ValueError(f"IdentitySampler: rank must be in [0, {world_size}), got {rank}")
        if identities_per_batch % world_size:
            raise ValueError(
                f"IdentitySampler: identities_per_batch must be a multiple of world_size ({world_size}), "
                f"got {identities_per_batch}"
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
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.identities_per_batch, self.images_per_identity = identities_per_batch, images_per_identity
        self.epoch = 0
        self._batch = 0
        self._plan: tuple[int, list[np.ndarray]] | None = None

    def __len__(self) -> int:
        """Batches in the present epoch, wherever it has got to. It may differ by a few between epochs."""
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        """The present epoch's batches from where it has got to; at its end the next epoch begins."""
        batches = self._batches()
        share = self.identities_per_batch // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        while self._batch < len(batches):
            self._batch += 1
            yield batches[self._batch - 1][mine].flatten().tolist()
        self.epoch, self._batch = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; one that is under way goes on where it is."""
        _check_integer(epoch, "epoch", 0)
        if epoch != self.epoch:
            self.epoch, self._batch = epoch, 0

    def state_dict(self, batches_done: int | None = None) -> dict[str, int]:
        """Where the sampler is, the same in every process.

        Args:
            batches_done: batches of the present epoch that were trained on. None counts those handed out,
                which is more when a DataLoader with workers has fetched some ahead.
        """
        if batches_done is not None:
            _check_integer(batches_done, "batches_done", 0)
        return {
            "epoch": self.epoch,
            "batch": self._batch if batches_done is None else batches_done,
            **self._configuration(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken, with as many processes or another number.

        Raises:
            ValueError: the state is of a sampler with another seed, P, K or number of images, or is damaged.
        """
        missing = [key for key in ("epoch", "batch", *CONFIGURATION) if key not in state]
        if missing:
            raise ValueError(f"IdentitySampler: state must have {', '.join(missing)}")
        for key, value in self._configuration().items():
            if state[key] != value:
                raise ValueError(f"IdentitySampler: state must have {key} {value}, got {state[key]}")
        for key in ("epoch", "batch"):
            _check_integer(state[key], key, 0)
        self.epoch, self._batch = state["epoch"], state["batch"]

    def _configuration(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "identities_per_batch": self.identities_per_batch,
            "images_per_identity": self.images_per_identity,
            "images": len(self._indices),
        }

    def _batches(self) -> list[np.ndarray]:
        """The joint batches (P, K) of the present epoch."""
        if self._plan is None or self._plan[0] != self.epoch:
            self._plan = (self.epoch, self._make_batches(np.random.default_rng((self.seed, self.epoch))))
        return self._plan[1]

    def _make_batches(self, random: np.random.Generator) -> list[np.ndarray]:
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


def _check_integer(value: int, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"IdentitySampler: {argument} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"IdentitySampler: {argument} must be at least {least}, got {value}")
