"""augment: bit for bit the composition of its steps, by the reference and by torchvision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from reid_ops.polygon_erasing.rule import Rule
from reid_ops.reference.augmentation import draw_geometry
from tests.conftest import Backend, other_thread_count

OUTPUTS = [torch.float32, torch.float16, torch.bfloat16]
FILLS = ["random", "channel", "pixel", "mean"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_bytes(*shape: int, device: str = "cpu") -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8).to(device)


def rules(*modules: Any, mean: tuple[float, ...] = MEAN) -> list[Rule]:
    """The modules' rules as augment reads them: an unnamed mean is the image's."""
    return [replace(m.rule, mean=mean) if m.rule.mean is None else m.rule for m in modules]


@pytest.mark.sanitize
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", ["hull", "star"])
def test_equals_the_reference(backend: Backend, shape: str, fill: str) -> None:
    images = random_bytes(4, 3, 40, 22, device=backend.device)
    erase = reid_ops.RandomErasing(p=0.8, fill=fill)
    polygon = reid_ops.RandomPolygonErasing(p=0.8, fill=fill, shape=shape, points=8)
    for dtype in OUTPUTS:
        actual = reid_ops.augment(
            images, size=(42, 20), pad=4, erase=erase, polygon=polygon, seed=3, first_index=9, dtype=dtype
        )
        expected = reference.augment(
            images, size=(42, 20), pad=4, rules=rules(erase, polygon), seed=3, first_index=9, dtype=dtype
        )
        assert actual.dtype == dtype and actual.is_contiguous() and torch.equal(actual, expected)


@pytest.mark.sanitize
def test_images_of_different_sizes(backend: Backend) -> None:
    """A padded batch: what lies outside an image's own size is never seen."""
    images = random_bytes(5, 30, 20, 3, device=backend.device)
    sizes = [(30, 20), (24, 20), (26, 13), (22, 12), (30, 15)]
    expected = reference.augment(images.permute(0, 3, 1, 2), size=(24, 14), pad=1, seed=5, sizes=sizes)
    assert torch.equal(reid_ops.augment(images, size=(24, 14), pad=1, seed=5, sizes=sizes), expected)
    as_tensor = torch.tensor(sizes, device=backend.device)
    assert torch.equal(reid_ops.augment(images, size=(24, 14), pad=1, seed=5, sizes=as_tensor), expected)
    for n, (height, width) in enumerate(sizes):
        images[n, height:] = 255
        images[n, :, width:] = 255
    assert torch.equal(reid_ops.augment(images, size=(24, 14), pad=1, seed=5, sizes=sizes), expected)


def test_sizes_that_lie(backend: Backend) -> None:
    """Straight to the operator, sizes beyond the tensor are cut: nothing outside is read."""
    images = random_bytes(3, 3, 9, 7, device=backend.device)
    operator = getattr(torch.ops, backend.library).augment
    tail = (None, 1, 0, 9, 7, 2, 2**31, list(MEAN), list(STD), [], [], [], [], torch.float32)
    huge = torch.tensor([[2**40, 9], [-5, 7], [9, 2**40]], device=backend.device)
    output = operator(images, huge, *tail)
    cut = torch.tensor([[9, 7], [0, 7], [9, 7]], device=backend.device)
    assert torch.equal(output, operator(images, cut, *tail))


def test_equals_torchvision(backend: Backend) -> None:
    """The v2 pipeline's functions, given what augment draws; then the erasing ops on the bytes."""
    pytest.importorskip("torchvision", reason="needs torchvision")
    from torchvision.transforms.v2 import functional

    images = random_bytes(16, 3, 50, 30, device=backend.device)
    size, pad, seed = (48, 32), 10, 21
    erase, polygon = {"p": 0.6, "fill": "channel"}, {"p": 0.6, "fill": "pixel", "points": 9}
    crops = []
    for n, image in enumerate(images):
        flip, top, left = draw_geometry(seed, n, 50, 30, size, pad, 0.5)
        image = functional.horizontal_flip(image) if flip else image
        crops.append(functional.crop(functional.pad(image, [pad]), top, left, *size))
    batch = reid_ops.random_erase(torch.stack(crops), seed=seed, **erase)  # type: ignore[arg-type]
    batch = reid_ops.polygon_erase(batch, seed=seed, **polygon)  # type: ignore[arg-type]
    batch = functional.normalize(functional.to_dtype(batch, torch.float32, scale=True), list(MEAN), list(STD))
    actual = reid_ops.augment(images, size=size, pad=pad, erase=erase, polygon=polygon, seed=seed)
    assert torch.equal(actual, batch)


