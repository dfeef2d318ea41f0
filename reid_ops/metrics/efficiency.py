"""HENet's efficiency score (Eqs. 10 and 11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_OP = "efficiency_score"
_FIELDS = ("rank1", "mean_ap", "feature_dim", "volume", "speed")


@dataclass(frozen=True)
class EfficiencyScore:
    """A model's score: ``total`` is Eq. 11, the other two are Eq. 10 by rank-1 and by mAP."""

    rank1: float
    mean_ap: float
    total: float


def efficiency_score(
    models: Mapping[str, Mapping[str, float]],
    *,
    largest: str | None = None,
    weakest: str | None = None,
    weight: float = 1.0,
    threshold: float = 30.0,
    speed_exponent: float = 2.0,
    metric_exponent: float = 3.0,
) -> dict[str, EfficiencyScore]:
    r"""Scores models by accuracy, speed, size and feature length together (HENet, Eqs. 10 and 11).

    .. math::
        Score^T(c) = \frac{V_c S_c^2 (M_c - M_2 + thr)^3 / FD_c}{V_1 S_1^2 (M_1 - M_2 + thr)^3 / FD_1},
        \qquad ES = \frac{Score^{R1} + \lambda\, Score^{mAP}}{1 + \lambda}

    M is the metric T (rank-1 or mAP), model 1 the largest and model 2 the one with the lowest rank-1. The
    score grows with V, the size, as printed: that reading gives the paper's eight values to the digit.

    Args:
        models: name -> ``rank1`` and ``mean_ap`` in percent, ``feature_dim``, ``volume`` (MB) and ``speed``
            (frames a second).
        largest: name of model 1; None: the one with the largest volume.
        weakest: name of model 2; None: the one with the lowest rank-1.
        weight: :math:`\lambda`, from 0.
        threshold: thr.
        speed_exponent: the 2.
        metric_exponent: the 3.

    Returns:
        name -> :class:`EfficiencyScore`, in the order given. Model 1 has 1.

    Raises:
        TypeError: ``models`` or one of them is no mapping, or a value no number.
        ValueError: no models, a missing field or name, a value that is not positive or finite, a metric so
            far below model 2's that the bracket is not positive, or a score beyond what a float holds.

    Example:
        >>> models = {
        ...     "HPM": dict(rank1=94.2, mean_ap=82.7, feature_dim=3840, volume=356, speed=82),
        ...     "AlignedReID": dict(rank1=91.8, mean_ap=79.3, feature_dim=2048, volume=100, speed=207),
        ... }
        >>> round(efficiency_score(models)["AlignedReID"].total, 2)
        2.55
    """
    if not isinstance(models, Mapping):
        raise TypeError(f"{_OP}: models must be a mapping of names, got {type(models).__name__}")
    if not models:
        raise ValueError(f"{_OP}: models must name at least one model, got none")
    for name, values in models.items():
        _check(name, values)
    if not 0.0 <= weight < math.inf:
        raise ValueError(f"{_OP}: weight must be finite and at least 0, got {weight}")
    numbers = {"threshold": threshold, "speed_exponent": speed_exponent, "metric_exponent": metric_exponent}
    for argument, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{_OP}: {argument} must be finite, got {number}")
    for argument, chosen in (("largest", largest), ("weakest", weakest)):
        if chosen is not None and chosen not in models:
            raise ValueError(f"{_OP}: {argument} must be one of {', '.join(models)}, got {chosen!r}")
    first = largest or max(models, key=lambda name: models[name]["volume"])
    second = weakest or min(models, key=lambda name: models[name]["rank1"])

    def score(name: str, metric: str) -> float:
        values = models[name]
        lead = values[metric] - models[second][metric] + threshold
        if lead <= 0.0:
            raise ValueError(
                f"{_OP}: {metric} of {name!r} must be above that of {second!r} less threshold; "
                f"the difference is {lead}"
            )
        size = values["volume"] / values["feature_dim"]
        try:
            found = size * values["speed"] ** speed_exponent * lead**metric_exponent
        except OverflowError:
            found = math.inf
        if not 0.0 < found < math.inf:
            raise ValueError(f"{_OP}: the numbers of model {name!r} must have a finite score, got {found}")
        return found

    scores = {}
    for name in models:
        rank1 = score(name, "rank1") / score(first, "rank1")
        mean_ap = score(name, "mean_ap") / score(first, "mean_ap")
        total = (rank1 + weight * mean_ap) / (1.0 + weight)
        if not math.isfinite(total):
            raise ValueError(f"{_OP}: the numbers of model {name!r} must have a finite score, got {total}")
        scores[name] = EfficiencyScore(rank1, mean_ap, total)
    return scores


def _check(name: str, values: Mapping[str, Any]) -> None:
    if not isinstance(values, Mapping):
        raise TypeError(f"{_OP}: model {name!r} must be a mapping of fields, got {type(values).__name__}")
    missing = [field for field in _FIELDS if field not in values]
    if missing:
        raise ValueError(f"{_OP}: model {name!r} must have {', '.join(_FIELDS)}; missing: {missing[0]}")
    for field in _FIELDS:
        least = "at least 0" if field in ("rank1", "mean_ap") else "above 0"
        value = values[field]
        if not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"{_OP}: {field} of model {name!r} must be a number, got {type(value).__name__}")
        if not math.isfinite(value) or value < 0 or (least == "above 0" and value == 0):
            raise ValueError(f"{_OP}: {field} of model {name!r} must be finite and {least}, got {value}")
