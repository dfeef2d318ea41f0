"""HSGNet's Table V: parameters and FLOPs of every backbone, without and with HSGM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from reid_ops import HSGM

from ...networks.complexity import Complexity, count_parameters, measure_complexity
from ...networks.registry import create_model

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
class CostRow:
    """A row of Table V: the network measured, and the paper's figures where it has them.

    HSGM has neither convolutions nor matrix products: its arithmetic, about 6.0 MFLOP behind S3 for 256x256
    and 3.0 for 256x128, is not in the MACs.
    """

    backbone: str
    hsgm: bool
    measured: Complexity
    hsgm_parameters: int
    reported_parameters: float | None
    reported_gflops: float | None


def cost_table(
    backbones: Sequence[str] = ("resnet50", "seresnet50", "res2net50_26w_4s"),
    *,
    num_classes: int = 576,
    image_size: Sequence[int] = (256, 256),
) -> list[CostRow]:
    """Table V: every backbone without and with HSGM.

    Args:
        backbones: names for :func:`create_backbone`.
        num_classes: identities; 576 in VeRi-776.
        image_size: height and width.

    Returns:
        Rows, two a backbone. The paper's figures do not follow from its equations, by which HSGM has 23,808
        parameters in S3 of a ResNet-50 at this size and not 1.2 million: they stand beside, for comparison.

    Example:
        >>> print(format_cost_table(cost_table(["resnet50"])))
    """
    rows = []
    for backbone in backbones:
        for hsgm in (False, True):
            name = "hsgnet" if hsgm else "baseline"
            model = create_model(name, num_classes, backbone=backbone, image_size=image_size)
            parameters, gflops = TABLE_V.get((backbone, hsgm), (None, None))
            own = count_hsgm_parameters(model)
            rows.append(CostRow(backbone, hsgm, measure_complexity(model), own, parameters, gflops))
    return rows


def count_hsgm_parameters(model: nn.Module) -> int:
    """Trainable parameters of a network's HSGM modules."""
    return sum(count_parameters(module) for module in model.modules() if isinstance(module, HSGM))


def format_cost_table(rows: Iterable[CostRow]) -> str:
    """A Markdown table of :func:`cost_table`."""
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
