"""Laws of the operators on any input that hypothesis thinks of. The other tests do without hypothesis."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import reid_ops
from reid_ops import reference
from reid_ops.polygon_erasing.rule import Rule, occluding_rules
from reid_ops.reference import polygon_erasing as steps
from tests.augmentation import test_augmentation as augmentation
from tests.conftest import Backend
from tests.k_reciprocal import test_rerank as k_reciprocal
from tests.part_correlation import test_part_correlation as part_correlation
from tests.polygon_erasing import test_erase as polygon_erasing

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_augment_of_any_sizes(backend: Backend, data: st.DataObject) -> None:
    """Any sizes, padding, layout and probability; widths that are no multiple of a vector as well."""
    height, width, pad = (
        data.draw(st.integers(1, 30)),
        data.draw(st.integers(1, 30)),
        data.draw(st.integers(0, 6)),
    )
    size = (data.draw(st.integers(1, height + 2 * pad)), data.draw(st.integers(1, width + 2 * pad)))
    channels, count = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 3))
    images = augmentation.random_bytes(count, channels, height, width, device=backend.device)
    options: dict[str, Any] = {
        "size": size,
        "pad": pad,
        "flip": data.draw(st.sampled_from([0.0, 0.5, 1.0])),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
        "mean": [0.1 * k for k in range(channels)],
        "std": [0.5 + k for k in range(channels)],
    }
    erase = reid_ops.RandomErasing(
        p=data.draw(st.floats(0, 1)), anchor=data.draw(st.sampled_from(["corner", "center"]))
    )
    polygon = reid_ops.RandomPolygonErasing(p=data.draw(st.floats(0, 1)), points=5, mean=0.5, fill="mean")
    expected = reference.augment(
        images, rules=augmentation.rules(erase, polygon, mean=tuple(options["mean"])), **options
    )
    planar = reid_ops.augment(images, layout="NCHW", erase=erase, polygon=polygon, **options)
    interleaved = images.permute(0, 2, 3, 1).contiguous()
    assert torch.equal(planar, expected)
    assert torch.equal(
        reid_ops.augment(interleaved, layout="NHWC", erase=erase, polygon=polygon, **options), expected
    )


small = st.integers(1, 14)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_laws_of_k_reciprocal(backend: Backend, data: st.DataObject) -> None:
    """Range, symmetry, equivariance under permutation, and the ends of lambda."""
    queries, gallery, dimension = data.draw(small), data.draw(small), data.draw(st.integers(1, 5))
    k1 = data.draw(st.integers(1, 12))
    k2 = data.draw(st.integers(1, k1))
    lambda_value = data.draw(st.sampled_from([0.0, 0.25, 0.3, 1.0]))
    jaccard = data.draw(st.sampled_from(["soft", "set"]))
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    q, g = k_reciprocal.clustered(queries, gallery, dimension, backend.device)
    options: dict[str, Any] = {"k1": k1, "k2": k2, "jaccard": jaccard}

    distances = k_reciprocal.result(q, g, lambda_value=lambda_value, **options)
    assert (distances >= 0).all() and (distances <= 1 + 1e-12).all()
    order = torch.randperm(queries, device=q.device)
    gallery_order = torch.randperm(gallery, device=q.device)
    moved = k_reciprocal.result(q[order], g[gallery_order], lambda_value=lambda_value, **options)
    torch.testing.assert_close(moved, distances[order][:, gallery_order], rtol=0, atol=1e-12)
    scaled = k_reciprocal.result(3 * q, 3 * g, lambda_value=lambda_value, **options)
    torch.testing.assert_close(scaled, distances, rtol=0, atol=1e-12)

    features = torch.cat([q, g])
    every = reid_ops.jaccard_distance(features, **options)
    assert (every >= 0).all() and (every <= 1).all()
    torch.testing.assert_close(every, every.t(), rtol=0, atol=1e-14)
    torch.testing.assert_close(every.diagonal(), torch.zeros_like(every[0]), rtol=0, atol=1e-12)
    pure = k_reciprocal.result(q, g, lambda_value=0.0, **options)
    torch.testing.assert_close(pure, every[:queries, queries:], rtol=0, atol=1e-12)

    squared = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    original = (squared / squared.amax(1, keepdim=True).clamp(min=1e-300))[:queries, queries:]
    torch.testing.assert_close(
        k_reciprocal.result(q, g, lambda_value=1.0, **options), original, rtol=0, atol=1e-12
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_part_correlation_is_trilinear(backend: Backend, data: st.DataObject) -> None:
    """<g, x*f> = <grad_x, x> = <grad_f, f>: the three kernels are one trilinear form."""
    size = st.integers(1, 9)
    batch, channels, height, width = (data.draw(size) for _ in range(4))
    number, kernel_height, kernel_width = data.draw(st.integers(1, 5)), data.draw(size), data.draw(size)
    shape = (batch, channels, height, width, number, kernel_height, kernel_width)
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    signal, parts = part_correlation.random_inputs(shape, torch.float64, backend.device)
    signal.requires_grad_(), parts.requires_grad_()
    output = reid_ops.part_correlation(signal, parts)
    grad = torch.randn_like(output)
    to_signal, to_parts = torch.autograd.grad(output, (signal, parts), grad)
    form = (output * grad).sum()
    scale = (output * grad).abs().sum() + 1
    assert ((to_signal * signal).sum() - form).abs() <= 1e-13 * scale * output.numel() ** 0.5
    assert ((to_parts * parts).sum() - form).abs() <= 1e-13 * scale * output.numel() ** 0.5


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_polygon_erase_of_any_arguments(backend: Backend, data: st.DataObject) -> None:
    """Any valid arguments: the reference's result, and nothing outside the image or the box changes."""
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    count, channels = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    area = sorted(data.draw(st.floats(0, 1)) for _ in range(2))
    options = {
        "p": data.draw(st.floats(0, 1)),
        "area": area,
        "aspect": data.draw(st.floats(1 / 256, 1)),
        "points": data.draw(st.integers(3, 40)),
        "fill": data.draw(st.sampled_from(polygon_erasing.FILLS)),
        "shape": data.draw(st.sampled_from(["hull", "star"])),
        "mean": data.draw(st.floats(0, 1)),
        "sampling": data.draw(st.sampled_from(["continuous", "published_code"])),
        "max_attempts": data.draw(st.integers(1, 5)),
        "first_index": data.draw(st.integers(0, 2**62)),
    }
    seed = data.draw(st.integers(-(2**63), 2**64 - 1))
    # The images lie inside a larger tensor: whatever is written outside them shows there.
    around = torch.full(
        (count + 2, channels + 2, height + 2, width + 3), 77, dtype=torch.uint8, device=backend.device
    )
    images = around[1:-1, 1:-1, 1:-1, 1:-2]
    erased, mask, attempts = reference.polygon_erase(
        images, seed=seed, return_mask=True, return_attempts=True, **options
    )
    result = reid_ops.polygon_erase(images, seed=seed, inplace=True, **options)
    assert result is images and torch.equal(images, erased)
    around[1:-1, 1:-1, 1:-1, 1:-2] = 77
    assert (around == 77).all()
    rule = Rule.checked(
        "test", p=options["p"], area=area, aspect=options["aspect"], points=options["points"], shape="hull",
        placement=options["sampling"], fill="random", mean=None, max_attempts=options["max_attempts"],
    )  # fmt: skip
    slack = 0 if options["sampling"] == "continuous" else steps.PIXEL
    for n in range(count):
        box = steps.draw_box(rule, steps.Words(seed, options["first_index"] + n), height, width)
        assert box.attempts == attempts[n]
        rows, columns = mask[n].nonzero(as_tuple=True)
        assert (rows * steps.PIXEL + steps.HALF >= box.top).all()
        assert (rows * steps.PIXEL + steps.HALF <= box.top + box.height + slack).all()
        assert (columns * steps.PIXEL + steps.HALF >= box.left).all()
        assert (columns * steps.PIXEL + steps.HALF <= box.left + box.width + slack).all()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_boxes_of_occlude_fit(data: st.DataObject) -> None:
    """At the ends of the aspects too, and hardly any share is lost."""
    short = data.draw(st.integers(1, 2**17))
    long = data.draw(st.integers(short, min(256 * short, 2**17)))
    height, width = data.draw(st.permutations([short, long]))
    level = data.draw(st.one_of(st.floats(2**-32, 1), st.sampled_from([1.0, 1 - 2**-26, 1 - 2**-17])))
    (rule,) = occluding_rules(
        "test", level, "polygon", height, width, points=20, aspect=0.35, fill="random", mean=None
    )
    assert level * (1 - 2**-16) - 2**-32 <= rule.area[0] <= level
    for aspect in rule.aspect:
        alone = dataclasses.replace(rule, aspect=(aspect, aspect))
        box = steps.draw_box(alone, steps.Words(1, 0), height, width)
        assert box.attempts == 1, (alone.encode(), height, width)
