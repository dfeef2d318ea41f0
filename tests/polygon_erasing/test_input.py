"""Wrong arguments of polygon_erase, random_erase and occlude: errors that name them, nothing written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import reid_ops
from tests.conftest import Backend
from tests.polygon_erasing.test_torch import operator_arguments

IMAGES = torch.zeros(2, 3, 8, 6)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tensor": ({"images": [1]}, TypeError, r"images must be a torch.Tensor, got list"),
    "rank": (
        {"images": torch.zeros(3, 8, 6)},
        ValueError,
        r"images must have shape \(N, C, H, W\), got \(3, 8, 6\)",
    ),
    "integer images": ({"images": IMAGES.int()}, TypeError, r"images must be uint8, float32.*got int32"),
    "complex images": (
        {"images": IMAGES.to(torch.complex64)},
        TypeError,
        r"images must be uint8, float32.*got complex64",
    ),
    "no channels": ({"images": torch.zeros(2, 0, 8, 6)}, ValueError, r"images must have C, H, W >= 1"),
    "no rows": ({"images": torch.zeros(2, 3, 0, 6)}, ValueError, r"images must have C, H, W >= 1"),
    "p below": ({"p": -0.1}, ValueError, r"p must be in \[0, 1\], got -0.1"),
    "p above": ({"p": 1.5}, ValueError, r"p must be in \[0, 1\], got 1.5"),
    "p nan": ({"p": float("nan")}, ValueError, r"p must be in \[0, 1\], got nan"),
    "p string": ({"p": "1"}, TypeError, r"p must be a number, got str"),
    "area above": ({"area": (0.1, 1.1)}, ValueError, r"area must be in \[0, 1\], got 1.1"),
    "area below": ({"area": (-0.1, 0.5)}, ValueError, r"area must be in \[0, 1\], got -0.1"),
    "area order": ({"area": (0.5, 0.4)}, ValueError, r"area must not decrease, got \(0.5, 0.4\)"),
    "area number": ({"area": 0.5}, TypeError, r"area must be a pair \(least, greatest\), got 0.5"),
    "area nan": ({"area": (0.1, float("nan"))}, ValueError, r"area must be in \[0, 1\], got nan"),
    "aspect zero": ({"aspect": 0.0}, ValueError, r"aspect must be in \[0.00390625, 1\], got 0"),
    "aspect above": ({"aspect": 2.0}, ValueError, r"aspect must be in \[0.00390625, 1\], got 2"),
    "aspect pair": ({"aspect": (0.5, 300.0)}, ValueError, r"aspect must be in \[0.00390625, 256\], got 300"),
    "mean missing": (
        {"images": torch.zeros(2, 4, 8, 6), "fill": "mean"},
        ValueError,
        r"mean must be given for fill=\"mean\" on images of 4 channels",
    ),
    "mean length": (
        {"fill": "mean", "mean": (0.1, 0.2)},
        ValueError,
        r"mean must hold 1 or 3 values \(one a channel\), got 2",
    ),
    "mean empty": ({"fill": "mean", "mean": ()}, ValueError, r"mean must hold at least one value"),
    "mean of bytes": (
        {"images": IMAGES.byte(), "fill": "mean", "mean": 1.1},
        ValueError,
        r"mean times 255 must be in \[0, 255\], got 280.5",
    ),
    "fill": (
        {"fill": "noise"},
        ValueError,
        r'fill must be one of "random", "channel", "pixel", "mean", got \'noise\'',
    ),
    "value range order": ({"value_range": (1.0, 0.0)}, ValueError, r"value_range must not decrease"),
    "value range infinite": (
        {"value_range": (0.0, float("inf"))},
        ValueError,
        r"value_range must be finite, got inf",
    ),
    "value range bytes": (
        {"images": IMAGES.byte(), "value_range": (0, 256)},
        ValueError,
        r"value_range must be in \[0, 255\], got 256",
    ),
    "seed float": ({"seed": 1.0}, TypeError, r"seed must be an int, got float"),
    "seed large": ({"seed": 2**64}, ValueError, r"seed must be in"),
    "seed dtype": (
        {"seed": torch.tensor([1.0])},
        TypeError,
        r"seed must be an int or an int64 tensor, got float32",
    ),
    "seed shape": (
        {"seed": torch.zeros(3, dtype=torch.int64)},
        ValueError,
        r"seed must have one or two elements, got shape \(3,\)",
    ),
    "seed device": (
        {"seed": torch.zeros(1, dtype=torch.int64, device="meta")},
        ValueError,
        r"seed must be on the CPU or on cpu, got meta",
    ),
    "both": (
        {"seed": 1, "generator": torch.Generator()},
        ValueError,
        r"generator must be None when seed is given",
    ),
    "first index": ({"first_index": -1}, ValueError, r"first_index must be in"),
    "attempts zero": ({"max_attempts": 0}, ValueError, r"max_attempts must be in \[1, 1000000\], got 0"),
    "overlap": (
        {"images": torch.zeros(1, 3, 8, 6).expand(2, -1, -1, -1), "inplace": True},
        ValueError,
        r"images must not overlap itself with inplace=True",
    ),
}
BAD_POLYGONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "points few": ({"points": 2}, ValueError, r"points must be in \[3, 256\], got 2"),
    "points many": ({"points": 257}, ValueError, r"points must be in \[3, 256\], got 257"),
    "points float": ({"points": 20.0}, TypeError, r"points must be an int, got float"),
    "shape": ({"shape": "box"}, ValueError, r'shape must be "hull" or "star", got \'box\''),
    "sampling": (
        {"sampling": "corner"},
        ValueError,
        r'sampling must be "continuous" or "published_code", got \'corner\'',
    ),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_POLYGONS])
def test_bad_input(name: str) -> None:
    change, error, message = {**BAD, **BAD_POLYGONS}[name]
    before = IMAGES.clone()
    with pytest.raises(error, match=message):
        reid_ops.polygon_erase(**{"images": IMAGES, **change})
    if name in BAD:
        with pytest.raises(error, match=message.replace("polygon", "random")):
            reid_ops.random_erase(**{"images": IMAGES, **change})
    assert torch.equal(IMAGES, before)


def test_bad_arguments_of_the_others() -> None:
    for call, message in (
        (
            lambda: reid_ops.random_erase(IMAGES, anchor="left"),
            r'anchor must be "corner" or "center", got \'left\'',
        ),
        (lambda: reid_ops.RandomErasing(anchor="left"), r'anchor must be "corner" or "center"'),
        (
            lambda: reid_ops.RandomPolygonErasing(points=2),
            r"RandomPolygonErasing: points must be in \[3, 256\], got 2",
        ),
        (
            lambda: reid_ops.RandomPolygonErasing()(torch.zeros(8, 6)),
            r"images must have shape \(..., C, H, W\), got \(8, 6\)",
        ),
        (lambda: reid_ops.occlude(IMAGES, 1.2), r"occlude: level must be in \[0, 1\], got 1.2"),
        (
            lambda: reid_ops.occlude(torch.zeros(1, 1, 1, 512), 0.6),
            r"occlude: level must be at most 0.5 for images of 1x512",
        ),
        (
            lambda: reid_ops.occlude(IMAGES, 0.2, "blob"),
            r'kind must be "rectangle", "polygon" or "both", got \'blob\'',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for inputs, message in (
        ((), "at least one input"),
        (("a", 3), "must hold a tensor, tv_tensor or PIL image, got int, str"),
    ):
        with pytest.raises(TypeError, match=message):
            reid_ops.RandomPolygonErasing()(*inputs)


def test_operators_check_too(backend: Backend) -> None:
    """A call that bypasses the Python function raises as well, instead of writing out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    operator = getattr(torch.ops, backend.library).polygon_erase_
    images, _, seed, first, rule, values, _ = operator_arguments(backend)
    changes = {5: (2, 257), 0: (-1, 2**32 + 1), 3: (0,), 4: (2**40,), 6: (3,), 7: (2, 4), 8: (-1,), 9: (0,)}
    for position, wrong in changes.items():
        for value in wrong:
            with pytest.raises(RuntimeError, match="polygon_erase: "):
                operator(
                    images, None, seed, first, [*rule[:position], value, *rule[position + 1 :]], values, False
                )
    for bad in (rule[:-1], [*rule, 1]):
        with pytest.raises(RuntimeError, match="a rule must have 10 numbers"):
            operator(images, None, seed, first, bad, values, False)
    with pytest.raises(RuntimeError, match="values must hold"):
        operator(images, None, seed, first, rule, [1.0], False)
    for numbers in (
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(4, dtype=torch.int64)[::2],
        images[0, 0, 0],
    ):
        with pytest.raises(RuntimeError, match="seed must be a contiguous int64 tensor"):
            operator(images, numbers, seed, first, rule, values, False)
    constant = [*rule[:8], 3, rule[9]]
    for wrong, of in (
        ([-1.0, 5.0], rule),
        ([250.0, 10.0], rule),
        ([float("nan"), 1.0], rule),
        ([256.0], constant),
    ):
        with pytest.raises(RuntimeError, match=r"values must be in \[0, 255\] for uint8 images"):
            operator(images.byte(), None, seed, first, of, wrong, False)
    with pytest.raises(RuntimeError, match="images must have shape"):
        operator(images[0], None, seed, first, rule, values, False)
