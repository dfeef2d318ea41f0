"""HSGM and the tools that people run over their networks: batch norms, weight decay, layouts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reid_ops
from tests.conftest import Backend
from tests.similarity_graph.support import make, run

SHAPE = (3, 6, 8, 5)


def inputs(count: int = 1) -> list[Tensor]:
    return list(torch.randn(count, *SHAPE, dtype=torch.float64))


def test_sync_batch_norm_conversion() -> None:
    """It finds the batch norms, keeps what they hold, and HSGM computes with the result as before."""
    module, (x,) = make(SHAPE, "cpu"), inputs()
    before = run(copy.deepcopy(module), x, torch.ones_like(x))
    names = list(module.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(module))[0]
    assert converted is module and isinstance(module.norm, nn.SyncBatchNorm) and module.sync_batchnorm
    assert list(module.state_dict()) == names
    after = run(module, x, torch.ones_like(x))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_update_bn_measures_the_statistics_anew(impl: str) -> None:
    """The mean over batches of each batch's statistics, and the momentum of before."""
    batches, measured = inputs(3), []
    for batch in batches:
        module = make(SHAPE, "cpu", impl=impl, momentum=1.0)
        module(batch)
        measured.append((module.running_mean.clone(), module.running_var.clone()))
    module = make(SHAPE, "cpu", impl=impl, momentum=0.3)
    torch.optim.swa_utils.update_bn(batches, nn.Sequential(module))
    assert module.momentum == 0.3 and module.num_batches_tracked == 3
    means, variances = (torch.stack(tables).mean(0) for tables in zip(*measured, strict=True))
    torch.testing.assert_close(module.running_mean, means, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.running_var, variances, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_frozen_batch_norms(impl: str) -> None:
    """A training loop that puts batch norms into evaluation gets the running statistics, and leaves them."""
    module, (x,) = make(SHAPE, "cpu", impl=impl).train(), inputs()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    before = copy.deepcopy(module.state_dict())
    found = module(x)
    assert torch.equal(found, make(SHAPE, "cpu", impl=impl).eval()(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_weights_of_one_dimension() -> None:
    """Where weights of one dimension get no weight decay, the batch norms' get none; the graphs' do."""
    module = reid_ops.HSGM(6, 8, 5)
    without = {name for name, parameter in module.named_parameters() if parameter.ndim <= 1}
    assert without == {"norm.weight", "norm.bias"}


def test_the_tables_are_views() -> None:
    module = make(SHAPE, "cpu", share_parameters="level")
    for name, rows in (("weight", 3), ("bias", 3), ("running_mean", 7), ("running_var", 7)):
        table, row = getattr(module, name), getattr(module.norm, name)
        assert table.shape == (rows, 6) and table.data_ptr() == row.data_ptr()
    with pytest.raises(NotImplementedError, match="call the module"):
        module.norm(torch.zeros(SHAPE))


# ------------------------------------------------------------------ layouts


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_planes_last(backend: Backend, impl: str) -> None:
    """layout="NHWC" is the same module on permuted features, and keeps them contiguous."""
    x, grad = torch.randn(2, *SHAPE, dtype=torch.float64, device=backend.device)
    expected = run(make(SHAPE, backend.device, impl=impl), x, grad)
    x, grad = (tensor.permute(0, 2, 3, 1).contiguous() for tensor in (x, grad))
    found = run(make(SHAPE, backend.device, impl=impl, layout="NHWC"), x, grad)
    for name in ("y", "x.grad"):
        assert found[name].is_contiguous() or impl == "reference"
        found[name] = found[name].permute(0, 3, 1, 2)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 8, 5, 6\), got \(3, 6, 8, 5\)"):
        make(SHAPE, backend.device, layout="NHWC")(expected["y"])


class PlanesLast(nn.Module):
    """Convolutions whose stages give (N, H, W, C), as Swin's do."""

    def __init__(self, channels: int, only: int | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.stage = Permute()
        self.only = only

    def forward(self, x: Tensor) -> Tensor:
        if self.only is not None and x.shape[2] != self.only:
            raise AssertionError("another size")
        return self.stage(self.stem(x)).mean((1, 2))


class Permute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("channels", "height"), [(24, 64), (8, 64), (16, 64), (8, 32)])
def test_insert_after_a_stage_with_planes_last(channels: int, height: int) -> None:
    """By the image's proportions, or, where all sides are alike, by what grows with the image."""
    model = PlanesLast(channels)
    module = reid_ops.HSGM.insert_after(model, "stage", (height, 64))
    sizes = module.layout, module.channels, module.height, module.width
    assert sizes == ("NHWC", channels, height // 4, 16)
    with torch.no_grad():
        plain = model.stem(torch.ones(2, 3, height, 64))
        module.eval()
        expected = reid_ops.HSGM(channels, height // 4, 16).eval()(plain).mean((2, 3))
        torch.testing.assert_close(model(torch.ones(2, 3, height, 64)), expected)
    module = reid_ops.HSGM.insert_after(model, "stem", (height, 64))
    assert (module.layout, module.channels) == ("NCHW", channels)


def test_a_layout_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"'stage' gives \(16, 16, 16\), which may be .*; say layout="):
        reid_ops.HSGM.insert_after(PlanesLast(16, only=64), "stage", (64, 64))
    module = reid_ops.HSGM.insert_after(PlanesLast(16, only=64), "stage", (64, 64), layout="NHWC")
    assert module.layout == "NHWC"
    options: dict[str, Any] = {"layout": "NWHC"}
    with pytest.raises(ValueError, match='layout must be one of "NCHW", "NHWC"'):
        reid_ops.HSGM(6, 8, 5, **options)
