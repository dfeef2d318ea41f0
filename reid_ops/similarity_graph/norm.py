"""The batch norms of HSGM's maps as one module, where tools that look for batch norms find them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MapNorm(nn.BatchNorm2d):
    """Parameters and running statistics of all maps' batch norms, map after map in one row.

    :class:`reid_ops.HSGM` computes with them; the module itself is never called. What tools do to a batch
    norm has its meaning: ``nn.SyncBatchNorm.convert_sync_batchnorm`` makes the statistics those of all
    processes, ``torch.optim.swa_utils.update_bn`` measures them anew, ``eval()`` freezes them, and weights of
    one dimension get no weight decay where norms get none.
    """

    def __init__(self, sets: int, maps: int, channels: int, eps: float, momentum: float) -> None:
        super().__init__(maps * channels, eps, momentum)
        if sets != maps:  # maps that share their parameters
            self.weight = nn.Parameter(torch.empty(sets * channels))
            self.bias = nn.Parameter(torch.empty(sets * channels))

    def forward(self, _: Any) -> Tensor:
        """Not by itself."""
        raise NotImplementedError("HSGM: norm holds the module's parameters and statistics; call the module")


class WithMapNorm(nn.Module):
    """A module with a :class:`MapNorm` in ``norm``, whose tensors it shows with a row for each map."""

    channels: int
    norm: Any  # of what class it is may change: nn.SyncBatchNorm.convert_sync_batchnorm replaces it
    _joint: bool  # whether statistics were asked to be those of all processes

    @property
    def weight(self) -> Tensor:
        """``norm.weight`` as (maps or sets of maps, channels), a view."""
        return self.norm.weight.view(-1, self.channels)

    @property
    def bias(self) -> Tensor:
        """``norm.bias`` as (maps or sets of maps, channels), a view."""
        return self.norm.bias.view(-1, self.channels)

    @property
    def running_mean(self) -> Tensor:
        """``norm.running_mean`` as (maps, channels), a view."""
        return self.norm.running_mean.view(-1, self.channels)

    @property
    def running_var(self) -> Tensor:
        """``norm.running_var`` as (maps, channels), a view."""
        return self.norm.running_var.view(-1, self.channels)

    @property
    def num_batches_tracked(self) -> Tensor:
        """``norm.num_batches_tracked``."""
        tracked: Tensor = self.norm.num_batches_tracked
        return tracked

    @property
    def sync_batchnorm(self) -> bool:
        """Whether batch statistics are those of all processes, also by ``convert_sync_batchnorm``."""
        return self._joint or isinstance(self.norm, nn.SyncBatchNorm)

    @sync_batchnorm.setter
    def sync_batchnorm(self, value: bool) -> None:
        self._joint = value

    @property
    def momentum(self) -> float | None:
        """``norm.momentum``: the newest batch's share of the running statistics; None: they are means."""
        return self.norm.momentum

    @momentum.setter
    def momentum(self, value: float | None) -> None:
        self.norm.momentum = value


def group_of(norm: nn.Module, joint: bool) -> Any:
    """The processes whose batches count together, where there is more than one; else None.

    Those of a ``SyncBatchNorm`` that ``norm`` was converted to; with ``joint``, those of the default group.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    group = getattr(norm, "process_group", None)
    if group is None:
        if not (joint or isinstance(norm, nn.SyncBatchNorm)):
            return None
        group = distributed.group.WORLD
    return group if distributed.get_world_size(group) > 1 else None
