"""Datasets of one's own: a folder ``identity/camera/*`` or a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..records import JUNK, ImageRecord, ReidDataset, RetrievalSplit, identities
from .listing import IMAGE_SUFFIXES, find_root, list_folders, list_images

LAYOUT = f"""\
  ROOT/train/IDENTITY/CAMERA/*, ROOT/query/IDENTITY/CAMERA/*, ROOT/gallery/IDENTITY/CAMERA/*
  or ROOT/IDENTITY/CAMERA/*, to be split at random; images are {", ".join(IMAGE_SUFFIXES)}"""
SPLITS = ("train", "query", "gallery")
COLUMNS = ("path", "identity", "camera", "split")

#: An image before its names become numbers: path, identity, camera.
Named = tuple[str, str, str]


def read_folder(root: str | os.PathLike[str], *, train_fraction: float = 0.5, seed: int = 0) -> ReidDataset:
    """Reads a folder of images sorted by identity and camera.

    With folders ``train``, ``query`` and ``gallery`` those are the splits. Otherwise identities are split at
    random: of the test ones, one image from each camera becomes a query, and all are the gallery, where the
    query's own camera is junk (as in VeRi-776). Identities that only one camera saw are never queries.

    Args:
        root: the folder.
        train_fraction: share of identities for training, in (0, 1), where they are split at random.
        seed: of the random split, at least 0.

    Raises:
        FileNotFoundError: the folder has another layout; the message shows the one looked for.
        ValueError: an image is empty, a split is, or no test identity was seen by two cameras.

    Example:
        >>> dataset = read_folder("my_images")  # my_images/red_van/gate_2/0001.jpg ...
    """
    name = "folder"
    check_fraction(train_fraction, name)
    path = find_root(root, name, (), LAYOUT)
    if all((path / split).is_dir() for split in SPLITS):
        named = [_named(path / split, name) for split in SPLITS]
        train, query, gallery = _numbered(named)
        return ReidDataset(name, str(path), train, (RetrievalSplit(query, gallery),))
    (records,) = _numbered([_named(path, name)])
    train, split = split_identities(records, train_fraction, seed, name, str(path))
    return ReidDataset(name, str(path), train, (split,))


def read_csv(path: str | os.PathLike[str]) -> ReidDataset:
    """Reads a CSV file with the columns ``path``, ``identity``, ``camera`` and ``split``.

    ``split`` is ``train``, ``query`` or ``gallery``; an identity ``-1`` is junk; other columns are passed
    over. Paths are relative to the file's folder. Gallery images of a query's identity and camera are junk.

    Args:
        path: the file, UTF-8.

    Raises:
        FileNotFoundError: the file, or an image that it names, does not exist.
        ValueError: a column, a value or a split is missing, with the line.

    Example:
        >>> dataset = read_csv("my_images/index.csv")
        path,identity,camera,split
        images/0001.jpg,red_van,gate_2,train
    """
    name = "csv"
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{name}: path must be a CSV file with {', '.join(COLUMNS)}, got {file}")
    splits: dict[str, list[Named]] = {split: [] for split in SPLITS}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {file} must be UTF-8 text ({error})") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    with _errors_named(rows, name, file):
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{name}: {file} must have the columns {', '.join(COLUMNS)}: no {', '.join(missing)}"
            )
        for row in rows:
            where = f"line {rows.line_num} of {file}"
            empty = [column for column in COLUMNS if not row[column]]
            if empty:
                raise ValueError(f"{name}: {where} has no {', '.join(empty)}")
            if row["split"] not in splits:
                raise ValueError(
                    f"{name}: {where}: split must be train, query or gallery, got {row['split']!r}"
                )
            image = file.parent / row["path"]
            if not image.is_file():
                raise FileNotFoundError(f"{name}: {where}: {image} does not exist")
            if image.stat().st_size == 0:
                raise ValueError(f"{name}: {where}: {image} is an empty file")
            splits[row["split"]].append((str(image), row["identity"], row["camera"]))
    train, query, gallery = _numbered([splits[split] for split in SPLITS])
    return ReidDataset(name, str(file), train, (RetrievalSplit(query, gallery),))


@contextmanager
def _errors_named(rows: csv.DictReader[str], name: str, file: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ValueError(f"{name}: line {rows.line_num + 1} of {file} is not CSV ({error})") from None


def split_identities(
    records: Iterable[ImageRecord], train_fraction: float, seed: int, name: str, root: str
) -> tuple[tuple[ImageRecord, ...], RetrievalSplit]:
    """Training images and the retrieval split of the other identities, at random."""
    records = tuple(records)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(sorted(identities(records)))
    if len(shuffled) < 2:
        raise ValueError(f"{name}: a split needs at least 2 identities, got {len(shuffled)} ({root})")
    count = min(max(round(train_fraction * len(shuffled)), 1), len(shuffled) - 1)
    chosen = {int(identity) for identity in shuffled[:count]}
    gallery = tuple(record for record in records if record.identity not in chosen)
    groups: dict[int, dict[int, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in gallery:
        if record.identity != JUNK:
            groups[record.identity][record.camera].append(record)
    query = tuple(
        images[int(random.integers(len(images)))]
        for _, cameras in sorted(groups.items())
        if len(cameras) > 1
        for _, images in sorted(cameras.items())
    )
    if not query:
        raise ValueError(
            f"{name}: no test identity has images from two cameras, so there are no queries ({root})"
        )
    return tuple(record for record in records if record.identity in chosen), RetrievalSplit(query, gallery)


def check_fraction(value: float, name: str) -> None:
    """Raises ``ValueError`` for a train_fraction outside (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: train_fraction must be in (0, 1), got {value}")


def _named(root: Path, name: str) -> list[Named]:
    """Images of ``root/identity/camera/*``; images at other levels are an error."""
    found: list[Named] = []
    misplaced = list_images(root, name)
    for identity in list_folders(root):
        misplaced += list_images(identity, name)
        for camera in list_folders(identity):
            found += [(str(image), identity.name, camera.name) for image in list_images(camera, name)]
            misplaced += [image for folder in list_folders(camera) for image in list_images(folder, name)]
    if misplaced:
        raise FileNotFoundError(
            f"{name}: {misplaced[0]} is not in a folder of a camera. Looked for:\n{LAYOUT}"
        )
    if not found:
        raise FileNotFoundError(f"{name}: {root} has no images. Looked for:\n{LAYOUT}")
    return found


def _numbered(splits: Sequence[Sequence[Named]]) -> list[tuple[ImageRecord, ...]]:
    """Numbers for the names of identities and cameras, in the names' order; ``-1`` stays junk."""
    names = sorted({identity for split in splits for _, identity, _ in split} - {str(JUNK)})
    numbers = {identity: number for number, identity in enumerate(names)} | {str(JUNK): JUNK}
    cameras = {
        name: i for i, name in enumerate(sorted({camera for split in splits for _, _, camera in split}))
    }
    return [
        tuple(ImageRecord(path, numbers[identity], cameras[camera]) for path, identity, camera in split)
        for split in splits
    ]
