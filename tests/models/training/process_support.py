"""What the tests of the engine do in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from lightning.pytorch import LightningModule
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from reid_models.cli import main
from reid_models.losses import WeightedLoss
from reid_models.papers.hsgnet.defaults import HSGNET_LOSSES
from reid_models.recipes import load_recipe
from reid_models.training.joint_batch import JointBatchNorm, joint
from reid_models.training.module import ReidModule
from reid_models.training.train import train
from reid_ops import HSGM

HSGNET = load_recipe("market1501_hsgnet").config["model"]


def identity_batches(identities: int, images: int) -> dict[str, Any]:
    """The setting ``data.sampler`` of P x K batches."""
    return {"name": "identity", "identities_per_batch": identities, "images_per_identity": images}


def recipe(runs: str | Path, **changes: Any) -> dict[str, Any]:
    """A run of seconds: 4 batches an epoch of 4 x 4 images of 32 x 32 pixels."""
    options = {"backbone": "resnet10t", "stages": [2]}
    data = {"dataset": "synthetic", "image_size": [32, 32], "sampler": identity_batches(4, 4), "workers": 0}
    trainer = {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu"}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return {
        "runs": str(runs),
        "data": {**data, "dataset_options": {"identities": 32, "size": [32, 32]}, **changes.pop("data", {})},
        "model": {**HSGNET, "options": options, **changes.pop("model", {})},
        "trainer": {**trainer, **quiet, **changes.pop("trainer", {})},
        **changes,
    }


class NoisyModule:
    """Makes :class:`ReidModule` draw from every global random generator.

    In a step the process, and those it has started, may get a signal; not before others have come to the
    barrier ``together``, for a process whose peer is gone would fail before its own signal.
    """

    def __init__(
        self, signal_in_step: int | None = None, number: int = signal.SIGKILL, together: Any = None
    ) -> None:
        self.signal_in_step, self.number, self.together = signal_in_step, number, together
        self.forward = ReidModule.forward

    def __enter__(self) -> None:
        def noisy(module: ReidModule, images: Tensor) -> Any:
            if module.training and module.global_step == self.signal_in_step:
                if self.together is not None:
                    self.together.wait(300)
                children = multiprocessing.active_children() if self.number != signal.SIGKILL else []
                for process in (*children, multiprocessing.current_process()):  # a terminal's goes to all
                    assert process.pid is not None
                    os.kill(process.pid, self.number)
            noise = torch.randn_like(images) + float(np.random.standard_normal()) + random.random()  # noqa: NPY002
            return self.forward(module, images + 0.01 * noise)

        ReidModule.forward = noisy  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        ReidModule.forward = self.forward  # type: ignore[method-assign]


class SmallNet(nn.Module):
    """Every kind of layer with batch statistics."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            HSGM(6, size - 2, size - 2, levels=(1, 2), scales=(1, 2)),
            BatchNormAct2d(6),
        )
        self.classifier = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.layers(images).mean(dim=(2, 3))
        return {"features": features, "logits": self.classifier(features)}


def gradients(rank: int, world_size: int, steps: int = 3) -> dict[str, Tensor]:
    """Losses, weights and buffers after a few steps on this process's share of joint batches, in float64."""
    torch.manual_seed(0)
    net: nn.Module = SmallNet(size=10).double()
    images = torch.randn(steps, 16, 3, 10, 10, dtype=torch.float64)
    identities = torch.arange(16) // 4 % 4
    module: Any = LightningModule()
    module._trainer = _FewTrainer(world_size)
    found, trained = {}, net
    if world_size > 1:
        net = JointBatchNorm().apply(net)
        trained = nn.parallel.DistributedDataParallel(net)
    share = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
    loss = WeightedLoss(HSGNET_LOSSES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        values = loss(joint(module, trained(images[step, share])), joint(module, identities[share]))
        optimizer.zero_grad()
        values["total"].backward()
        found |= {
            f"{step}.{name}": p.grad.clone() for name, p in net.named_parameters() if p.grad is not None
        }
        optimizer.step()
        found |= {f"{step}.{name}": value.detach() for name, value in values.items()}
    return found | {f"end.{name}": value for name, value in net.state_dict().items()}


class _FewTrainer:
    """As much of a trainer as ``LightningModule.all_gather`` needs."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.strategy = self

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        from lightning.fabric.utilities.distributed import _all_gather_ddp_if_available

        return _all_gather_ddp_if_available(tensor, group=group, sync_grads=sync_grads)


def run_killed(settings: Mapping[str, Any], step: int) -> None:
    torch.set_num_threads(1)
    # The test's own way is inherited. Workers started by a server don't see that their process is gone.
    multiprocessing.set_start_method("fork", force=True)
    with NoisyModule(step):
        train(settings)


def run_noisy(
    settings: Mapping[str, Any], environment: Mapping[str, str], step: int | None, together: Any
) -> None:
    """As torchrun starts a process; before a step it may end itself, when the others are there."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    os.environ.update(environment)
    with NoisyModule(step, together=together):
        train(settings)


def run_interrupted(
    recipe_file: str, step: int, number: int, environment: Mapping[str, str] | None = None, *words: str
) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment or {})
    multiprocessing.set_start_method("fork", force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a terminal's processes have it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    with NoisyModule(step, number):
        sys.exit(main(["train", recipe_file, *words]))


def run_refused(settings: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    with pytest.raises(FileExistsError, match="is being trained by another process"):
        train(settings)


def run_shared(settings: Mapping[str, Any], path: str, environment: Mapping[str, str]) -> None:
    """As torchrun starts a process: first :func:`gradients`, saved, then a run."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.save(gradients(rank, torch.distributed.get_world_size()), f"{path}.{rank}")
    train(settings)
