"""Benchmark of :func:`reid_ops.augment` against torchvision's v2 pipeline, by image or in part as a batch.

Every contender draws random numbers of its own, so no two results would be alike. Hence the images are
black and filled with black: flips, crops and erasing then change nothing, the work is the same, and the
results are equal. That ours does what it should is checked apart, on random images, before a case is timed.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

import reid_ops
import reid_ops.reference
from benchmarks.harness.check import CheckFailed
from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work

SEED = 1
PAD = 10
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BLACK = {"fill": "mean", "mean": 0.0}

# ---------------------------------------------------------------------------------------------- sizes


def _sizes(batch: int, height: int = 384, width: int = 128, interleaved: int = 0) -> dict[str, int]:
    return {"batch": batch, "height": height, "width": width, "interleaved": interleaved}


CASES = (
    Case("N=64 NCHW", _sizes(64), quick=True),
    Case("N=64 NHWC", _sizes(64, interleaved=1)),
    Case("N=128 NCHW", _sizes(128), ("cuda",), quick=True),
    Case("N=128 NHWC", _sizes(128, interleaved=1), ("cuda",)),
)
SWEEP = (*CASES, Case("N=16", _sizes(16)), Case("N=64 256x128", _sizes(64, 256)), Case("N=1", _sizes(1)))

MODES = (
    Mode("flip, crop, normalise", {"erase": None, "polygon": None}),
    Mode("with RE", {"erase": BLACK, "polygon": None}),
    Mode("with RE and RPE", {"erase": BLACK, "polygon": BLACK}),
)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Black bytes as the constant ``images``; the differentiable tensor only carries the output's dtype."""
    sizes = case.sizes
    height, width = sizes["height"], sizes["width"]
    _check(dtype, str(device), height, width)
    images = torch.zeros(sizes["batch"], 3, height, width, dtype=torch.uint8, device=device)
    if sizes["interleaved"]:
        images = images.to(memory_format=torch.channels_last)
    return Inputs((torch.zeros(sizes["batch"], dtype=dtype, device=device),), {"images": images})


@functools.cache
def _check(dtype: torch.dtype, device: str, height: int, width: int) -> None:
    """CheckFailed unless ours equals the reference, bit for bit, on random images."""
    if dtype == torch.float64:
        return
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(0, 256, (4, 3, height, width), generator=generator, dtype=torch.uint8)
    erase, polygon = reid_ops.RandomErasing(), reid_ops.RandomPolygonErasing()
    options: dict[str, Any] = {"size": (height, width), "pad": PAD, "seed": SEED, "dtype": dtype}
    expected = reid_ops.reference.augment(images, rules=(erase.rule, polygon.rule), **options)
    found = reid_ops.augment(images.to(device), erase=erase, polygon=polygon, **options)
    if not torch.equal(found.cpu(), expected):
        raise CheckFailed(f"augmentation, {height}x{width}, {dtype}: ours disagrees with the reference")


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """Bytes read once, elements written once; a multiplication, a subtraction and a division each."""
    sizes = case.sizes
    elements = sizes["batch"] * 3 * sizes["height"] * sizes["width"]
    return Work(3 * elements, 3 * elements, elements, elements * element_size)


# -------------------------------------------------------------------------------------------- contenders


def ours(like: Tensor, *, images: Tensor, **options: Any) -> Tensor:
    """The operator, looked up at every call."""
    size = images.shape[2:]
    return reid_ops.augment(images, size=size, pad=PAD, dtype=like.dtype, seed=SEED, layout="NCHW", **options)


def _reference(like: Tensor, *, images: Tensor, erase: Any, polygon: Any) -> Tensor:
    rules = []
    if erase is not None:
        rules.append(reid_ops.RandomErasing(**erase).rule)
    if polygon is not None:
        rules.append(reid_ops.RandomPolygonErasing(**polygon).rule)
    size = tuple(images.shape[2:])
    return reid_ops.reference.augment(images, size=size, pad=PAD, rules=rules, seed=SEED).to(like.dtype)


BLACK_NORMALISED = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]


def _geometry(size: tuple[int, int]) -> list[Any]:
    from torchvision.transforms import v2

    return [v2.RandomHorizontalFlip(0.5), v2.Pad(PAD), v2.RandomCrop(size)]


def _to_normalised() -> list[Any]:
    from torchvision.transforms import v2

    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)]


def _erasing(erase: Any, polygon: Any) -> list[Any]:
    """Of single normalised images, in place: torchvision's RE, and RPE as published, with PIL."""
    from torchvision.transforms import v2

    from benchmarks.polygon_erasing import pil_triangles_of

    steps: list[Any] = []
    if erase is not None:
        steps.append(v2.RandomErasing(0.5, (0.02, 0.4), (0.3, 1 / 0.3), value=BLACK_NORMALISED, inplace=True))
    if polygon is not None:

        def published(image: Tensor) -> Tensor:
            if torch.rand(()) < 0.5:
                pil_triangles_of(image, 20, BLACK_NORMALISED)
            return image

        steps.append(published)
    return steps


def _applied(steps: list[Any], image: Tensor) -> Tensor:
    for step in steps:
        image = step(image)
    return image


def _per_image(like: Tensor, *, images: Tensor, erase: Any, polygon: Any) -> Tensor:
    """The pipeline of a torchvision user, as a data loader runs it: one image at a time, then stacked."""
    from torchvision.transforms import v2

    steps = [*_geometry((images.shape[2], images.shape[3])), *_to_normalised(), *_erasing(erase, polygon)]
    steps.append(v2.ToDtype(like.dtype))
    return torch.stack([_applied(steps, image.contiguous()) for image in images])


def _stacked(like: Tensor, *, images: Tensor, erase: Any, polygon: Any) -> Tensor:
    """Image by image only what differs between images: the bytes are stacked and normalised as a batch."""
    geometry = _geometry((images.shape[2], images.shape[3]))
    batch = _applied(_to_normalised(), torch.stack([_applied(geometry, image) for image in images]))
    if steps := _erasing(erase, polygon):
        for image in batch:
            _applied(steps, image)
    return batch.to(like.dtype)


def _possible(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
    return importlib.util.find_spec("torchvision") is not None


FORMULATIONS = (
    Formulation("torchvision_v2", _per_image, _possible),
    Formulation("torchvision_v2_stacked", _stacked, _possible),
)

BENCHMARK = Benchmark(
    name="augmentation",
    ours=ours,
    reference=_reference,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    tolerance={torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-6},
    sweep_modes=("with RE and RPE",),
    table_cases={"cpu": ("N=64 NCHW", "N=64 NHWC"), "cuda": ("N=64 NCHW", "N=128 NCHW")},
    table_modes=("flip, crop, normalise", "with RE", "with RE and RPE"),
    headline="with RE",
)
