"""Features of images by any model: in memory, or straight to a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid_ops import flip_average as average_over_flip

from .._progress import track
from ..data.augmentation import Augmentation
from ..data.loaders import make_evaluation_loader
from ..data.occlusion import Occlusion
from ..data.records import ImageRecord
from ..runs.specs import is_spec
from .features import Features, Source, write_features
from .labels import Names

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Extraction:
    """How features are made; the keywords of :func:`extract_features`.

    Attributes:
        image_size: height and width that images are brought to.
        augmentation: whose mean and std normalise them, ImageNet's by default. Nothing is random.
        batch_size: images at a time.
        workers: processes that decode; 0 decodes in this one.
        device: ``"auto"`` (CUDA if torch sees a GPU), ``"cpu"``, or a CUDA device.
        flip_average: L2-normalised means over each image and its mirror image.
        autocast: ``"bfloat16"`` or ``"float16"`` for the network's arithmetic; None: float32.
        progress: a bar on stderr if it takes long.
        path: where the model was loaded from, kept in :class:`Source`; a path as an absolute one.
        occlusion: what images lose before they are looked at; None: nothing.
        interpolation: ``"bilinear"`` or ``"bicubic"``, by which images are brought to their size.

    Raises:
        ValueError: a device that is not there, or another autocast.
    """

    image_size: Sequence[int]
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch_size: int = 64
    workers: int = 2
    device: str | torch.device = "auto"
    flip_average: bool = False
    autocast: str | None = None
    progress: bool = False
    path: str = ""
    occlusion: Occlusion | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        choose_device(self.device)
        if self.autocast is not None and self.autocast not in AUTOCAST:
            raise ValueError(f'autocast must be "bfloat16", "float16" or None, got {self.autocast!r}')

    def source(self, model: nn.Module) -> Source:
        """What its features of a model come from."""
        return Source(
            model=fingerprint(model),
            image_size=(int(self.image_size[0]), int(self.image_size[1])),
            mean=tuple(map(float, self.augmentation.mean)),
            std=tuple(map(float, self.augmentation.std)),
            channels=self.augmentation.channels,
            flip_average=self.flip_average,
            interpolation=self.interpolation,
            path=self.path if not self.path or is_spec(self.path) else str(Path(self.path).resolve()),
        )

    def blocks(self, model: nn.Module, records: Sequence[ImageRecord]) -> Iterator[Tensor]:
        """Features float32 (B, D) on the CPU, a batch at a time."""
        if not records:
            yield self._of_nothing(model)
            return
        device = choose_device(self.device)
        few = len(records) <= self.batch_size  # one batch: workers would only have to be started
        loader = make_evaluation_loader(
            records,
            image_size=self.image_size,
            batch_size=self.batch_size,
            workers=0 if few else self.workers,
            pin_memory=device.type == "cuda",
            interpolation=self.interpolation,
        )
        training, home = model.training, next(model.parameters(), torch.empty(0)).device
        model.eval().to(device)
        try:
            seen = 0
            for decoded in track(_decoded(loader), "features", len(loader), show=self.progress):
                images = decoded.to(device, non_blocking=True)
                if self.occlusion is not None:
                    images = self.occlusion.apply(images, seen)
                seen += len(images)
                yield self._forward(model, self.augmentation.evaluation(images)).float().cpu()
        finally:
            model.to(home).train(training)

    def _of_nothing(self, model: nn.Module) -> Tensor:
        """(0, D), D being that of a black image."""
        training, home = model.training, next(model.parameters(), torch.empty(0)).device
        try:
            black = torch.zeros(1, 3, *self.image_size, dtype=torch.uint8, device=home)
            return self._forward(model.eval(), self.augmentation.evaluation(black)).float().cpu()[:0]
        finally:
            model.train(training)

    @torch.no_grad()
    def _forward(self, model: nn.Module, images: Tensor) -> Tensor:
        context: AbstractContextManager = nullcontext()
        first = next((p for p in model.parameters() if p.is_floating_point()), images)
        if self.autocast is None:  # a network made half precision wants its images so
            images = images.to(first.dtype)
        if self.autocast is not None:
            context = torch.autocast(images.device.type, AUTOCAST[self.autocast])
        with context:
            features = average_over_flip(model, images) if self.flip_average else model(images)
        if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(images):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"the model must give features ({len(images)}, D) in evaluation, got {got}")
        return features


def extract_features(model: nn.Module, records: Sequence[ImageRecord], **options: Any) -> Features:
    """Features of images, in their order, float32 on the CPU.

    The model is used in evaluation mode, on the device asked for, and left in the mode and on the device
    that it was.

    Args:
        model: images (N, 3, H, W), normalised -> features (N, D), as any of ``create_model`` gives. They come
            in the dtype of its parameters, such as float16 after ``model.half()``.
        records: images; of none there are features (0, D).
        **options: the fields of :class:`Extraction`; ``image_size`` must be given.

    Raises:
        TypeError, ValueError: an argument is not as described, an image can't be decoded (it is named), or
            the model does not give features (N, D).
        FileNotFoundError: an image is gone.

    Example:
        >>> model = load_model("hsgnet.safetensors")
        >>> query = extract_features(model, dataset.draws[0].query, image_size=model.image_size)
    """
    extraction = Extraction(**options)
    found = torch.empty(0)
    start = 0
    for block in extraction.blocks(model, records):  # into one tensor: never in memory twice
        if start == 0:
            found = block.new_empty(len(records), block.shape[1])
        found[start : start + len(block)] = block
        start += len(block)
    return Features(found, *_labels(records), extraction.source(model), Names.of(records))


def extract_parts(model: nn.Module, records: Sequence[ImageRecord], **options: Any) -> Iterator[Features]:
    """As :func:`extract_features`, a batch at a time, so that they need never be in memory together.

    Example:
        >>> gallery, _ = Gallery.build(extract_parts(model, records, image_size=model.image_size))
    """
    extraction = Extraction(**options)
    source, names = extraction.source(model), Names.of(records)
    identities, cameras, paths = _labels(records)
    start = 0
    for block in extraction.blocks(model, records):
        rows = slice(start, start + len(block))
        yield Features(block, identities[rows], cameras[rows], paths[rows], source, names)
        start += len(block)


def extract_to_file(
    file: str | os.PathLike[str],
    model: nn.Module,
    records: Sequence[ImageRecord],
    *,
    dtype: torch.dtype = torch.float16,
    **options: Any,
) -> None:
    """As :func:`extract_features`, to a file of :func:`save_features`, with one batch in memory at a time.

    Args:
        file: the file; its folder must exist.
        model: as there.
        records: as there.
        dtype: that features are stored in: float16 or float32.
        **options: as there.

    Raises:
        TypeError, ValueError, FileNotFoundError: as there; nothing is written then.

    Example:
        >>> extract_to_file("gallery.safetensors", model, dataset.draws[0].gallery, image_size=(256, 128))
    """
    extraction = Extraction(**options)
    blocks = extraction.blocks(model, records)
    write_features(
        file,
        blocks,
        *_labels(records),
        source=extraction.source(model),
        dtype=dtype,
        names=Names.of(records),
    )


def fingerprint(model: nn.Module) -> str:
    """32 hexadecimal digits of a network's options, weights and buffers: other features, other digits."""
    options = {key: value for key, value in getattr(model, "options", {}).items() if key != "impl"}
    digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def choose_device(device: str | torch.device) -> torch.device:
    """``"auto"`` is CUDA if torch sees a GPU; ValueError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f'device must be "auto", "cpu" or a CUDA device, got {device!r}') from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {device}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return chosen


def _decoded(loader: torch.utils.data.DataLoader) -> Iterator[Tensor]:
    """Batches of images; an image that can't be decoded in a worker is one line, not a worker's traceback."""
    try:
        for batch in loader:
            yield batch.image
    except (ValueError, OSError) as error:
        last = str(error).strip().splitlines()[-1]
        raise type(error)(last.removeprefix(f"{type(error).__name__}: ")) from None


def _labels(records: Sequence[ImageRecord]) -> tuple[Tensor, Tensor, list[str]]:
    identities = torch.tensor([record.identity for record in records], dtype=torch.int64)
    cameras = torch.tensor([record.camera for record in records], dtype=torch.int64)
    return identities, cameras, [record.name for record in records]
