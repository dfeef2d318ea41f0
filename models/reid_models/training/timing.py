"""What a run says of itself: its parameters, and how long it trains, ``training.json`` in its folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from .._output import replacing
from ..runs.files import TRAINING


class ParameterCount(Callback):
    """Says how large the network is, in a line. (Lightning's table counts FLOPs, of which it knows none.)"""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in pl_module.parameters()]
        total, trained = sum(size for size, _ in sizes), sum(size for size, asked in sizes if asked)
        fixed = "" if trained == total else f", {trained / 1e6:.2f} of them trained"
        rank_zero_info(f"{total / 1e6:.2f} million parameters{fixed}")


class TrainingTime(Callback):
    """Writes the seconds from the beginning of training to its end, those of interrupted parts included.

    Validation is in them, and so is whatever waits for data. What a killed run has trained behind its last
    checkpoint is not: it is trained again.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / TRAINING
        self._before = 0.0
        self._start: float | None = None

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            content = {"seconds": round(self.seconds, 3), "steps": trainer.global_step}
            with replacing(self.path) as unfinished:
                unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = float(state_dict["seconds"])
