"""The input pipeline: workers decode to bytes, the device augments whole batches.

Decoding, resizing and random affine are done on bytes in a DataLoader's workers; flip, padding, crop,
normalisation and erasing by :func:`reid_ops.augment`, wherever the batch is by then. Random numbers follow
from the seed, the epoch and an image's number in its epoch alone: a run that is resumed, or shared between
processes, sees the images that one uninterrupted process would see.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .._numbers import check_integer
from .augmentation import random_affine
from .images import ImageDataset, Sample, stack_samples
from .records import ImageRecord
from .samplers import TrainSampler

GRACE = 15  # seconds that a worker goes on after SIGTERM; SIGALRM ends it then


class TrainBatch(NamedTuple):
    """A training batch: the fields of :class:`Sample` stacked, and where its random numbers come from.

    Attributes:
        image: uint8 (N, 3, H, W).
        identity, camera: int64 (N,).
        seed: for :meth:`Augmentation.train`, of the seed and the epoch.
        first_index: the first image's number in the epoch, counted over all processes.
        pairs: int64 (B, 2), rows of the batch that a sampler of pairs put together; otherwise None.
    """

    image: Tensor
    identity: Tensor
    camera: Tensor
    seed: int
    first_index: int
    pairs: Tensor | None = None


def make_train_loader(
    images: ImageDataset,
    sampler: TrainSampler,
    *,
    workers: int = 2,
    affine: Mapping[str, Any] | None = None,
    seed: int = 0,
    pin_memory: bool = False,
) -> DataLoader[TrainBatch]:
    """Training batches of bytes in the sampler's order.

    Args:
        images: with a size; classes as identities.
        sampler: of the same images. It keeps epoch and position; with workers it runs a few batches ahead
            of what was trained on (:meth:`TrainSampler.state_dict` takes the number trained on).
        workers: processes that decode; 0 decodes in this one.
        affine: :attr:`Augmentation.affine`.
        seed: of the augmentation, at least 0.
        pin_memory: for copies to a GPU that do not wait.

    Returns:
        A DataLoader of :class:`TrainBatch`.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Example:
        >>> images = ImageDataset(dataset.train, size=(256, 128), labels=dataset.train_labels)
        >>> sampler = IdentitySampler(images.identities, identities_per_batch=32, images_per_identity=4)
        >>> for batch in make_train_loader(images, sampler):
        ...     inputs = augmentation.train(batch.image, seed=batch.seed, first_index=batch.first_index)
    """
    if images.size is None:
        raise ValueError("make_train_loader: images must have a size, got an ImageDataset with size=None")
    check_integer(workers, "workers", "make_train_loader")
    check_integer(seed, "seed", "make_train_loader")
    return DataLoader(
        _TrainBatches(images, affine, seed, sampler.pairs),
        batch_sampler=_NumberedBatches(sampler),
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_outlive_signals,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )


def make_evaluation_loader(
    records: Sequence[ImageRecord],
    *,
    image_size: Sequence[int],
    batch_size: int = 64,
    workers: int = 2,
    pin_memory: bool = False,
    interpolation: str = "bilinear",
) -> DataLoader[Sample]:
    """Batches of bytes in the order of the records; the last may be smaller.

    Args:
        records: of :class:`ReidDataset`: a draw's ``query`` or ``gallery``.
        image_size: height and width.
        batch_size: at least 1.
        workers: processes that decode; 0 decodes in this one.
        pin_memory: for copies to a GPU that do not wait.
        interpolation: as for :class:`ImageDataset`.

    Returns:
        A DataLoader of :class:`Sample`: image uint8 (N, 3, H, W), identity and camera int64 (N,).

    Raises:
        TypeError, ValueError: an argument is not as described.

    Example:
        >>> for batch in make_evaluation_loader(dataset.draws[0].query, image_size=(256, 128)):
        ...     features = model(Augmentation().evaluation(batch.image))
    """
    check_integer(workers, "workers", "make_evaluation_loader")
    check_integer(batch_size, "batch_size", "make_evaluation_loader", 1)
    return DataLoader(
        ImageDataset(records, size=image_size, interpolation=interpolation),
        batch_size=batch_size,
        collate_fn=stack_samples,
        num_workers=workers,
        worker_init_fn=_outlive_signals,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )


class _Place(NamedTuple):
    """One image of a training batch: its index in the dataset, then its place in the run."""

    image: int
    epoch: int
    number: int  # in the epoch, over all processes


class _NumberedBatches(Sampler[list[_Place]]):
    """The sampler's batches, every image with its place. (Lightning finds ``sampler`` and its set_epoch.)"""

    def __init__(self, sampler: TrainSampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[_Place]]:
        sampler = self.sampler
        state = sampler.state_dict()
        before = sampler.rank * (sampler.batch_size // sampler.world_size)
        for batch, indices in enumerate(sampler, start=state["batch"]):
            first = batch * sampler.batch_size + before
            yield [_Place(index, state["epoch"], first + place) for place, index in enumerate(indices)]


class _TrainBatches(Dataset[TrainBatch]):
    """Decodes the images of a batch, in a worker."""

    def __init__(
        self,
        images: ImageDataset,
        affine: Mapping[str, Any] | None,
        seed: int,
        pairs: np.ndarray | None,
    ) -> None:
        self.images = images
        self.affine = random_affine(affine)
        self.seed = seed
        self.pairs = None if pairs is None else torch.from_numpy(pairs)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, places: list[_Place]) -> TrainBatch:
        batch = stack_samples([self._sample(place) for place in places])
        image, identity, camera = cast("tuple[Tensor, Tensor, Tensor]", batch)
        seed = _mixed(self.seed, places[0].epoch)
        return TrainBatch(image, identity, camera, seed, first_index=places[0].number, pairs=self.pairs)

    def _sample(self, place: _Place) -> Sample:
        sample = self.images[place.image]
        if self.affine is None:
            return sample
        with torch.random.fork_rng(devices=()):  # the transform draws from torch's own generator
            # Of the CPU alone: torch.manual_seed seeds GPUs' as well, which this fork does not restore.
            torch.default_generator.manual_seed(_mixed(self.seed, place.epoch, place.number))
            return sample._replace(image=self.affine(sample.image))


def _outlive_signals(worker: int) -> None:
    """Signals reach the whole group; the process that has the workers decides, and may need one more batch.

    Ctrl-C and SIGUSR1 are left to it alone. SIGTERM waits for the time of a step, since that process may mean
    this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # SLURM's to a job that is to be queued again
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))


def _as_it_is(batch: Any) -> Any:
    return batch


def _mixed(*numbers: int) -> int:
    """A seed in [0, 2**63) from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
