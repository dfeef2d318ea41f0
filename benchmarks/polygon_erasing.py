"""Benchmark of :func:`reid_ops.polygon_erase` and :func:`reid_ops.random_erase` against per-image Python.

Every contender draws regions of its own, so no two results would be alike. Hence the images are grey and
are filled with the same grey: the work is the same, and the results are equal. That ours erases the right
pixels is checked apart, on random images, before a case is timed.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import reid_ops
import reid_ops.reference
from benchmarks.harness.check import CheckFailed
from benchmarks.harness.model import Benchmark, Case, Formulation, Function, Inputs, Mode, Work

SEED = 1
GREY = {False: 0.5, True: 128.0}  # floats; bytes

# Mean share of an image's pixels erased with the default p = .5, measured over 20,000 draws at 384 x 128.
_ERASED = {"polygon": 0.0675, "rectangle": 0.0985}

# ---------------------------------------------------------------------------------------------- sizes


def _sizes(batch: int, height: int = 384, width: int = 128, **more: int) -> dict[str, int]:
    return {"batch": batch, "channels": 3, "height": height, "width": width, "points": 20, **more}


CASES = (
    Case("N=64", _sizes(64), quick=True),
    Case("N=64 uint8", _sizes(64, uint8=1)),
    Case("N=128", _sizes(128), ("cuda",), quick=True),
    Case("N=128 uint8", _sizes(128, uint8=1), ("cuda",)),
)
SWEEP = (
    *CASES,
    Case("N=1", _sizes(1)),
    Case("N=16", _sizes(16)),
    Case("N=64 256x128", _sizes(64, 256)),
    Case("N=64 256x256", _sizes(64, 256, 256)),
    Case("N=64 10 points", _sizes(64) | {"points": 10}),
    Case("N=64 40 points", _sizes(64) | {"points": 40}),
    Case("N=64 256 points", _sizes(64) | {"points": 256}),
)

MODES = (
    Mode("polygon, in place", {"kind": "polygon", "inplace": True}),
    Mode("polygon, out of place", {"kind": "polygon", "inplace": False}),
    Mode("polygon, pixel fill, in place", {"kind": "polygon", "inplace": True, "fill": "pixel"}),
    Mode("rectangle, in place", {"kind": "rectangle", "inplace": True}),
    Mode("rectangle, out of place", {"kind": "rectangle", "inplace": False}),
)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Grey images of the dtype, or bytes; ``points`` rides along as a tensor of no elements."""
    sizes = case.sizes
    dtype = torch.uint8 if "uint8" in sizes else dtype
    _check(dtype, str(device), sizes["height"], sizes["width"], sizes["points"])
    shape = (sizes["batch"], sizes["channels"], sizes["height"], sizes["width"])
    images = torch.full(shape, GREY[dtype == torch.uint8], dtype=dtype, device=device)
    return Inputs((images,), {"points": torch.empty(sizes["points"], 0)})


@functools.cache
def _check(dtype: torch.dtype, device: str, height: int, width: int, points: int) -> None:
    """CheckFailed unless ours equals the reference, bit for bit, on random images."""
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(0, 256, (4, 3, height, width), generator=generator, dtype=torch.uint8)
    images = images if dtype == torch.uint8 else images.to(dtype) / 256
    for name, options in (("polygon_erase", {"points": points}), ("random_erase", {})):
        expected = getattr(reid_ops.reference, name)(images, seed=SEED, p=1.0, **options)
        found = getattr(reid_ops, name)(images.to(device), seed=SEED, p=1.0, **options)
        if not torch.equal(found.cpu(), expected):
            raise CheckFailed(
                f"polygon_erasing, {height}x{width}, {dtype}: ours disagrees with the reference"
            )


# ----------------------------------------------------------------------------------------------- work


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """In place only erased elements are written; out of place all are read and written once."""
    sizes = case.sizes
    size = 1 if "uint8" in sizes else element_size
    whole = sizes["batch"] * sizes["channels"] * sizes["height"] * sizes["width"] * size
    erased = int(whole * _ERASED[mode.options["kind"]])
    return Work(0, 0, 0, erased) if mode.options["inplace"] else Work(0, 0, whole, whole)


# -------------------------------------------------------------------------------------------- contenders


def _call(package: Any, images: Tensor, points: Tensor, kind: str, options: dict[str, Any]) -> Any:
    """The op of this kind from a package, filling grey images with their own grey."""
    grey = float(images.flatten()[0]) if package is reid_ops.reference else GREY[images.dtype == torch.uint8]
    options |= {"seed": SEED, "value_range": (grey, grey)}
    if kind == "polygon":
        return package.polygon_erase(images, points=points.shape[0], **options)
    return package.random_erase(images, **options)


def ours(images: Tensor, *, points: Tensor, kind: str, **options: Any) -> Tensor:
    """The operator, looked up at every call."""
    return _call(reid_ops, images, points, kind, options)


def _reference(images: Tensor, *, points: Tensor, kind: str, inplace: bool, **options: Any) -> Tensor:
    return _call(reid_ops.reference, images, points, kind, options)


