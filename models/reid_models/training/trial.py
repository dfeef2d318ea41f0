"""A network tried before a run writes anything: what its outputs are named, and how wide they are."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ..networks.network import Network

INPUTS = ("identities", "pairs")  # of a batch, that a network may ask for besides its images


def asked_inputs(network: Network) -> tuple[str, ...]:
    """Which of :data:`INPUTS` the signature of the network's ``outputs`` names."""
    parameters = inspect.signature(type(network).outputs).parameters
    return tuple(name for name in INPUTS if name in parameters)


@torch.no_grad()
def output_widths(network: Network) -> dict[str, tuple[int, ...]]:
    """Names of a network's training outputs, and the last dimension of every head of each.

    Two black images go through in evaluation mode; weights, statistics and random generators stay as they
    are.

    Example:
        >>> output_widths(create_model("baseline", 751))
        {'logits': (751,), 'features': (2048,)}
    """
    modes = {module: module.training for module in network.modules()}
    parameter = next(network.parameters())
    images = parameter.new_zeros(2, 3, *network.image_size)
    inputs: dict[str, Any] = {
        "identities": torch.zeros(2, dtype=torch.int64, device=parameter.device),
        "pairs": torch.tensor([[0, 1]], device=parameter.device),
    }
    try:
        with torch.random.fork_rng(devices=()):
            asked = {name: inputs[name] for name in asked_inputs(network)}
            outputs = network.eval().outputs(images, **asked)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {name: _widths(output) for name, output in outputs.items()}


def _widths(output: Tensor | tuple[Tensor, ...]) -> tuple[int, ...]:
    heads = (output,) if isinstance(output, Tensor) else output
    return tuple(head.shape[-1] for head in heads)
