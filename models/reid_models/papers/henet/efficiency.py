"""What a network costs in use, and HENet's efficiency score of it beside Table 1 (section 4.5)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from reid_ops.metrics import EfficiencyScore, efficiency_score

from ...networks.network import Network

#: Table 1's columns on Market-1501: rank-1 and mAP in percent, feature length, MB, frames a second.
TABLE_1: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        name: dict(zip(("rank1", "mean_ap", "feature_dim", "volume", "speed"), values, strict=True))
        for name, values in {
            "AlignedReID": (91.8, 79.3, 2048, 100, 207),
            "PCB": (93.1, 81.0, 1536, 102, 192),
            "HPM": (94.2, 82.7, 3840, 356, 82),
            "MGN": (95.7, 86.9, 2816, 263, 112),
            "HENet(Base)": (92.9, 79.6, 2048, 169, 160),
            "HENet(+RPE)": (93.6, 81.2, 2048, 169, 160),
            "HENet(+Losses)": (95.6, 86.8, 2560, 224, 138),
            "HENet(+Both)": (96.0, 87.2, 2560, 224, 138),
        }.items()
    }
)
LARGEST, WEAKEST = "HPM", "AlignedReID"  # M1 and M2 of Eq. 10
TRAINING_ONLY = ("decoder",)


@dataclass(frozen=True)
class Efficiency:
    """What a network costs in use.

    Attributes:
        feature_length: FD.
        megabytes: of the weights in float32 that evaluation needs, in MiB: no classifiers, no decoder.
        with_classifiers: the same with the classifiers, which the paper's figure for its base model counts.
        images_per_second: S, in batches, with the features on the device.
    """

    feature_length: int
    megabytes: float
    with_classifiers: float
    images_per_second: float


def volume(model: Network, *, classifiers: bool = False) -> float:
    """MiB of a network's weights in float32, without those that only training needs.

    Example:
        >>> round(volume(create_model("henet", 751, recovery=None)), 1)
        162.8
    """
    unused = TRAINING_ONLY if classifiers else (*TRAINING_ONLY, *model.classifiers())
    prefixes = tuple(f"{name}." for name in unused)
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(prefixes))
    return count * 4 / 2**20


@torch.no_grad()
def measure_efficiency(model: Network, *, batch_size: int = 32, repeats: int = 10) -> Efficiency:
    """Measures a network on the device that it is on; its mode stays.

    Args:
        model: of :func:`create_model`.
        batch_size: images at once, at least 1.
        repeats: batches, whose median counts, at least 1; one more goes before, uncounted.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> measure_efficiency(create_model("henet", 751)).feature_length
        2560
    """
    for number, argument in ((batch_size, "batch_size"), (repeats, "repeats")):
        if number < 1:
            raise ValueError(f"measure_efficiency: {argument} must be at least 1, got {number}")
    parameter = next(model.parameters())
    images = torch.rand(batch_size, 3, *model.image_size, device=parameter.device, dtype=parameter.dtype)
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        seconds = [_seconds(model, images) for _ in range(1 + repeats)][1:]
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Efficiency(
        feature_length=model.feature_length,
        megabytes=volume(model),
        with_classifiers=volume(model, classifiers=True),
        images_per_second=batch_size / statistics.median(seconds),
    )


def score(models: Mapping[str, Mapping[str, float]]) -> dict[str, EfficiencyScore]:
    """Efficiency scores of models with Table 1's largest and weakest as M1 and M2 (Eqs. 10 and 11).

    Speeds compare only on one machine: to score models of one's own, measure those two there as well, and
    call :func:`reid_ops.metrics.efficiency_score`.

    Args:
        models: name -> ``rank1``, ``mean_ap``, ``feature_dim``, ``volume``, ``speed``; Table 1's rows of
            M1 and M2 are added where they are not in it.

    Raises:
        ValueError: as :func:`reid_ops.metrics.efficiency_score`.

    Example:
        >>> {name: round(found.total, 2) for name, found in score(TABLE_1).items()}["HENet(+Both)"]
        3.52
    """
    rows = {name: TABLE_1[name] for name in (LARGEST, WEAKEST)} | dict(models)
    scores = efficiency_score(rows, largest=LARGEST, weakest=WEAKEST)
    return {name: scores[name] for name in models}


def _seconds(model: Network, images: torch.Tensor) -> float:
    start = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
