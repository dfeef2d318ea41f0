"""HCN against its definition: cross maps literally and by sums, heads, frozen statistics, Caffe's input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reid_models.papers.hcn.cross_map import MERGES, CrossMap, bilinear_kernel
from reid_models.papers.hcn.network import HCN, HEADS

SMALL: dict[str, Any] = {"backbone": "resnet18", "image_size": (64, 96)}


def made(**options: Any) -> HCN:
    torch.manual_seed(0)
    return HCN(5, **{**SMALL, "zero_lateral": False, **options})


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def literal_map(top: Tensor, bottom: Tensor, weight: Tensor) -> Tensor:
    """C pixel by pixel: what each place of the top map gives to 8x8 places, and the sum over channels."""
    count, channels, height, width = top.shape
    wide = top.new_zeros(count, channels, 4 * height + 4, 4 * width + 4)
    kernel = torch.tensor([1, 3, 5, 7, 7, 5, 3, 1], dtype=top.dtype) / 8
    for y in range(height):
        for x in range(width):
            wide[:, :, 4 * y : 4 * y + 8, 4 * x : 4 * x + 8] += (
                top[:, :, y, x, None, None] * kernel[:, None] * kernel
            )
    merged = wide[:, :, 2:-2, 2:-2]
    return merged + torch.einsum("cb,nbhw->nchw", weight, bottom)


def test_the_cross_map_is_its_definition() -> None:
    torch.manual_seed(0)
    cross = CrossMap(3, 4, zero_lateral=False).double()
    top, bottom = torch.randn(2, 3, 2, 3).double(), torch.randn(2, 4, 8, 12).double()
    expected = literal_map(top, bottom, cross.lateral.weight[:, :, 0, 0])
    torch.testing.assert_close(cross.map(top, bottom), expected)
    torch.testing.assert_close(cross(top, bottom), expected.mean((2, 3)))


def test_the_deconvolution_is_bilinear_inside_and_weaker_at_the_border() -> None:
    """The least weight is .391; from the third pixel on it is interpolation."""
    assert bilinear_kernel().tolist() == [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125]
    cross = CrossMap(1, 1)
    ones = cross.map(torch.ones(1, 1, 7, 7), torch.zeros(1, 1, 28, 28)).detach()
    assert float(ones.min()) == pytest.approx(0.625**2) and float(ones.max()) == 1.0
    assert bool((ones[:, :, 2:-2, 2:-2] == 1).all())
    top = torch.rand(1, 1, 7, 7)
    smooth = F.interpolate(top, scale_factor=4, mode="bilinear", align_corners=False)
    found = cross.map(top, torch.zeros(1, 1, 28, 28)).detach()
    torch.testing.assert_close(found[:, :, 2:-2, 2:-2], smooth[:, :, 2:-2, 2:-2])
    assert float((found - smooth).abs().max()) > 0.1
    torch.testing.assert_close(
        CrossMap(1, 1, merge="interpolation").map(top, torch.zeros(1, 1, 28, 28)), smooth
    )


@pytest.mark.parametrize("smoothing", [False, True])
@pytest.mark.parametrize("merge", MERGES)
def test_sums_are_the_literal_maps_average(merge: str, smoothing: bool) -> None:
    """Forward and all gradients; float64, so that only rounding is left: some thousand terms of 1e-16."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"merge": merge, "smoothing": smoothing, "zero_lateral": False}
    fused, literal = (CrossMap(6, 5, **options, impl=impl).double() for impl in ("fused", "literal"))
    for parameter in fused.parameters():
        nn.init.normal_(parameter)
    literal.load_state_dict(fused.state_dict())
    maps = [torch.randn(3, 6, 3, 5).double(), torch.randn(3, 5, 12, 20).double()]
    direction = torch.randn(3, 6).double()
    results, gradients = [], []
    for cross in (fused, literal):
        given = [tensor.clone().requires_grad_() for tensor in maps]
        result = cross(*given)
        results.append(result.detach())
        gradients.append(torch.autograd.grad((result * direction).sum(), [*given, *cross.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-13)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


def test_the_whole_network_by_sums_and_literally() -> None:
    fused, literal = (made(impl=impl, test_feature="all", dropout=0.0) for impl in ("fused", "literal"))
    fused_out, literal_out = fused(images()), literal(images())
    assert tuple(fused_out) == HEADS
    for head in HEADS:
        assert fused_out[head].shape == (2, 5)
        torch.testing.assert_close(fused_out[head], literal_out[head], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fused.eval()(images()), literal.eval()(images()), rtol=1e-4, atol=1e-5)


def test_the_maps_are_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrossMap, "map", None)
    made()(images())
    with pytest.raises(TypeError):
        made(impl="literal")(images())


@pytest.mark.parametrize(("feature", "length"), [("r5", 512), ("c1", 512), ("c2", 256), ("all", 1280)])
def test_test_features(feature: str, length: int) -> None:
    model = made(test_feature=feature).eval()
    found = model(images())
    assert found.shape == (2, length) and model.feature_length == length
    whole = made(test_feature="all").eval()(images())
    start = {"r5": 0, "c1": 512, "c2": 1024, "all": 0}[feature]
    torch.testing.assert_close(found, whole[:, start : start + length])


def test_resnet_is_the_r5_head_alone() -> None:
    """The baseline's trunk and head are HCN's, so that losses of Fig. 3 compare."""
    baseline, model = made(heads=("r5",)), made()
    assert not len(baseline.cross_maps) and baseline.classifiers() == ("classifier.r5",)
    model.load_state_dict(baseline.state_dict(), strict=False)
    torch.testing.assert_close(baseline.eval()(images()), model.eval()(images()))
    assert tuple(baseline.train()(images())) == ("r5",)


def test_parameters_are_the_papers() -> None:
    """Laterals 1,310,720 and heads 3,847,373 for 751 persons; 28.67 M with the trunk."""
    with torch.device("meta"):
        laterals = sum(
            p.numel() for cross in (CrossMap(2048, 512), CrossMap(1024, 256)) for p in cross.parameters()
        )
    heads = 2 * (2048 * 751 + 751) + 1024 * 751 + 751
    assert (laterals, heads) == (1_310_720, 3_847_373)
    model = HCN(751)
    count = sum(p.numel() for p in model.parameters())
    assert count == sum(p.numel() for p in model.backbone.parameters()) + laterals + heads
    assert round(count / 1e6, 2) == 28.67


def test_batch_norm_stays_frozen() -> None:
    model = made().train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    sum(value.sum() for value in model(images()).values()).backward()
    assert norms and not any(norm.training for norm in norms)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(norm.weight.grad is not None for norm in norms)  # factors learn
    model.eval().train()
    assert not any(norm.training for norm in norms) and model.training and model.dropout.training
    assert all(m.training for m in made(freeze_batch_norm=False).modules() if isinstance(m, _BatchNorm))


def test_how_heads_begin() -> None:
    model = HCN(400, **SMALL)
    for head, classifier in model.classifier.items():
        assert float(classifier.weight.std()) == pytest.approx(0.001, rel=0.05), head
        assert not classifier.bias.any()
    assert not any(cross.lateral.weight.any() for cross in model.cross_maps.values())
    total = sum(value.sum() for value in model(images()).values())
    total.backward()
    assert all(cross.lateral.weight.grad.any() for cross in model.cross_maps.values())  # and yet they learn


def test_caffes_input() -> None:
    """Blue, green, red in [0, 255] less their means give what normalised images give."""
    pixels = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(2)).float()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised = (pixels / 255 - mean) / std
    caffe = (pixels - 255 * mean).flip(1)
    ours, theirs = made(input="caffe").eval(), made().eval()
    torch.testing.assert_close(ours(caffe), theirs(normalised), rtol=1e-3, atol=1e-3)


def test_losses_of_single_heads_reach_all_of_the_trunk() -> None:
    model = made()
    model(images())["c2"].sum().backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in model.cross_maps["c2"].parameters()]
    assert all(reached) and all(p.grad is None for p in model.cross_maps["c1"].parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "sum"}, r"merge must be one of deconvolution, interpolation, learned, got 'sum'"),
        ({"impl": "reference"}, r"impl must be one of fused, literal, got 'reference'"),
        ({"input": "bgr"}, r"input must be one of normalised, caffe, got 'bgr'"),
        ({"heads": ()}, r"heads must be different ones of r5, c1, c2, got \(\)"),
        ({"heads": ("r5", "r5")}, r"heads must be different ones"),
        ({"heads": ("r5",), "test_feature": "c1"}, r"test_feature must be one of r5, all, got 'c1'"),
        ({"test_feature": "r4"}, r"test_feature must be one of r5, c1, c2, all, got 'r4'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_images_of_a_size_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"multiples of 32"):
        made()(torch.rand(1, 3, 72, 96))
