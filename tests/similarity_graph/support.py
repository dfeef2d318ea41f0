"""What HSGM's tests share: a module with random parameters, all results of one pass, and their comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import reid_ops

Results = dict[str, Tensor]


def make(
    shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float64, **options: Any
) -> reid_ops.HSGM:
    """A module with random parameters and running statistics, the same for every dtype."""
    torch.manual_seed(3)
    module = reid_ops.HSGM(*shape[1:], **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1, 0.3)
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
    return module.to(device=device, dtype=dtype)


def run(module: nn.Module, x: Tensor, grad: Tensor) -> Results:
    """Output, all gradients and all buffers after one pass."""
    x = x.detach().requires_grad_()
    y = module(x)
    y.backward(grad.to(y.dtype))
    assert x.grad is not None and x.grad.dtype == x.dtype and y.dtype == x.dtype and y.shape == x.shape
    results = {"y": y.detach(), "x.grad": x.grad}
    results |= {f"{name}.grad": p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert len(results) == 2 + len(list(module.parameters()))
    return results | {name: buffer.clone() for name, buffer in module.named_buffers()}


def assert_close(found: Results, expected: Results, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        scale = expected[name].double().abs().max()
        if (
            name == "delta.grad"
        ):  # batch norm undoes a channel's scale: what is left of this one is cancellation
            scale = scale + expected["norm.weight.grad"].abs().max()
        error = (tensor.double() - expected[name].double()).abs().max()
        assert error <= tolerance * scale, f"{name}: off by {error:.3g}, largest {scale:.3g}"
