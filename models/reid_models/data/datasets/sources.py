"""Images to index: files, tables, and folders, with the identities and cameras that their layout tells."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..records import JUNK, ImageRecord
from .folder import FOLDERS
from .listing import read_images
from .naming import Named, is_unknown, number_records
from .tables import SPLITS, WILDLIFE_SPLITS, read_table


def read_sources(paths: Iterable[str | os.PathLike[str]], *, flat: bool = False) -> tuple[ImageRecord, ...]:
    """Images of files, tables and folders, with what is known of them.

    A folder whose images are all in ``IDENTITY/*`` or ``IDENTITY/CAMERA/*`` tells their identities and
    cameras, by the folders' names; so does one with the folders ``train``, ``query`` and ``gallery`` of that
    layout, and a table (``.csv``) as :func:`read_csv` takes. Of other images nothing is known: -1.

    Args:
        paths: at least one.
        flat: folders are only folders.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_images` and :func:`read_csv`.

    Example:
        >>> read_sources(["my_fish"])[0].who
        'nemo'
    """
    found: list[Named] = []
    for path in map(Path, paths):
        if path.suffix.lower() == ".csv" and path.is_file():
            rows = read_table(path, "images", {split: split for split in SPLITS} | WILDLIFE_SPLITS)
            found += [row.image for row in rows]
        else:
            images = [record.path for record in read_images([path])]
            found += _laid_out(path, images) if path.is_dir() and not flat else [Named(i, "") for i in images]
    once: dict[str, Named] = {}
    for image in found:
        once.setdefault(f"{os.path.realpath(image.path)} {image.box}", image)
    (records,) = number_records([once.values()])
    return tuple(_unlabelled(record) if is_unknown(record.who) else record for record in records)


def _unlabelled(record: ImageRecord) -> ImageRecord:
    return ImageRecord(record.path, JUNK, record.camera, box=record.box, camera_name=record.camera_name)


def _laid_out(folder: Path, images: list[str]) -> list[Named]:
    """The images with the names that the layout tells, if it is one."""
    parts = [Path(image).relative_to(folder).parts[:-1] for image in images]
    if all(part and part[0] in FOLDERS for part in parts):
        parts = [part[1:] for part in parts]
    if not all(1 <= len(part) <= 2 for part in parts) or len({part[0] for part in parts}) < 2:
        return [Named(image, "") for image in images]
    return [Named(image, part[0], "".join(part[1:])) for image, part in zip(images, parts, strict=True)]