def box_and_points(height: int, width: int, points: int) -> list[tuple[int, int]]:
    """The authors' sampling in Python: a box that fits, its centre, and whole points in it."""
    while True:
        area = random.uniform(0.02, 0.45) * height * width
        aspect = random.uniform(0.35, 1 / 0.35)
        columns, rows = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if columns < width and rows < height:
            break
    across, down = columns // 2, rows // 2
    x, y = random.randint(across, width - across), random.randint(down, height - down)
    others = (
        (random.randint(x - across, x + across), random.randint(y - down, y + down))
        for _ in range(points - 1)
    )
    return [(x, y), *others]


def _fill_mask(image: Tensor, canvas: Any, values: float | Sequence[float]) -> None:
    """One value for all planes, or one a plane, where the canvas is drawn on."""
    import numpy

    mask = torch.from_numpy(numpy.array(canvas)).bool()
    if not isinstance(values, Sequence):
        image.masked_fill_(mask, values)
        return
    for plane, value in zip(image, values, strict=True):
        plane.masked_fill_(mask, value)


def pil_triangles_of(image: Tensor, points: int, values: float | Sequence[float]) -> None:
    """As published: the hull as the union of all triangles on two consecutive points and a third."""
    from PIL import Image, ImageDraw

    height, width = image.shape[-2:]
    corners = box_and_points(height, width, points)
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for first in range(points - 2):
        for third in corners:
            draw.polygon([corners[first], corners[first + 1], third], fill=1)
    _fill_mask(image, canvas, values)


def _pil_hull_of(image: Tensor, points: int, grey: float) -> None:
    """What a careful user would write: the hull in Python, drawn once."""
    from PIL import Image, ImageDraw

    from reid_ops.reference.polygon_erasing import convex_hull

    height, width = image.shape[-2:]
    hull = convex_hull(box_and_points(height, width, points))
    canvas = Image.new("L", (width, height))
    if len(hull) > 1:
        ImageDraw.Draw(canvas).polygon(hull, fill=1)
    _fill_mask(image, canvas, grey)


def _per_image(erase: Any) -> Function:
    """A loop over the batch with p = .5, as transforms in a data loader do it."""

    def function(images: Tensor, *, points: Tensor, kind: str, inplace: bool) -> Tensor:
        grey = GREY[images.dtype == torch.uint8]
        output = images if inplace else images.clone()
        for image in output:
            if random.random() < 0.5:
                erase(image, points.shape[0], grey)
        return output

    return function


def _torchvision_loop(images: Tensor, *, points: Tensor, kind: str, inplace: bool) -> Tensor:
    """Torchvision's RandomErasing image by image: given a batch it would erase the same box everywhere.

    It erases rectangles. Beside polygons it stands as ``torchvision_rectangles``, for comparison: less work,
    which is still what a user of torchvision would otherwise run.
    """
    from torchvision.transforms import v2

    grey = GREY[images.dtype == torch.uint8]
    transform = v2.RandomErasing(0.5, (0.02, 0.4), (0.3, 1 / 0.3), value=grey, inplace=inplace)
    if inplace:
        for image in images:
            transform(image)
        return images
    return torch.stack([transform(image) for image in images])


def _kornia(images: Tensor, *, points: Tensor, kind: str, inplace: bool) -> Tensor:
    """Kornia's RandomErasing: a box an image, masks of the batch's size."""
    from kornia.augmentation import RandomErasing

    return RandomErasing((0.02, 0.4), (0.3, 1 / 0.3), GREY[False], p=0.5)(images)


def _kornia_applies(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
    """Floats only, and out of place only."""
    return _with("kornia", "rectangle")(case, mode, dtype) and not (
        mode.options["inplace"] or "uint8" in case.sizes
    )


def _with(package: str, kind: str | None) -> Any:
    def applies(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
        right = kind is None or mode.options["kind"] == kind
        return right and "fill" not in mode.options and importlib.util.find_spec(package) is not None

    return applies


FORMULATIONS = (
    Formulation("pil_triangles", _per_image(pil_triangles_of), _with("PIL", "polygon")),
    Formulation("pil_hull", _per_image(_pil_hull_of), _with("PIL", "polygon")),
    Formulation("torchvision_loop", _torchvision_loop, _with("torchvision", "rectangle")),
    Formulation("torchvision_rectangles", _torchvision_loop, _with("torchvision", "polygon")),
    Formulation("kornia", _kornia, _kornia_applies),
)

BENCHMARK = Benchmark(
    name="polygon_erasing",
    ours=ours,
    reference=_reference,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    tolerance={d: 0.0 for d in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)},
    sweep_modes=("polygon, in place", "rectangle, in place"),
    table_cases={"cpu": ("N=64",), "cuda": ("N=64", "N=128")},
    table_modes=("polygon, in place", "polygon, out of place", "rectangle, in place"),
    headline="polygon, in place",
    checked_rows=lambda case: [0, case.sizes["batch"] - 1],
)