def test_a_mean_fill_becomes_zero(backend: Backend) -> None:
    images = random_bytes(6, 3, 20, 20, device=backend.device)
    plain = reid_ops.augment(images, size=(20, 20), seed=1)
    erased = reid_ops.augment(images, size=(20, 20), seed=1, polygon={"p": 1.0, "fill": "mean"})
    changed = (erased != plain).any(1, keepdim=True).expand_as(erased)
    assert changed.any((1, 2, 3)).all() and (erased[changed] == 0).all()
    assert torch.equal(erased[~changed], plain[~changed])


def test_geometry_is_uniform() -> None:
    """Half are flipped; both offsets are uniform and independent (4.5 standard deviations)."""
    count = 3000
    column = torch.arange(40, dtype=torch.uint8).expand(1, 1, 40, 40)
    images = torch.stack([column, column.transpose(2, 3)], 1).view(1, 2, 40, 40).expand(count, -1, -1, -1)
    output = reid_ops.augment(
        images, size=(30, 30), pad=0, mean=(0.0, 0.0), std=(1 / 255, 1 / 255), seed=4, layout="NCHW"
    ).round()
    flipped = output[:, 0, 0, 1] < output[:, 0, 0, 0]
    left = torch.where(flipped, 39 - output[:, 0, 0, 0], output[:, 0, 0, 0]).long()
    top = output[:, 1, 0, 0].long()
    assert abs(flipped.double().mean() - 0.5) < 4.5 * 0.5 / math.sqrt(count)
    for offsets in (left, top):
        counts = torch.bincount(offsets, minlength=11).double()
        chi_square = ((counts - count / 11).square() / (count / 11)).sum()
        assert len(counts) == 11 and abs(chi_square - 10) < 4.5 * math.sqrt(20)
    correlation = torch.corrcoef(torch.stack([flipped.double(), left.double(), top.double()]))
    assert (correlation - torch.eye(3)).abs().max() < 4.5 / math.sqrt(count)


def test_independent_of_the_batch_and_of_threads(backend: Backend) -> None:
    images = random_bytes(6, 3, 40, 20, device=backend.device)
    options: dict[str, Any] = {"size": (40, 20), "erase": {}, "polygon": {"fill": "pixel"}, "seed": 8}
    whole = reid_ops.augment(images, **options)
    for n in range(6):
        assert torch.equal(reid_ops.augment(images[n : n + 1], first_index=n, **options)[0], whole[n])
    with other_thread_count():
        assert torch.equal(reid_ops.augment(images, **options), whole)
    assert not torch.equal(
        reid_ops.augment(images, **{**options, "seed": None}),
        reid_ops.augment(images, **{**options, "seed": None}),
    )


def test_opcheck_and_compile(backend: Backend) -> None:
    images = random_bytes(3, 3, 20, 12, device=backend.device)
    operator = getattr(torch.ops, backend.library).augment.default
    rule = reid_ops.RandomPolygonErasing(p=1.0).rule
    rectangle = reid_ops.RandomErasing(p=1.0).rule
    tail = (
        20,
        12,
        4,
        2**31,
        list(MEAN),
        list(STD),
        rectangle.encode(),
        [0.0, 255.0],
        rule.encode(),
        [0.0, 255.0],
    )
    for dtype in OUTPUTS:
        torch.library.opcheck(operator, (images, None, None, 3, 0, *tail, dtype))
    sizes, seed = (
        torch.tensor([[20, 12]] * 3, device=backend.device),
        torch.tensor([3], device=backend.device),
    )
    torch.library.opcheck(
        operator, (images.permute(0, 1, 3, 2), sizes.flip(1), seed, 0, 0, *tail, torch.float32)
    )

    def step(x: Tensor) -> Tensor:
        return reid_ops.augment(x, size=(20, 12), polygon={"p": 1.0}, seed=3) * 2

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(images), step(images))


@pytest.mark.cuda
def test_cuda_equals_the_cpu() -> None:
    images = random_bytes(16, 128, 64, 3)
    for dtype in OUTPUTS:
        options: dict[str, Any] = {"size": (128, 64), "erase": {}, "polygon": {}, "seed": 8, "dtype": dtype}
        assert torch.equal(
            reid_ops.augment(images.cuda(), **options).cpu(), reid_ops.augment(images, **options)
        )


