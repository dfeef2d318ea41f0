"""Erasing in place: autograd notices it, and the tensor itself is what comes back."""

from __future__ import annotations

import pytest
import torch

import reid_ops
from tests.conftest import Backend
from tests.polygon_erasing.test_erase import random_images
from tests.polygon_erasing.test_torch import operator_arguments


def test_autograd_notices(backend: Backend) -> None:
    """A tensor that a product saved and erasing then changed: backward raises, as after torch's own ops."""
    for erase in (reid_ops.polygon_erase, reid_ops.random_erase):
        images = random_images((4, 3, 20, 12), device=backend.device)
        weights = torch.ones_like(images, requires_grad=True)
        total = (images * weights).sum()
        version = images._version
        erase(images[1:], p=1.0, seed=1, inplace=True)  # a view: its base counts too
        assert images._version == version + 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()
    erase(images, p=1.0, seed=1)
    assert images._version == version + 1
    with torch.inference_mode():
        erase(torch.zeros(2, 3, 20, 12, device=backend.device), p=1.0, seed=1, inplace=True)


def test_operator_refuses_what_requires_a_gradient(backend: Backend) -> None:
    images, *rest = operator_arguments(backend)
    before = images.clone()
    operator = getattr(torch.ops, backend.library).polygon_erase_
    with pytest.raises(RuntimeError, match="polygon_erase: images must require no gradient"):
        operator(images.requires_grad_(), *rest)
    assert torch.equal(images, before)
    with torch.no_grad():
        operator(images, *rest)
    assert not torch.equal(images, before)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled(compiler: str) -> None:
    images = random_images((4, 3, 20, 12))

    def step(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        reid_ops.polygon_erase(y, seed=3, p=1.0, inplace=True)
        return y + 1

    assert torch.equal(torch.compile(step, fullgraph=True, backend=compiler)(images), step(images))
