"""What a run keeps so that it can go on after ``kill -9`` as if nothing had been, and its best weights."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from .._checksum import is_sealed, seal
from .._output import replacing
from ..networks import save_model
from ..runs.files import BEST, LAST
from .interruption import Interrupted, Interruption
from .module import scores_first

NEEDED: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "random_states": list,
    "state_dict": dict,
}


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for checkpoint files: at any moment there is the old one or the new one, whole.

    Lightning's own renames a finished file, too, but doesn't wait for the disk before.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        path = Path(path)
        for stale in path.parent.glob(f"{path.name}.*.part"):  # of a process that was killed
            stale.unlink(missing_ok=True)
        with replacing(path) as unfinished:
            with unfinished.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # of the zip file's end, after the disk was full
                    raise error.__context__ if isinstance(error.__context__, OSError) else error from None
            seal(unfinished)  # readers of zip files pass over what comes behind their end
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too
        finally:
            os.close(folder)


def read_step(path: Path) -> int:
    """Optimizer steps behind a checkpoint of :class:`LastCheckpoint`.

    Raises:
        ValueError: the file is damaged or another one.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file may raise anything, depending on the place
        # Not torch's words, nor as a cause: they advise to load the file in a way that runs its code.
        foreign = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than plain values and tensors" if foreign else type(error).__name__
        raise ValueError(f"{path} is damaged or not a checkpoint ({reason})") from None
    missing = [key for key in NEEDED if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ValueError(f"{path} is not a checkpoint of `reid train`: it has no {', '.join(missing)}")
    strange = [key for key, kind in NEEDED.items() if not isinstance(checkpoint[key], kind)]
    if not strange and "fit_loop" not in checkpoint["loops"]:
        strange.append("loops")
    if strange:
        raise ValueError(f"{path} is not a checkpoint of `reid train`: its {strange[0]} is another's")
    if not is_sealed(path):
        raise ValueError(f"{path} is damaged or not a checkpoint (its checksum is another)")
    step: int = checkpoint["global_step"]
    return step


class LastCheckpoint(Checkpoint):
    """``last.ckpt`` every so many optimizer steps and at every epoch's end: all that a run needs to go on.

    That is what Lightning saves (weights, optimizer, scheduler, loops, gradient scaler, the callbacks and the
    data's position) and the states of the random generators of every process.

    Args:
        folder: of the run.
        every_n_steps: optimizer steps between two checkpoints in an epoch, at least 1.
        interruption: if it was asked for in any process, a checkpoint is written behind the present step (in
            the last one of an epoch: behind validation) and ``Interrupted`` is raised; None: nothing asks.
    """

    def __init__(
        self, folder: str | os.PathLike[str], every_n_steps: int, interruption: Interruption | None = None
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"checkpoint_every_n_steps must be at least 1, got {every_n_steps}")
        self.path, self.every_n_steps = Path(folder) / LAST, every_n_steps
        self.interruption = interruption or Interruption()
        self._random_states: list[dict[str, Any]] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.start()
        if self._random_states is None and trainer.global_rank > 0:
            # Seeded like process 0 until here, so that all make the same network; from here on each its own.
            _seed(torch.initial_seed() + trainer.global_rank)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # Not earlier: making loaders and their iterators must not count.
        if self._random_states is not None:
            _restore(self._random_states, trainer.global_rank, trainer.global_step)
            self._random_states = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Gradients that are still being accumulated are in no checkpoint; the last batch has the epoch's end.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and not trainer.is_last_batch:
            self._save(trainer, due=trainer.global_step % self.every_n_steps == 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, due=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.waits = False  # all is saved

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["random_states"] = _gather_random_states(trainer.world_size)
        if not trainer.is_last_batch:
            # An epoch that max_steps or max_time cut is at its end for Lightning, which would not finish it.
            for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
                counts["processed"] = min(counts["processed"], counts["ready"] - 1)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._random_states = checkpoint["random_states"]

    def _save(self, trainer: Trainer, due: bool) -> None:
        # Together: all processes take part in a checkpoint.
        interrupted = trainer.strategy.reduce_boolean_decision(self.interruption.asked, all=False)
        if not (due or interrupted):
            return
        for logger in trainer.loggers:  # before the checkpoint: what it has behind it is on the disk
            logger.save()
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
        trainer.save_checkpoint(self.path, weights_only=False)
        if interrupted:
            raise Interrupted


class BestModel(Callback):
    """``best.safetensors``: the network of the validation with the highest mAP, the first of equals.

    Where the network is measured before the first step that counts: what training makes worse is not kept.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / BEST
        self.best: float | None = None
        self.epoch: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking and not scores_first(trainer):
            return
        value = trainer.callback_metrics["val/mAP"].item()
        if self.best is None or value > self.best:
            self.best, self.epoch = value, -1 if trainer.sanity_checking else trainer.current_epoch
            if trainer.is_global_zero:
                network: Any = pl_module.network
                save_model(network, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.epoch = state_dict["best"], state_dict["epoch"]


def _gather_random_states(world_size: int) -> list[dict[str, Any]]:
    """The states of all processes, in plain types and tensors, which load without unpickling code."""
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 (the global one is what is kept)
    mine: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [value.tolist() if isinstance(value, np.ndarray) else value for value in numpy_state],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }
    if world_size == 1:
        return [mine]
    everyone: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def _restore(states: list[dict[str, Any]], rank: int, step: int) -> None:
    if rank >= len(states):  # more processes than before: a stream that no process has had
        mixed = np.random.SeedSequence((torch.initial_seed(), rank, step)).generate_state(1, np.uint64)
        _seed(int(mixed[0] >> 1))
        return
    state: Mapping[str, Any] = states[rank]
    version, inner, gauss = state["python"]
    random.setstate((version, tuple(inner), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
