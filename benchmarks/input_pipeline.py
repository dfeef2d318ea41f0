"""Benchmark of ``reid_models``' input pipeline against torchvision's transforms in a DataLoader.

A call is one epoch over JPEG files: decode, resize, flip, pad by 10 and crop, normalise, random erasing, to
batches of floats on the device; images a second are the case's N over the time. Ours decodes and resizes to
bytes in two workers and does the rest to whole batches; contenders do all of it in their workers, an image at
a time, as torchvision's users do, with one worker to three.

"evaluation" has no randomness, and every eighth pixel of every eighth row is compared. "training" draws
random numbers, so what is compared there are the labels, in order; that the images are right is checked
apart, before a case is timed: on black images filled with black, which flips, crops and erasing leave as they
are, and on images half white and half grey, of which as many as should be are flipped, moved and erased.

Needs the extra ``models``. Images are made up, as large as the datasets' are, and lie in a temporary folder.
"""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.check import CheckFailed
from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work

if TYPE_CHECKING:
    from reid_models.data import ImageRecord

PAD, ERASE = 10, 0.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OURS_WORKERS = 2
IMAGES_PER_IDENTITY = 4
SHOWN = 8  # every eighth pixel and row is compared
NOISE, BLACK, HALVES = "noise", "black", "halves"  # what is on the images
CHECKED_IMAGES = {BLACK: 8, HALVES: 128}

# ---------------------------------------------------------------------------------------------- sizes


def _sizes(images: int, batch: int, source: tuple[int, int], target: tuple[int, int]) -> dict[str, int]:
    """``source``: least and greatest height; crops are half as wide, vehicles about as wide as high."""
    return {
        "images": images, "batch": batch, "least": source[0], "greatest": source[1],
        "height": target[0], "width": target[1],
    }  # fmt: skip


CASES = (
    Case("persons N=1024", _sizes(1024, 64, (128, 128), (256, 128)), quick=True),
    Case("vehicles N=256", _sizes(256, 64, (200, 400), (256, 256))),
)
SWEEP = (
    *CASES,
    Case("persons N=1024, batches of 128", _sizes(1024, 128, (128, 128), (256, 128))),
    Case("large persons N=256", _sizes(256, 64, (300, 500), (256, 128))),
)
MODES = (Mode("training", {"training": True}), Mode("evaluation", {"training": False}))


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """The sizes as a constant; the differentiable tensor only carries dtype and device."""
    sizes = tuple(case.sizes.values())
    if dtype != torch.float64:
        _check_training(sizes, dtype, device.type)
    return Inputs((torch.zeros(1, dtype=dtype, device=device),), {"sizes": torch.tensor(sizes)})


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """The decoded bytes read once and the floats written once."""
    sizes = case.sizes
    side = (sizes["least"] + sizes["greatest"]) // 2
    decoded = 3 * side * side * sizes["width"] // sizes["height"]
    elements = 3 * sizes["height"] * sizes["width"]
    images = sizes["images"]
    return Work(images * elements, images * elements, images * decoded, images * elements * element_size)


# --------------------------------------------------------------------------------------------- images


