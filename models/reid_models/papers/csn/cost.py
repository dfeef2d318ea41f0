"""What CSN costs: operations of an image and of a pair, parameters and depth (Table 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...networks.complexity import count_parameters
from .layers import CHANNELS
from .network import CSN


@dataclass(frozen=True)
class PairCost:
    """What scoring a pair costs.

    Multiply-accumulates are those of convolutions, matrix products and the correlation (Eq. 2), in evaluation
    mode. Normalisation, activations, pooling and the transformers' sampling are not counted: together 0.6 %.

    Attributes:
        parameters: trainable ones.
        depth: convolutions as Table 5 counts them, see :attr:`CSN.depth`.
        image_macs: of one image: extractor, transformers, ranking net. With codes they are done once.
        pair_macs: of one pair: correlations both ways, decision.
    """

    parameters: int
    depth: int
    image_macs: int
    pair_macs: int

    @property
    def gflops(self) -> float:
        """Of a pair from its two images, 2 x MAC, in 10^9: Table 5's column."""
        return 2 * (2 * self.image_macs + self.pair_macs) / 1e9


def pair_cost(model: CSN) -> PairCost:
    """Counts what a network costs.

    Args:
        model: its mode, weights and device stay.

    Example:
        >>> pair_cost(create_model("csn", 2, levels=(2, 3))).gflops
        0.931...
    """
    parameter = next(model.parameters())
    modes = {module: module.training for module in model.modules()}
    images, pair = parameter.new_zeros(1, 3, *model.image_size), torch.zeros(1, 2, dtype=torch.int64)
    try:
        model.eval()
        with torch.no_grad():
            with FlopCounterMode(display=False) as of_image:
                codes = model.codes(images)
            maps = model.similarity(codes, codes, pair.to(images.device))
            with FlopCounterMode(display=False) as of_decision:
                model.head(maps)
    finally:
        for module, training in modes.items():
            module.training = training
    return PairCost(
        parameters=count_parameters(model),
        depth=model.depth,
        image_macs=of_image.get_total_flops() // 2,
        pair_macs=of_decision.get_total_flops() // 2 + correlation_macs(model),
    )


def correlation_macs(model: CSN) -> int:
    """Of Eq. 2 for one pair, both ways: every part's f x f taps at every place of every channel."""
    total = 0
    for level in model.levels:
        (height, width), size = model.map_sizes[level], model.part_sizes[level]
        total += 2 * model.part_count * CHANNELS * height * width * size * size
    return total
