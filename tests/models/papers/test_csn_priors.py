"""The transformers' priors by their formula, and that training by them brings crops back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reid_models.papers.csn.losses import LOSSES, TransformPriors


def by_hand(transform: Tensor, positive: float, inside: float, upright: float, least: float) -> float:
    (s_w, r_w, t_w), (r_h, s_h, t_h) = transform.tolist()
    total = upright * (abs(r_w) + abs(r_h))
    for s, t in ((s_w, t_w), (s_h, t_h)):
        total += positive * max(0.0, least - s) ** 2
        total += inside * (max(0.0, abs(s + t) - 1) ** 2 + max(0.0, abs(s - t) - 1) ** 2)
    return total


@pytest.mark.parametrize(
    "weights", [{}, {"positive": 0.0}, {"inside": 0.0, "upright": 2.0}, {"upright": 0.0, "least": 0.4}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_formula(weights: dict[str, float], dtype: torch.dtype) -> None:
    transforms = torch.tanh(2 * torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(0))).to(dtype)
    full = {"positive": 1.0, "inside": 1.0, "upright": 1.0, "least": 0.1, **weights}
    expected = sum(by_hand(t.double(), **full) for t in transforms.flatten(0, 1)) / 12
    found = LOSSES["transform_priors"](**weights)(transforms)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_central_crop_costs_nothing_and_none_neither() -> None:
    crop = torch.tensor([[[0.6, 0.0, 0.4], [0.0, 0.5, -0.5]]])
    assert float(TransformPriors()(crop)) == pytest.approx(0.0, abs=1e-12)
    assert float(TransformPriors()(torch.empty(0, 3, 2, 3))) == 0.0


def test_descent_brings_crops_back() -> None:
    free = torch.tensor([[[-0.4, 0.5, 0.9], [-0.6, 0.05, -0.9]]], requires_grad=True)
    optimizer = torch.optim.SGD([free], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        TransformPriors()(free).backward()
        optimizer.step()
    (s_w, r_w, t_w), (r_h, s_h, t_h) = free[0].tolist()
    assert min(s_w, s_h) > 0.09 and max(abs(r_w), abs(r_h)) < 0.06
    assert max(abs(s_w) + abs(t_w), abs(s_h) + abs(t_h)) < 1.02


@pytest.mark.parametrize(
    ("options", "value", "error", "message"),
    [
        ({"positive": -1}, None, ValueError, "positive must be finite and at least 0, got -1"),
        ({}, torch.zeros(2, 3, 2), ValueError, r"transforms must have shape \(..., 2, 3\), got \(2, 3, 2\)"),
        ({}, torch.zeros(2, 3, dtype=torch.int64), TypeError, "transforms must be a floating tensor"),
    ],
)
def test_errors(options: dict[str, Any], value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TransformPriors(**options)(value)
