"""Training and validation of a network: :class:`ReidModule`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ..data.images import Sample
from ..data.loaders import TrainBatch
from ..losses import LossTerm, WeightedLoss
from ..networks import create_model
from .defaults import LOSSES, NETWORK, OPTIMIZER, SCHEDULE
from .joint_batch import joint
from .schedule import make_optimizer, make_schedule
from .trial import asked_inputs, output_widths

LEAST_SCALE = 1.0  # of a gradient scaler: it has then passed over 16 steps in a row and more


class Judge(Protocol):
    """What training asks of the data besides batches: :class:`ReidDataModule`."""

    def evaluate(self, features: Tensor, network: nn.Module) -> dict[str, float]:
        """Retrieval measures of all test images' features, which the network gave."""

    def count_steps(self) -> int:
        """Optimizer steps of the whole run."""


class ReidModule(LightningModule):
    """A network, its losses, its optimizer and schedule. Defaults: :mod:`.defaults`.

    Precision, accumulation and several processes are the trainer's; with several processes losses are of the
    joint batch. :meth:`attach` hands it the :class:`ReidDataModule` that augments batches and judges
    features.

    Args:
        num_classes: training identities. (The command line takes it from the data.)
        image_size: height and width. (Likewise.)
        network: one of :func:`reid_models.list_models`, or ``package.module:Class``.
        options: of the network, as for :func:`reid_models.create_model`.
        losses: terms with the fields of :class:`LossTerm`; None: a triplet
            loss of ``features`` and a cross-entropy of ``logits``. With several
            processes every output needs a term, if only with weight 0: DDP wants every gradient.
        optimizer: name and arguments, see :func:`make_optimizer`; None: Adam.
        schedule: name and arguments, see :func:`make_schedule`; None: a constant rate.
        channels_last: network and images in channels-last, which tensor cores want.
        compile: the network by ``torch.compile``.

    Logs:
        ``train/total``, ``train/<term>`` and ``lr`` for each epoch; ``step/total``, ``step/<term>`` and
        ``step/lr`` every ``log_every_n_steps`` steps (of the last batch, if a step accumulates several);
        ``val/mAP``, ``val/mINP``, ``val/rank1`` of each validation. Column ``step`` counts optimizer steps
        done before; ``epoch`` counts from 0. With ``Trainer(num_sanity_val_steps=-1)`` the network is
        measured before the first step as well, in epoch -1.

    Raises:
        TypeError, ValueError: an argument is not as described; unknown names suggest the nearest.
        RuntimeError: in training, a loss or a weight is no longer finite. No checkpoint holds it. With
            ``precision: 16-mixed``, whose scaler skips steps that overflow, once its scale is down to 1.

    Example:
        >>> data = ReidDataModule("market1501", root, image_size=(256, 128))
        >>> module = ReidModule(data.num_classes, data.image_size, "hsgnet", {"pretrained": True})
        >>> module.attach(data)
        >>> trainer = Trainer(max_epochs=120, devices=1, reload_dataloaders_every_n_epochs=1)
        >>> trainer.fit(module, data)
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int] = (256, 256),
        network: str = NETWORK,
        options: dict[str, Any] | None = None,
        losses: list[dict[str, Any]] | None = None,
        optimizer: dict[str, Any] | None = None,
        schedule: dict[str, Any] | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.network = create_model(network, num_classes, **{"image_size": image_size, **(options or {})})
        terms: Sequence[LossTerm | Mapping[str, Any]] = LOSSES if losses is None else losses
        # Run once: an output that is missing is known before anything is read or written.
        self.loss = WeightedLoss(terms, num_classes=num_classes, widths=output_widths(self.network))
        self._inputs = asked_inputs(self.network)
        self._judge: Judge | None = None
        self.optimizer_options = dict(OPTIMIZER if optimizer is None else optimizer)
        self.schedule_options = dict(SCHEDULE if schedule is None else schedule)
        # Made once to be thrown away: a wrong argument is known before anything is read or written.
        trial = make_optimizer(self.network, self.optimizer_options)
        make_schedule(trial, self.schedule_options, count_steps=lambda: 2)
        # Not nan_strategy's default, which leaves NaN out: a loss that is gone must show.
        means = {name: MeanMetric(nan_strategy="disable") for name in ("total", *self.loss.names)}
        self.means: Any = nn.ModuleDict(means)
        for metric in means.values():
            metric.persistent(True)  # in the checkpoint, so that an epoch's mean survives an interruption
        self._features: list[Tensor] = []
        self._rate = 0.0
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        if compile:
            self.network.compile()  # in place: names of weights stay

    def attach(self, judge: Judge) -> None:
        """Takes the data's judge of features, before the trainer fits."""
        self._judge = judge

    @property
    def needs_pairs(self) -> bool:
        """Whether the network or a loss asks for a sampler's pairs."""
        return "pairs" in self._inputs or "pair" in self.loss.targets

    def forward(self, images: Tensor, **inputs: Tensor) -> Any:
        """The network's outputs for normalised images (N, 3, H, W) and what else of the batch it asks for."""
        # The augmentation gives float32; with a "true" precision the network's weights are of another type.
        dtype = next(self.network.parameters()).dtype
        return self.network(images.to(dtype).contiguous(memory_format=self.memory_format), **inputs)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """The weighted loss of the joint batch."""
        inputs = {"identities": batch.identity, "pairs": batch.pairs}
        asked: dict[str, Any] = {name: inputs[name] for name in self._inputs}
        outputs, targets = joint(self, self(batch.image, **asked)), joint(self, self._targets(batch))
        values = self.loss(outputs, **targets)
        trainer: Any = self.trainer
        self._count(values)
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.log("loss", values["total"].detach(), prog_bar=True, logger=False)
        ends_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        logged = ends_step and self.global_step % trainer.log_every_n_steps == 0
        if logged or trainer.is_last_batch:  # not every step: reading a value waits for the device
            rows = {f"step/{name}": value.item() for name, value in values.items()}
            if not self._will_be_skipped(rows):
                self._check_finite(rows)
            if logged:
                self._write({**rows, "step/lr": self._rate}, self.global_step)
        total: Tensor = values["total"]
        return total

    def _targets(self, batch: TrainBatch) -> dict[str, Tensor]:
        """What the losses compare with, of this process's part."""
        targets = {"identities": batch.identity}
        if "image" in self.loss.targets:
            targets["images"] = batch.image
        if "pair" in self.loss.targets and batch.pairs is not None:
            first, second = batch.identity[batch.pairs].unbind(1)
            targets["same"] = (first == second).long()
        return targets

    def on_train_epoch_end(self) -> None:
        """Logs the means over the epoch."""
        # With max_steps a run that goes on from an epoch's end comes here once more, and Lightning counts it.
        progress: Any = self.trainer.fit_loop.epoch_progress
        for counts in (progress.total, progress.current):
            counts.processed = min(counts.processed, counts.ready)
        if self.means["total"].weight == 0:  # nothing was trained
            return
        means = {name: metric.compute().item() for name, metric in self.means.items()}
        self._check_finite(means)
        if self.trainer.is_last_batch:  # else max_steps or max_time has cut the epoch: a run may go on in it
            for metric in self.means.values():
                metric.reset()
        rows = {f"train/{name}": value for name, value in means.items()}
        self._write({**rows, "lr": self._rate}, self.global_step - 1)
        self.log_dict(rows, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to save what is lost, so that the checkpoint of before stays."""
        self._check_state(checkpoint["state_dict"])

    def on_validation_epoch_start(self) -> None:
        self._check_state(self.network.state_dict())
        self._features.clear()

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Keeps the features of a batch."""
        self._features.append(self(batch.image).float())

    def on_validation_epoch_end(self) -> None:
        """Evaluates retrieval over all features, in every process alike."""
        features = torch.cat(self._features)
        self._features.clear()
        # Rank r has rows r, r + world_size, ...: gathered they are (world_size, rows, D).
        gathered: Any = self.all_gather(features)
        if self.trainer.world_size > 1:
            features = gathered.transpose(0, 1).flatten(0, 1)
        first = self.trainer.sanity_checking
        if first and not scores_first(self.trainer):
            return
        values = self._attached().evaluate(features, self.network)
        values = {f"val/{name}": value for name, value in values.items()}
        self._write(values, max(0, self.global_step - 1), epoch=-1 if first else self.current_epoch)
        self.log_dict(values, logger=False)
        self.log("mAP", values["val/mAP"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> Any:
        """As the recipe says."""
        optimizer = make_optimizer(self.network, self.optimizer_options)
        scheduler, interval = make_schedule(
            optimizer, self.schedule_options, count_steps=self._attached().count_steps
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def _attached(self) -> Judge:
        if self._judge is None:
            raise RuntimeError("ReidModule: attach(data) must come before the trainer's fit")
        return self._judge

    def _check_finite(self, values: Mapping[str, float]) -> None:
        if not all(map(math.isfinite, values.values())):
            raise RuntimeError(
                f"the loss is no longer finite in epoch {self.current_epoch + 1}, at learning rate "
                f"{self._rate:g}: {values}"
            )

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What scales the losses of ``precision: 16-mixed``; it skips steps whose gradients overflow."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler if scaler is not None and scaler.is_enabled() else None

    def _count(self, values: Mapping[str, Tensor]) -> None:
        """Adds a batch to the epoch's means; with a scaler, which skips such steps, only if it is finite."""
        if self._scaler is None:
            for name, value in values.items():
                self.means[name].update(value.detach())
            return
        finite = torch.stack([value.detach().isfinite() for value in values.values()]).all()
        for name, value in values.items():
            self.means[name].update(torch.where(finite, value.detach(), 0), finite.float())

    def _will_be_skipped(self, values: Mapping[str, float]) -> bool:
        """Whether a scaler passes over a step whose loss is not finite, and can still lower its scale."""
        scaler = self._scaler
        finite = all(map(math.isfinite, values.values()))
        return not finite and scaler is not None and scaler.get_scale() > LEAST_SCALE

    def _check_state(self, state: Mapping[str, Tensor]) -> None:
        """Weights, buffers and sums of losses: a step's loss can be finite, and its gradient not."""
        lost = [key for key, value in state.items() if not value.isfinite().all()]
        if lost:
            raise RuntimeError(
                f"the loss or a weight is no longer finite in epoch {self.current_epoch + 1}, at learning "
                f"rate {self._rate:g}: {len(lost)} of {len(state)} tensors, such as {lost[0]}"
            )

    def _write(self, values: Mapping[str, float], step: int, epoch: int | None = None) -> None:
        # Straight to the loggers, not through self.log: that would write an epoch's row only after the
        # checkpoint at its end, and a run killed between the two would lack it for ever.
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch if epoch is None else epoch, **values}, step)


def scores_first(trainer: Any) -> bool:
    """Whether a trainer runs the whole validation once before the first step."""
    return bool(trainer.num_sanity_val_steps == math.inf)
