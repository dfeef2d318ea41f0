"""Image records as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from .._progress import track
from .decoding import decode_image
from .jpeg_warnings import jpeg_warnings
from .records import ImageRecord

INTERPOLATIONS = ("bilinear", "bicubic")


class Sample(NamedTuple):
    """One image; a DataLoader makes batches of the same names."""

    image: Tensor
    identity: int
    camera: int


class ImageDataset(Dataset[Sample]):
    """Decodes image records, for a ``torch.utils.data.DataLoader``.

    Args:
        records: of :class:`ReidDataset`: ``dataset.train``, or a draw's ``query`` or ``gallery``.
        size: height and width that images are brought to, antialiased; None leaves them as they are, and then
            images of several sizes can't be in one batch.
        labels: identity to class number, ``dataset.train_labels`` for training; None keeps identities.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Items:
        :class:`Sample`: image uint8 (3, H, W), RGB, as a view of (H, W, 3); identity, or class with
        ``labels``; camera.

    Raises:
        ValueError: no records, a bad size or an identity without a label; when an image is taken, one that
            can't be decoded.
        FileNotFoundError: when an image is taken, its file is gone.

    Example:
        >>> images = ImageDataset(dataset.train, size=(256, 128), labels=dataset.train_labels)
        >>> images[0].image.shape, images[0].image.dtype
        (torch.Size([3, 256, 128]), torch.uint8)
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        *,
        size: Sequence[int] | None = None,
        labels: Mapping[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        if not records:
            raise ValueError("ImageDataset: records must hold at least one image, got none")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"ImageDataset: size must be (height, width), at least 1, got {tuple(size)}")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"ImageDataset: interpolation must be one of {', '.join(INTERPOLATIONS)}, got "
                f"{interpolation!r}"
            )
        for record in records:
            if labels is not None and record.identity not in labels:
                raise ValueError(
                    f"ImageDataset: labels must have identity {record.identity} of {record.path}"
                )
        self.records, self.interpolation = tuple(records), interpolation
        self.size = None if size is None else [int(length) for length in size]
        if self.size is not None:  # as in augmentation.py; here, or every worker would
            import torchvision.transforms.v2  # noqa: F401
        self.identities = [r.identity if labels is None else labels[r.identity] for r in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        image = decode_image(record)
        if self.size is not None and list(image.shape[1:]) != self.size:
            from torchvision.transforms.v2 import InterpolationMode, functional

            mode = InterpolationMode(self.interpolation)
            image = functional.resize(image, self.size, interpolation=mode, antialias=True)
        return Sample(image, self.identities[index], record.camera)


def stack_samples(samples: Sequence[Sample]) -> Sample:
    """Samples of one size as one, for a DataLoader's ``collate_fn``: image (N, 3, H, W) as (N, H, W, 3).

    Stacked in the order in memory, straight into memory that processes share.
    """
    rows = [sample._replace(image=sample.image.permute(1, 2, 0)) for sample in samples]
    image, identity, camera = default_collate(rows)
    return Sample(image.permute(0, 3, 1, 2), identity, camera)


def check_images(
    records: Iterable[ImageRecord], *, workers: int = 4, progress: bool = False, strict: bool = True
) -> None:
    """Decodes every image once, so that a damaged one is known before training starts.

    Args:
        records: of :class:`ReidDataset`.
        workers: threads, at least 1.
        progress: a bar on stderr if it takes long.
        strict: as for :func:`find_damaged`.

    Raises:
        ValueError: images are missing, can't be decoded or, with ``strict``, have lost something: how many,
            and the first few with their problem.

    Example:
        >>> check_images(dataset.train)
    """
    records = tuple(records)
    problems = list(find_damaged(records, workers=workers, progress=progress, strict=strict).values())
    if problems:
        first = "\n  ".join(problems[:5])
        raise ValueError(f"check_images: {len(problems)} images can't be read, such as:\n  {first}")


def find_damaged(
    records: Iterable[ImageRecord], *, workers: int = 4, progress: bool = False, strict: bool = False
) -> dict[ImageRecord, str]:
    """Images that can't be used, each with a line that says why.

    Args:
        records: of :class:`ReidDataset`, or from :func:`read_images`.
        workers: threads, at least 1.
        progress: a bar on stderr if it takes long.
        strict: also JPEG files that decoders fill up with grey where something is missing
            (:func:`jpeg_warnings`), which decodes them a second time.

    Example:
        >>> damaged = find_damaged(records)
        >>> usable = [record for record in records if record not in damaged]
    """
    records = tuple(records)
    with ThreadPoolExecutor(workers) as pool:
        checked = track(pool.map(_problem, records), "checking images", len(records), show=progress)
        found = {
            record: problem for record, problem in zip(records, checked, strict=True) if problem is not None
        }
    if not strict:
        return found
    whole = [record for record in records if record not in found and record.content is None]
    said = jpeg_warnings(list(dict.fromkeys(record.path for record in whole)), workers=workers)
    for record in whole:
        if record.path in said:
            found[record] = f"{record.path} decodes, but has lost something ({said[record.path]})"
    return {record: found[record] for record in records if record in found}


def _problem(record: ImageRecord) -> str | None:
    try:
        decode_image(record)
    except (OSError, ValueError) as error:
        return str(error).removeprefix("decode_image: ")
    return None
