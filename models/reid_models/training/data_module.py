"""A dataset as Lightning takes it: :class:`ReidDataModule`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .._numbers import check_integer
from ..data import ImageDataset, ReidDataset, check_images, read_dataset
from ..data.augmentation import Augmentation
from ..data.images import Sample
from ..data.loaders import TrainBatch, make_evaluation_loader, make_train_loader
from ..data.records import ImageRecord
from ..data.samplers import TrainSampler, make_sampler
from ..retrieval.comparison import (
    FITTED,
    METRICS,
    Comparison,
    default_metric,
    make_comparison,
    prepare_pair,
)
from ..retrieval.protocol import Protocol, draw_features, draw_images, label_features
from .defaults import SAMPLER


class ReidDataModule(LightningDataModule):
    """A dataset, its batches, and how features of its test images are judged.

    Training batches are bytes until they are on the device, where they are augmented. Batches and their
    random numbers follow from the seed and the epoch: several processes together have the batches of one
    (use ``Trainer(use_distributed_sampler=False, reload_dataloaders_every_n_epochs=1)``), and so has a run
    that is resumed in the middle of an epoch.

    Validation extracts every test image once and judges by the dataset's protocol: the mean over its draws.
    The datasets have no other images for it, and public re-identification code does the same: where a run
    validates more than once, its best weights are chosen by the test images, and their numbers are the best
    of several. With ``Trainer(check_val_every_n_epoch=max_epochs)`` the test images choose nothing.

    Args:
        dataset: one of :func:`reid_models.data.list_datasets`.
        root: where it lies; None for datasets in memory.
        dataset_options: of its reader.
        image_size: height and width.
        sampler: name and arguments, see :func:`reid_models.data.make_sampler`; None: 16 x 4. Sizes
            are of the joint batch of all processes.
        augmentation: fields of :class:`Augmentation`.
        evaluation_batch_size: images at a time in validation, in each process.
        workers: processes that decode, for each training process.
        metric: how validation compares features: "cosine", "euclidean" or "match"; None: the network's scores
            where it compares pairs, else the cosine.
        check_images: decode every image once before training, so that none fails in the middle of it.
        seed: of batches and augmentation. (The command line takes ``seed_everything``.)

    Raises:
        TypeError, ValueError, FileNotFoundError: an argument is out of range; as :func:`read_dataset`.

    Example:
        >>> data = ReidDataModule("market1501", "/data/Market-1501-v15.09.15", image_size=(256, 128))
        >>> data.num_classes
        751
    """

    def __init__(
        self,
        dataset: str,
        root: str | None = None,
        dataset_options: dict[str, Any] | None = None,
        image_size: tuple[int, int] = (256, 256),
        sampler: dict[str, Any] | None = None,
        augmentation: dict[str, Any] | None = None,
        evaluation_batch_size: int = 128,
        workers: int = 2,
        metric: str | None = None,
        check_images: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_integer(workers, "workers", "ReidDataModule")
        check_integer(evaluation_batch_size, "evaluation_batch_size", "ReidDataModule", 1)
        choices = [name for name in METRICS if name not in FITTED]
        if metric is not None and metric not in choices:
            raise ValueError(f"ReidDataModule: metric must be one of {', '.join(choices)}, got {metric!r}")
        self.metric = metric
        self.dataset_name, self.root, self.dataset_options = dataset, root, dict(dataset_options or {})
        self.image_size = (image_size[0], image_size[1])
        self.sampler_options = dict(SAMPLER if sampler is None else sampler)
        self.augmentation = Augmentation.from_mapping(augmentation or {})
        self.evaluation_batch_size, self.workers, self.seed = evaluation_batch_size, workers, seed
        self.check_images = check_images
        self._train_loader: DataLoader[TrainBatch] | None = None
        self._test_loader: DataLoader[Sample] | None = None

    @cached_property
    def dataset(self) -> ReidDataset:
        """The dataset, read when first asked for."""
        return read_dataset(self.dataset_name, self.root, **self.dataset_options)

    @property
    def num_classes(self) -> int:
        """Training identities."""
        return self.dataset.num_classes

    @property
    def checked_classes(self) -> int:
        """Training identities, once the data are known to be fit for training.

        Raises:
            TypeError, ValueError, FileNotFoundError: the dataset can't be read, its images are too few for a
                batch, or no query has a positive.
        """
        self.make_sampler()
        self.check_protocol()
        return self.num_classes

    def check_protocol(self) -> None:
        """Raises ``ValueError`` unless a query of every draw has an image to be found."""
        dataset = self.dataset
        for draw in range(len(dataset.draws)):
            if not any(dataset.answerable(draw)):
                counts = " from another camera" if dataset.same_camera_is_junk else ""
                raise ValueError(
                    f"{dataset.name}: no query has an image of its identity in the gallery{counts}: nothing "
                    f"could be measured ({dataset.root})"
                )

    @cached_property
    def test_records(self) -> tuple[ImageRecord, ...]:
        """Every image of the test draws once."""
        return draw_images(self.dataset)

    @cached_property
    def images(self) -> ImageDataset:
        """Training images with classes as identities."""
        return ImageDataset(self.dataset.train, size=self.image_size, labels=self.dataset.train_labels)

    def make_sampler(self, rank: int = 0, world_size: int = 1) -> TrainSampler:
        """The sampler of one process."""
        return make_sampler(
            self.sampler_options,
            self.images.identities,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )

    def prepare_data(self) -> None:
        """Decodes every image once, if so asked.

        Raises:
            ValueError: images are missing or damaged; the message has their paths.
        """
        if self.check_images:
            every = dict.fromkeys((*self.dataset.train, *self.test_records))
            check_images(every, progress=True, strict=False)  # a strict one would decode them twice
            self.check_images = False  # they are now

    def count_steps(self) -> int:
        """Optimizer steps of the trainer's whole run. (Epochs may differ by a batch or two.)"""
        trainer, ends = self._trainer(), []
        if trainer.max_steps > 0:
            ends.append(int(trainer.max_steps))
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            sampler, total = self.make_sampler(), 0
            for epoch in range(trainer.max_epochs):
                sampler.set_epoch(epoch)
                batches = _limited(len(sampler), trainer.limit_train_batches)
                total += math.ceil(batches / trainer.accumulate_grad_batches)
            ends.append(total)
        if not ends:
            raise ValueError(f"trainer: max_epochs must be given for this schedule, got {trainer.max_epochs}")
        return min(ends)

    def train_dataloader(self) -> EpochBatches:
        """The batches of the trainer's present epoch."""
        trainer = self._trainer()
        if trainer.reload_dataloaders_every_n_epochs != 1:
            got = trainer.reload_dataloaders_every_n_epochs
            raise ValueError(f"trainer: reload_dataloaders_every_n_epochs must be 1, got {got}")
        if self._train_loader is None:
            self._sampler = self.make_sampler(trainer.global_rank, trainer.world_size)
            self._train_loader = make_train_loader(
                self.images,
                self._sampler,
                workers=self.workers,
                affine=self.augmentation.affine,
                seed=self.seed,
                pin_memory=self._on_gpu(),
            )
            _draw_from_own_generator(self._train_loader)
        return EpochBatches(self._train_loader, self._sampler, trainer.current_epoch)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Every world_size-th test image, for this process.

        Where they don't divide it begins anew at their end, so that every process has as many.
        """
        if self._test_loader is not None:
            return self._test_loader
        trainer, records = self._trainer(), self.test_records
        share = math.ceil(len(records) / trainer.world_size)
        places = [(trainer.global_rank + i * trainer.world_size) % len(records) for i in range(share)]
        loader = make_evaluation_loader(
            [records[place] for place in places],
            image_size=self.image_size,
            batch_size=self.evaluation_batch_size,
            workers=self.workers,
            pin_memory=self._on_gpu(),
        )
        _draw_from_own_generator(loader)
        self._test_loader = loader
        return loader

    def close(self) -> None:
        """Ends the processes that decode.

        At its own end Python would tell them to by SIGTERM, which they outlive for a while, see ``loaders``.
        """
        for loader in (self._train_loader, self._test_loader):
            iterator: Any = getattr(loader, "_iterator", None)  # of a loader whose workers persist
            if loader is not None and hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()
                loader._iterator = None

    def teardown(self, stage: str) -> None:
        """At the end of a run that was not interrupted."""
        self.close()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Bytes to the network's input, on the device."""
        if isinstance(batch, TrainBatch):
            images = self.augmentation.train(batch.image, seed=batch.seed, first_index=batch.first_index)
        else:
            images = self.augmentation.evaluation(batch.image)
        return batch._replace(image=images)

    def make_comparison(self, network: nn.Module | None) -> Comparison:
        """How validation compares features of a network.

        Raises:
            TypeError, ValueError: the metric is ``"match"`` and the network does not compare pairs.
        """
        return make_comparison(self.metric or default_metric(network), network=network)

    def evaluate(self, features: Tensor, network: nn.Module | None = None) -> dict[str, float]:
        """mAP, mINP and rank-1, in [0, 1], by the metric of validation.

        Args:
            features: (M, D) of :attr:`test_records` in their order; rows behind those are left out.
            network: whose they are, asked for its scores where it compares pairs.

        Raises:
            ValueError: fewer features than test images.
        """
        if len(features) < len(self.test_records):
            raise ValueError(
                f"ReidDataModule: features must be those of all {len(self.test_records)} test images, got "
                f"{len(features)}: is the trainer's limit_val_batches set?"
            )
        comparison = self.make_comparison(network)
        dataset, rows = self.dataset, []
        protocol = Protocol(dataset.same_camera_is_junk, ranks=(1,), exclude_self=dataset.exclude_self)
        labelled = label_features(features[: len(self.test_records)], self.test_records)
        for query, gallery in draw_features(dataset, labelled):
            codes = prepare_pair(comparison, query, gallery)
            report = protocol.measure(query, gallery, codes, comparison.distances)
            rows.append((report.mean_ap, report.mean_inp, report.cmc[1]))
        return dict(zip(("mAP", "mINP", "rank1"), np.mean(rows, axis=0).tolist(), strict=True))

    def _trainer(self) -> Any:
        if self.trainer is None:
            raise RuntimeError("ReidDataModule: loaders need a trainer")
        return self.trainer

    def _on_gpu(self) -> bool:
        device: torch.device = self._trainer().strategy.root_device
        return device.type == "cuda"


