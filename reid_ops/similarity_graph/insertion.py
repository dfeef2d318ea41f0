"""What a layer of a model gives, found by running the model up to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .plan import OP


class _Found(Exception):
    """Carries a layer's output size out of a model's forward pass."""


def features_of(
    model: nn.Module, layer: nn.Module, name: str, image_size: tuple[int, int]
) -> tuple[int, int, int]:
    """Channels, height and width of a layer's output for images of that size."""

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        raise _Found(tuple(output.shape[1:]) if isinstance(output, Tensor) and output.dim() == 4 else None)

    first = next(model.parameters(), torch.empty(()))
    modes = {module: module.training for module in model.modules()}
    handle = layer.register_forward_hook(stop)
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, *image_size, dtype=first.dtype, device=first.device))
    except _Found as found:
        if found.args[0] is None:
            raise ValueError(f"{OP}: layer {name!r} does not give features (N, C, H, W)") from None
        return found.args[0]  # type: ignore[no-any-return]
    finally:
        handle.remove()
        for module, training in modes.items():
            module.training = training
    raise ValueError(f"{OP}: the model does not run its layer {name!r}")
