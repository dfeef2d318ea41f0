"""What networks cost: parameters, and multiply-accumulates for one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .network import Network


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    Attributes:
        parameters: trainable ones, with heads and classifiers.
        macs: multiply-accumulates of convolutions and matrix products in a forward pass of one image in
            evaluation mode (a FLOP count by the other convention is twice that). Normalisation, activations,
            pooling and fused operators are not in the count.
    """

    parameters: int
    macs: int


def measure_complexity(model: Network, image_size: Sequence[int] | None = None) -> Complexity:
    """Counts a network's parameters and its MACs for one image.

    Args:
        model: from :func:`create_model`. Its mode and weights stay.
        image_size: height and width; None: the model's own.

    Returns:
        :class:`Complexity`, which says what is counted.

    Example:
        >>> measure_complexity(create_model("baseline", 576)).macs / 1e9
        8.107...
    """
    height, width = image_size or model.image_size
    parameter = next(model.parameters())
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(parameter.new_zeros(1, 3, height, width))
    finally:
        for module, training in modes.items():
            module.training = training
    return Complexity(parameters=count_parameters(model), macs=counter.get_total_flops() // 2)


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
