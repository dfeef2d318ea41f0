"""Several processes as one: outputs of the joint batch, and batch norm over it.

With both, N processes that each take their part of a batch compute what one process computes with the whole
batch. Every process computes the loss of the joint batch. The gradient of :func:`joint` sums what all N
copies of that loss send back, N times the wanted gradient, and DDP's mean over processes divides by N.
"""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import LayerSync
from lightning_utilities.core.apply_func import apply_to_collection
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reid_ops import HSGM


def joint(module: LightningModule, outputs: Any) -> Any:
    """Tensors of the joint batch from those of each process's part, in the order of ranks, with gradient.

    Args:
        module: attached to a trainer.
        outputs: tensors (N, ...), the same shapes in every process, also nested in dicts, lists and tuples.

    Returns:
        The same structure of tensors (world_size * N, ...).
    """
    if module.trainer.world_size == 1:
        return outputs
    gathered = module.all_gather(outputs, sync_grads=True)
    return apply_to_collection(gathered, Tensor, lambda tensor: tensor.flatten(0, 1))


class JointBatchNorm(LayerSync):
    """Lightning's plugin that gives batch norm, HSGM's too, the statistics of the joint batch.

    Lightning's own, ``sync_batchnorm=True``, loses the activation that timm's ``BatchNormAct2d`` holds, does
    not know HSGM, and does not run on the CPU. Parameters, buffers and their names stay.

    Example:
        >>> Trainer(strategy="ddp", devices=2, plugins=[JointBatchNorm()])
    """

    def apply(self, model: nn.Module) -> nn.Module:
        if torch.distributed.get_backend() == "nccl":
            model = convert_sync_batchnorm(model)
        else:
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.__dict__["forward"] = types.MethodType(_joint_forward, module)
        _set_hsgm(model, True)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__dict__.pop(
                    "forward", None
                )  # SyncBatchNorm, if it is one, is batch norm in evaluation
        _set_hsgm(model, False)
        return model


def _set_hsgm(model: nn.Module, value: bool) -> None:
    for module in model.modules():
        if isinstance(module, HSGM):
            module.sync_batchnorm = value


def _joint_forward(self: Any, inputs: Tensor) -> Tensor:
    """What ``SyncBatchNorm`` does, for processes without a GPU; every process has as many inputs."""
    if not self.training:
        evaluated: Tensor = type(self).forward(self, inputs)
        return evaluated
    processes = torch.distributed.get_world_size()
    dimensions = [d for d in range(inputs.dim()) if d != 1]
    shape = [1, -1, *[1] * (inputs.dim() - 2)]
    values = inputs.float() if inputs.dtype in (torch.float16, torch.bfloat16) else inputs
    mean = _Sum.apply(values.mean(dimensions)) / processes
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().mean(dimensions)) / processes
    outputs = centred * (variance + self.eps).rsqrt().view(shape)
    if self.affine:
        outputs = outputs * self.weight.view(shape) + self.bias.view(shape)
    if self.track_running_stats:
        _track(self, mean.detach(), variance.detach(), processes * inputs.numel() // inputs.shape[1])
    outputs = outputs.to(inputs.dtype)
    for name in ("drop", "act"):  # of timm's BatchNormAct2d
        if hasattr(self, name):
            outputs = getattr(self, name)(outputs)
    return outputs


class _Sum(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total


def _track(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    unbiased = variance * (count / max(1, count - 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
