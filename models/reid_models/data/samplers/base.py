"""What every sampler of training batches is: :class:`TrainSampler`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from ..._numbers import check_integer

#: An epoch's joint batches, each indices of images (groups, group_size), or (groups,).
Batches = Sequence[np.ndarray] | np.ndarray


class TrainSampler(Sampler[list[int]], ABC):
    """Batches of images' indices, for a DataLoader's ``batch_sampler``; the base of all samplers.

    The batches of an epoch follow from the seed and the epoch's number alone. With several processes each
    takes its part of every batch: together, in the order of ranks, they have the batches that one process
    would have. Nothing is communicated. A sampler of one's own gives :meth:`make_batches`.

    Args:
        images: how many there are.
        groups: rows of a batch that processes share: a multiple of ``world_size``.
        group_size: images in each, which stay together.
        groups_name: the argument that ``groups`` came from, for messages.
        settings: integers by name that decide the batches; kept in :meth:`state_dict` and compared there.
        seed: at least 0.
        rank, world_size: this process and how many there are.

    Attributes:
        batch_size: images of the joint batch of all processes.
        pairs: rows of this process's batch that belong together, int64 (B, 2); None: not a sampler of pairs.
        epoch: the present one, from 0.

    Raises:
        TypeError, ValueError: an argument is out of range.

    Example:
        >>> class InOrder(TrainSampler):
        ...     def __init__(self, identities, *, batch_size=8, **processes):
        ...         settings = {"batch_size": batch_size}
        ...         super().__init__(len(identities), batch_size, 1, "batch_size", settings, **processes)
        ...     def make_batches(self, random):
        ...         ends = range(self.batch_size, self.images + 1, self.batch_size)
        ...         return [np.arange(end - self.batch_size, end)[:, None] for end in ends]
    """

    def __init__(
        self,
        images: int,
        groups: int,
        group_size: int,
        groups_name: str,
        settings: Mapping[str, int],
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for value, argument, least in ((seed, "seed", 0), (rank, "rank", 0), (world_size, "world_size", 1)):
            self.check_integer(value, argument, least)
        if rank >= world_size:
            raise ValueError(f"{self._name}: rank must be in [0, {world_size}), got {rank}")
        if groups % world_size:
            raise ValueError(
                f"{self._name}: {groups_name} must be a multiple of world_size ({world_size}), got {groups}"
            )
        self.images, self.batch_size = images, groups * group_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.pairs: np.ndarray | None = None
        self.epoch = 0
        self._batch = 0
        self._configuration = {"seed": seed, **settings, "images": images}
        self._plan: tuple[int, Batches] | None = None

    @abstractmethod
    def make_batches(self, random: np.random.Generator) -> Batches:
        """The joint batches of one epoch: indices of images (groups, group_size), or (groups,)."""

    def __len__(self) -> int:
        """Batches in the present epoch, wherever it has got to. It may differ by a few between epochs."""
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        """The present epoch's batches from where it has got to; at its end the next epoch begins."""
        batches = self._batches()
        while self._batch < len(batches):
            self._batch += 1
            batch = batches[self._batch - 1]
            share = len(batch) // self.world_size
            yield batch[self.rank * share : (self.rank + 1) * share].flatten().tolist()
        self.epoch, self._batch = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; one that is under way goes on where it is."""
        self.check_integer(epoch, "epoch", 0)
        if epoch != self.epoch:
            self.epoch, self._batch = epoch, 0

    def state_dict(self, batches_done: int | None = None) -> dict[str, int]:
        """Where the sampler is, the same in every process.

        Args:
            batches_done: batches of the present epoch that were trained on. None counts those handed out,
                which is more when a DataLoader with workers has fetched some ahead.
        """
        if batches_done is not None:
            self.check_integer(batches_done, "batches_done", 0)
        return {
            "epoch": self.epoch,
            "batch": self._batch if batches_done is None else batches_done,
            **self._configuration,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken, with as many processes or another number.

        Raises:
            ValueError: the state is of a sampler with other settings, seed or images, or is damaged.
        """
        missing = [key for key in ("epoch", "batch", *self._configuration) if key not in state]
        if missing:
            raise ValueError(f"{self._name}: state must have {', '.join(missing)}")
        for key, value in self._configuration.items():
            if state[key] != value:
                raise ValueError(f"{self._name}: state must have {key} {value}, got {state[key]}")
        for key in ("epoch", "batch"):
            self.check_integer(state[key], key, 0)
        self.epoch, self._batch = state["epoch"], state["batch"]

    def check_integer(self, value: int, argument: str, least: int) -> None:
        """Raises TypeError or ValueError unless the argument is an int, at least ``least``."""
        check_integer(value, argument, self._name, least)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _batches(self) -> Batches:
        """The joint batches of the present epoch."""
        if self._plan is None or self._plan[0] != self.epoch:
            self._plan = (self.epoch, self.make_batches(np.random.default_rng((self.seed, self.epoch))))
        return self._plan[1]