IMAGES = torch.zeros(2, 20, 10, 3, dtype=torch.uint8)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tensor": ({"images": [1]}, TypeError, r"images must be a torch.Tensor, got list"),
    "floats": ({"images": IMAGES.float()}, TypeError, r"images must be uint8, got float32"),
    "rank": ({"images": IMAGES[0]}, ValueError, r"images must have shape .*, got \(20, 10, 3\)"),
    "ambiguous": ({"images": IMAGES[:, :3]}, ValueError, r'layout must be given .* got "auto"'),
    "no channels of 1 or 3": ({"images": IMAGES[..., :2]}, ValueError, r"layout must be given"),
    "layout": ({"layout": "CHW"}, ValueError, r'layout must be "auto", "NHWC" or "NCHW", got \'CHW\''),
    "channels": (
        {"images": torch.zeros(1, 17, 4, 4).byte(), "layout": "NCHW"},
        ValueError,
        r"1 to 16 channels",
    ),
    "empty image": ({"images": IMAGES[:, :0]}, ValueError, r"H, W >= 1"),
    "size number": ({"size": 20}, TypeError, r"size must be a pair \(rows, columns\), got 20"),
    "size zero": ({"size": (0, 10)}, ValueError, r"size must be in \[1, 131072\], got 0"),
    "size float": ({"size": (20.0, 10)}, TypeError, r"size must be an int, got float"),
    "size too large": ({"size": (41, 10)}, ValueError, r"got 20x10 where 21x-10 is needed"),
    "pad": ({"pad": -1}, ValueError, r"pad must be in \[0, 131072\], got -1"),
    "flip": ({"flip": 1.5}, ValueError, r"flip must be in \[0, 1\], got 1.5"),
    "mean": ({"mean": (0.5,)}, ValueError, r"mean must hold a value for each of 3 channels, got \(0.5,\)"),
    "std zero": ({"std": (0.2, 0.0, 0.2)}, ValueError, r"std must be in \[1e-30, 1e\+30\], got 0"),
    "dtype": (
        {"dtype": torch.float64},
        TypeError,
        r"dtype must be float32, float16 or bfloat16, got torch.float64",
    ),
    "erase": ({"erase": True}, TypeError, r"erase must be a RandomErasing, a mapping .* got bool"),
    "erase a polygon": ({"erase": reid_ops.RandomPolygonErasing()}, TypeError, r"got RandomPolygonErasing"),
    "own seed": (
        {"polygon": {"seed": 1}},
        ValueError,
        r"polygon must have no value_range, seed or generator",
    ),
    "erase argument": ({"polygon": {"points": 2}}, ValueError, r"points must be in \[3, 256\], got 2"),
    "sizes shape": ({"sizes": [(20, 10)]}, ValueError, r"sizes must have shape \(2, 2\), got \(1, 2\)"),
    "sizes dtype": ({"sizes": torch.zeros(2, 2)}, TypeError, r"sizes must be int64, got float32"),
    "sizes large": (
        {"sizes": [(20, 10), (20, 11)]},
        ValueError,
        r"sizes\[1, 1\] must be in \[1, 10\], got 11",
    ),
    "sizes small": (
        {"sizes": [(3, 10), (4, 10)], "size": (24, 10)},
        ValueError,
        r"sizes\[0, 0\] must be in \[4, 20\], got 3",
    ),
    "seed": ({"seed": "1"}, TypeError, r"seed must be an int, got str"),
    "first index": ({"first_index": -1}, ValueError, r"first_index must be in"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    change, error, message = BAD[name]
    with pytest.raises(error, match=message):
        reid_ops.augment(**{"images": IMAGES, "size": (20, 10), **change})


def test_operator_checks_too(backend: Backend) -> None:
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    operator = getattr(torch.ops, backend.library).augment
    images = random_bytes(2, 3, 9, 7)
    good: dict[str, Any] = {
        "images": images,
        "sizes": None,
        "seed_tensor": None,
        "seed": 1,
        "first_index": 0,
        "height": 9,
        "width": 7,
        "pad": 2,
        "flip": 0,
        "mean": list(MEAN),
        "std": list(STD),
        "rectangle": [],
        "rectangle_values": [],
        "polygon": [],
        "polygon_values": [],
        "dtype": torch.float32,
    }
    assert operator(**good).shape == images.shape
    polygon = reid_ops.RandomPolygonErasing().rule.encode()
    for change, message in (
        ({"images": images.float()}, "images must be uint8"),
        ({"height": 0}, "at least one channel, row and column"),
        ({"width": 2**18}, "sides up to"),
        ({"pad": -1}, "pad must be in"),
        ({"flip": 2**33}, "flip is out of range"),
        ({"mean": [0.5]}, "mean and std must have a value"),
        ({"dtype": torch.float64}, "dtype must be float32"),
        ({"sizes": torch.zeros(2, 2)}, "sizes must be a contiguous int64"),
        ({"rectangle": polygon, "rectangle_values": [0.0, 255.0]}, "rectangle has the other's shape"),
        ({"polygon": polygon, "polygon_values": [0.0, 300.0]}, r"values must be in \[0, 255\]"),
        ({"polygon": polygon[:-1], "polygon_values": [0.0, 255.0]}, "a rule must have 10 numbers"),
    ):
        with pytest.raises(RuntimeError, match=message):
            operator(**{**good, **change})
