"""Parameters and FLOPs of networks, beside those that HSGNet's Table V reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reid_ops import HSGM

from .baseline import Baseline
from .registry import create_model

#: Table V on VeRi-776: (backbone, with HSGM) -> millions of parameters and GFLOPs as printed.
TABLE_V: dict[tuple[str, bool], tuple[float, float]] = {
    ("resnet50", False): (25.63, 4.36),
    ("resnet50", True): (26.85, 4.42),
    ("seresnet50", False): (28.87, 4.41),
    ("seresnet50", True): (30.13, 4.47),
    ("res2net50_26w_4s", False): (26.23, 4.38),
    ("res2net50_26w_4s", True): (27.49, 4.44),
}


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    Attributes:
        parameters: trainable ones, with CBR and classifier.
        hsgm_parameters: those of them that belong to HSGM modules.
        macs: multiply-accumulates of convolutions and matrix products in a forward pass of one image in
            evaluation mode (a FLOP count by the other convention is twice that). HSGM has neither: its
            arithmetic, about 6.0 MFLOP behind S3 for 256x256 and 3.0 for 256x128, is not in the count, and
            neither are normalisation, activations and pooling.
    """

    parameters: int
    hsgm_parameters: int
    macs: int


@dataclass(frozen=True)
class ComplexityRow:
    """A row of Table V: the network measured, and the paper's figures where it has them."""

    backbone: str
    hsgm: bool
    measured: Complexity
    reported_parameters: float | None
    reported_gflops: float | None


def measure_complexity(model: Baseline, image_size: Sequence[int] | None = None) -> Complexity:
    """Counts a network's parameters and its MACs for one image.

    Args:
        model: from :func:`create_model`. Its mode and weights stay.
        image_size: height and width; None: the model's own.

    Returns:
        :class:`Complexity`, which says what is counted.

    Example:
        >>> measure_complexity(create_model("hsgnet", 576)).hsgm_parameters
        23808
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
    modules = [module for module in model.modules() if isinstance(module, HSGM)]
    return Complexity(
        parameters=_parameters([model]),
        hsgm_parameters=_parameters(modules),
        macs=counter.get_total_flops() // 2,
    )


def complexity_table(
    backbones: Sequence[str] = ("resnet50", "seresnet50", "res2net50_26w_4s"),
    *,
    num_classes: int = 576,
    image_size: Sequence[int] = (256, 256),
) -> list[ComplexityRow]:
    """Table V: every backbone without and with HSGM.

    Args:
        backbones: names for :func:`create_backbone`.
        num_classes: identities; 576 in VeRi-776.
        image_size: height and width.

    Returns:
        Rows, two a backbone. The paper's figures do not follow from its equations, by which HSGM has 23,808
        parameters in S3 of a ResNet-50 at this size and not 1.2 million: they stand beside, for comparison.

    Example:
        >>> print(format_complexity_table(complexity_table(["resnet50"])))
    """
    rows = []
    for backbone in backbones:
        for hsgm in (False, True):
            model = create_model(
                "hsgnet" if hsgm else "baseline", num_classes, backbone=backbone, image_size=image_size
            )
            parameters, gflops = TABLE_V.get((backbone, hsgm), (None, None))
            rows.append(ComplexityRow(backbone, hsgm, measure_complexity(model), parameters, gflops))
    return rows


def format_complexity_table(rows: Iterable[ComplexityRow]) -> str:
    """A Markdown table of :func:`complexity_table`."""
    lines = [
        "| backbone | HSGM | parameters, M | paper | GMACs | paper, GFLOPs |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        figures = (row.reported_parameters, row.reported_gflops)
        reported = ["–" if value is None else f"{value:.2f}" for value in figures]
        lines.append(
            f"| {row.backbone} | {'yes' if row.hsgm else 'no'} | {row.measured.parameters / 1e6:.3f} | "
            f"{reported[0]} | {row.measured.macs / 1e9:.3f} | {reported[1]} |"
        )
    return "\n".join(lines)


def _parameters(modules: Sequence[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