class EpochBatches:
    """One epoch's training batches, from where it has got to.

    Lightning saves its state in checkpoints. Iterating starts nothing before the first batch is asked for,
    since Lightning makes two iterators and uses one.
    """

    def __init__(self, loader: DataLoader[TrainBatch], sampler: TrainSampler, epoch: int) -> None:
        self._loader, self._sampler = loader, sampler
        sampler.set_epoch(epoch)
        self._state: dict[str, Any] = sampler.state_dict(batches_done=0)
        self._length = len(sampler)

    def __len__(self) -> int:
        """Batches of the whole epoch, those done included, as Lightning counts."""
        return self._length

    def __iter__(self) -> Iterator[TrainBatch]:
        # The sampler itself runs ahead of the training when workers fetch.
        self._sampler.load_state_dict(self._state)
        for batch in self._loader:
            self._state["batch"] += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of batches trained on, the same in every process."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken, with as many processes or another number.

        Raises:
            ValueError: the state is of other data, another seed or another sampler.
        """
        self._sampler.load_state_dict(state)
        self._state, self._length = dict(state), len(self._sampler)


def _limited(batches: int, limit: int | float) -> int:
    """As Lightning limits them: to a number, or, by a float, to a share."""
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def _draw_from_own_generator(loader: DataLoader[Any]) -> None:
    """Else every new iterator draws from torch's global generator, and a resumed run makes one more."""
    loader.generator = torch.Generator()