@functools.cache
def _records(sizes: tuple[int, ...], picture: str = NOISE) -> tuple[ImageRecord, ...]:
    """Files; those with smooth colours and noise take a decoder as long as photographs do."""
    from reid_models.data import ImageRecord

    images, _, least, greatest, height, width = sizes
    folder = Path(tempfile.mkdtemp(prefix="input_pipeline_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    random = np.random.default_rng(0)
    records = []
    for number in range(CHECKED_IMAGES.get(picture, images)):
        rows = int(random.integers(least, greatest + 1))
        columns = rows * width // height
        path = folder / f"{number:05}.jpg"
        path.write_bytes(_jpeg(rows, columns, random, picture))
        records.append(ImageRecord(str(path), number // IMAGES_PER_IDENTITY, 0))
    return tuple(records)


def _jpeg(height: int, width: int, random: np.random.Generator, picture: str) -> bytes:
    from PIL import Image

    pixels = np.zeros((height, width, 3), np.uint8)
    if picture == HALVES:
        pixels[:, : width // 2], pixels[:, width // 2 :] = 255, 128
    if picture == NOISE:
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        pixels = (np.asarray(smooth) + random.normal(0, 5, (height, width, 3))).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _sampler(records: Sequence[ImageRecord], batch: int) -> Any:
    from reid_models.data import IdentitySampler

    return IdentitySampler(
        [record.identity for record in records],
        identities_per_batch=batch // IMAGES_PER_IDENTITY,
        images_per_identity=IMAGES_PER_IDENTITY,
    )


# ----------------------------------------------------------------------------------------- contenders

Batches = Callable[[torch.dtype, torch.device], Iterator[tuple[Tensor, Tensor]]]


def _collected(batches: Batches, like: Tensor, training: bool) -> Tensor:
    """What is compared: the labels, or some of the pixels."""
    found = []
    for images, labels in batches(like.dtype, like.device):
        found.append(labels if training else images[:, :, ::SHOWN, ::SHOWN].clone())
    return torch.cat(found).to(like)


@functools.cache
def _our_batches(sizes: tuple[int, ...], training: bool, pinned: bool, picture: str = NOISE) -> Batches:
    """One loader for all calls, whose workers live on, as in training."""
    from reid_models import data

    records, (_, batch, _, _, *target) = _records(sizes, picture), sizes
    erase = {"p": ERASE, "fill": "mean", "mean": 0.0}
    augmentation = data.Augmentation(pad=PAD, erase=erase, mean=MEAN, std=STD)
    workers = OURS_WORKERS if picture == NOISE else 0
    loader: Any
    if not training:
        loader = data.make_evaluation_loader(
            records, image_size=target, batch_size=batch, workers=workers, pin_memory=pinned
        )
    else:
        sampler = _sampler(records, min(batch, len(records)))
        images = data.ImageDataset(records, size=target)
        loader = data.make_train_loader(images, sampler, workers=workers, pin_memory=pinned)

    def batches(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        if training:
            sampler.set_epoch(0)
        for each in loader:
            image = each.image.to(device, non_blocking=True)
            if training:
                done = augmentation.train(image, seed=each.seed, first_index=each.first_index, dtype=dtype)
            else:
                done = augmentation.evaluation(image, dtype=dtype)
            yield done, each.identity

    return batches


def ours(like: Tensor, *, sizes: Tensor, training: bool) -> Tensor:
    """One epoch of our loader."""
    return _collected(_our_batches(tuple(sizes.tolist()), training, like.is_cuda), like, training)


class _Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The dataset of a torchvision user: Pillow opens, torchvision transforms, one image at a time."""

    def __init__(self, records: Sequence[ImageRecord], target: list[int], training: bool, by: str) -> None:
        from torchvision.transforms import v2

        resize: list[Any] = [v2.Resize(target), v2.ToImage()]  # of a PIL image, with Pillow
        random: list[Any] = [v2.RandomHorizontalFlip(0.5), v2.Pad(PAD), v2.RandomCrop(target)]
        normalise: list[Any] = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)]
        black = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
        erase = v2.RandomErasing(ERASE, (0.02, 0.4), (0.3, 1 / 0.3), value=black, inplace=True)
        steps = [*(reversed(resize) if by == "tensor" else resize), *(random if training else [])]
        self.transform = v2.Compose([*steps, *normalise, *([erase] if training else [])])
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        with Image.open(self.records[index].path) as image:
            return self.transform(image.convert("RGB")), self.records[index].identity


@functools.cache
def _torchvision_batches(
    by: str, workers: int, sizes: tuple[int, ...], training: bool, pinned: bool, picture: str = NOISE
) -> Batches:
    records, (_, batch, _, _, *target) = _records(sizes, picture), sizes
    sampler = _sampler(records, min(batch, len(records))) if training else None
    order: dict[str, Any] = {"batch_sampler": sampler} if training else {"batch_size": batch}
    loader = torch.utils.data.DataLoader(
        _Images(records, target, training, by), **order,
        num_workers=workers, persistent_workers=workers > 0, pin_memory=pinned,
    )  # fmt: skip

    def batches(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        if sampler is not None:
            sampler.set_epoch(0)
        for images, labels in loader:
            yield images.to(device, dtype, non_blocking=True), labels

    return batches


def _torchvision(by: str, workers: int) -> Callable[..., Tensor]:
    def function(like: Tensor, *, sizes: Tensor, training: bool) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
            made = _torchvision_batches(by, workers, tuple(sizes.tolist()), training, like.is_cuda)
            return _collected(made, like, training)

    return function


FORMULATIONS = tuple(
    Formulation(f"torchvision, {by} resize, {workers} workers", _torchvision(by, workers), compilable=False)
    for by, workers in (("tensor", 1), ("tensor", 2), ("tensor", 3), ("Pillow", 2))
)


def _reference(like: Tensor, *, sizes: Tensor, training: bool) -> Tensor:
    """Decoded by Pillow, resized by torchvision, normalised in the dtype given, one image at a time."""
    from PIL import Image
    from torchvision.transforms.v2 import functional

    numbers = tuple(sizes.tolist())
    records, (_, batch, _, _, *target) = _records(numbers), numbers
    if training:
        order = [index for indices in _sampler(records, batch) for index in indices]
        return torch.tensor([records[index].identity for index in order]).to(like)
    mean, std = (torch.tensor(values).to(like)[:, None, None] for values in (MEAN, STD))
    found = []
    for record in records:
        with Image.open(record.path) as image:
            resized = functional.resize(functional.pil_to_tensor(image.convert("RGB")), target)
        found.append((resized[:, ::SHOWN, ::SHOWN].to(like) / 255 - mean) / std)
    return torch.stack(found)


@functools.cache
def _check_training(sizes: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    """CheckFailed unless images come out of every training pipeline as they should."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for name, images in _checked_images(BLACK, sizes, dtype, device):
        expected = (-mean / std).expand(len(images), 3, *sizes[4:])
        if images.shape != expected.shape or not torch.allclose(images, expected, rtol=1e-2, atol=0):
            raise CheckFailed(f"input_pipeline: {name} does not leave black images as they are")
    for name, images in _checked_images(HALVES, sizes, dtype, device):
        _check_randomness(name, images * std + mean)


def _checked_images(
    picture: str, sizes: tuple[int, ...], dtype: torch.dtype, device: str
) -> Iterator[tuple[str, Tensor]]:
    """Every training pipeline's name and images, float32 on the CPU; the same every time."""
    pipelines = {"ours": _our_batches(sizes, True, False, picture)}
    for by in ("tensor", "Pillow"):
        pipelines[by] = _torchvision_batches(by, 0, sizes, True, False, picture)
    for name, batches in pipelines.items():
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(0)
            found = [images.float().cpu() for images, _ in batches(dtype, torch.device(device))]
        yield name, torch.cat(found)


def _check_randomness(name: str, images: Tensor) -> None:
    """CheckFailed unless about as many of the halves (N, 3, H, W), in [0, 1], are changed as should be."""
    bright, dark = images.mean(1) > 0.75, images.mean(1) < 0.25  # white; padding or erased
    height, width = images.shape[2:]
    found = {
        # White is no longer on the left, where no crop moves grey.
        "flipped": (~bright[:, :, : width // 2 - PAD].flatten(1).any(1), 0.5),
        # The top or the bottom row is padding, for all crops but the one in the middle.
        "moved": (dark[:, 0].all(1) | dark[:, -1].all(1), 1 - 1 / (2 * PAD + 1)),
        # Something is dark where padding does not reach; what is erased is hardly ever smaller than the rest.
        "erased": (dark[:, PAD : height - PAD, PAD : width - PAD].flatten(1).any(1), ERASE),
    }
    for change, (images_changed, expected) in found.items():
        share = float(images_changed.float().mean())
        deviation = (expected * (1 - expected) / len(images)) ** 0.5
        if abs(share - expected) > 4 * deviation:
            raise CheckFailed(
                f"input_pipeline: {name} has {share:.2f} of the images {change}, expected {expected:.2f}"
            )


BENCHMARK = Benchmark(
    name="input_pipeline",
    ours=ours,
    reference=_reference,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    # Half a grey level for ours, a whole one for contenders: Pillow's own resizing rounds another way.
    tolerance=dict.fromkeys((torch.float32, torch.float16, torch.bfloat16, torch.float64), 0.0034),
    sweep_modes=("training",),
    table_cases={"cpu": ("persons N=1024", "vehicles N=256"), "cuda": ("persons N=1024", "vehicles N=256")},
    table_modes=("training", "evaluation"),
    headline="training",
)
