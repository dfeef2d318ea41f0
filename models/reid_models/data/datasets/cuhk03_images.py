"""The images of CUHK03: a folder of them, made from ``cuhk-03.mat`` where there is none yet."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..._progress import track
from ..records import ImageRecord
from .listing import list_images

BOXES = ("labelled", "detected")
FOLDERS = {
    "labelled": ("images_labeled", "labeled", "labelled", "cuhk03_labeled"),
    "detected": ("images_detected", "detected", "cuhk03_detected"),
}
MAT = "cuhk-03.mat"
NESTED = (".", "cuhk03_release", "cuhk03-np", "cuhk03", "CUHK03")
NAME = re.compile(r"(?P<pair>\d)_(?P<person>\d{3})_(?P<view>[12])_(?P<number>\d{2})\..*")
FORM = "PAIR_PERSON_VIEW_NUMBER, as in 1_001_1_01.png"
VIEWS = (1, 2)
IMAGES_A_VIEW = 5
LAYOUT = """\
  ROOT (or ROOT/cuhk03_release, ROOT/cuhk03-np, ROOT/cuhk03), which has
    cuhk-03.mat, as released: its images are written to images_labeled/ or images_detected/ beside it, once
    or images_labeled/, images_detected/ (or labeled/, detected/):  1_001_1_01.png ..."""


def find_images(root: str | os.PathLike[str], boxes: str, name: str) -> Path:
    """The folder of the images; where there is only the .mat file it is made, which takes a minute.

    Raises:
        FileNotFoundError: there are neither images nor the file.
        ValueError: the file is not the one released.
        ModuleNotFoundError: reading the file needs h5py.
    """
    path = Path(root)
    if not path.is_dir():
        raise FileNotFoundError(f"{name}: root must be a folder, got {path}. Looked for:\n{LAYOUT}")
    for folder in (path / nested / own for nested in NESTED for own in FOLDERS[boxes]):
        if folder.is_dir():
            return folder
    file = find_mat(path)
    if file is None:
        raise FileNotFoundError(f"{name}: {path} has no images of {boxes} boxes. Looked for:\n{LAYOUT}")
    folder = file.parent / FOLDERS[boxes][0]
    write_images(file, boxes, folder, name)
    return folder


def find_mat(root: Path) -> Path | None:
    """The file as released, in the dataset's folder or in one of the usual folders in it."""
    files = (root / nested / MAT for nested in NESTED)
    return next((file for file in files if file.is_file()), None)


def list_records(folder: Path, name: str) -> tuple[ImageRecord, ...]:
    """All images of a folder; identities by :func:`number_of`, cameras are the two views of a pair.

    Raises:
        ValueError: an image is misnamed or empty, or there is none.
    """
    records = []
    for image in list_images(folder, name):
        match = NAME.fullmatch(image.name)
        if match is None:
            raise ValueError(f"{name}: {image} must be named {FORM}")
        identity = number_of(int(match["pair"]), int(match["person"]))
        records.append(ImageRecord(str(image), identity, int(match["view"])))
    if not records:
        raise ValueError(f"{name}: {folder} has no images")
    return tuple(records)


def number_of(pair: int, person: int) -> int:
    """The identity of a person of a pair of cameras, both counted from 1: pair 2, person 13 is 2013."""
    return 1000 * pair + person


def read_test_sets(file: Path, name: str) -> list[set[int]]:
    """The twenty test sets of the old protocol, as identities.

    Raises:
        ValueError, ModuleNotFoundError: as :func:`find_images`.
    """
    with _opened(file, name) as content:
        references = _member(content, "testsets", file, name)[()].ravel()
        sets = [np.asarray(content[reference]).T.astype(int) for reference in references]
    if any(pairs.ndim != 2 or pairs.shape[1] != 2 for pairs in sets):
        raise ValueError(f"{name}: testsets in {file} must hold (camera pair, person) rows")
    return [{number_of(pair, person) for pair, person in pairs.tolist()} for pairs in sets]


def write_images(file: Path, boxes: str, folder: Path, name: str) -> None:
    """Writes the images of the .mat file to a folder, which appears when it is whole."""
    with _opened(file, name) as content:
        key = "labeled" if boxes == "labelled" else "detected"
        pairs = [content[reference] for reference in _member(content, key, file, name)[()].ravel()]
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            persons = sum(pair.shape[1] for pair in pairs)
            for stem, pixels in track(
                _images(content, pairs), f"{folder.name}/", persons * 2 * IMAGES_A_VIEW
            ):
                if pixels is not None:
                    Image.fromarray(pixels).save(unfinished / f"{stem}.png", compress_level=1)
            unfinished.chmod(0o755)  # temporary folders are their owner's alone
            os.rename(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # else another process has been quicker
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _images(content: Any, pairs: list[Any]) -> Iterator[tuple[str, np.ndarray | None]]:
    """Names and pixels uint8 (H, W, 3) of every place of the file; None where it is empty."""
    for pair, cells in enumerate(pairs, start=1):
        for person, references in enumerate(cells[()].T, start=1):  # MATLAB's (persons, 10), transposed
            for number, reference in enumerate(references, start=1):
                view = 1 if number <= IMAGES_A_VIEW else 2
                cell = content[reference]
                pixels = np.ascontiguousarray(cell[()].T) if cell.ndim == 3 else None
                yield f"{pair}_{person:03}_{view}_{number:02}", pixels


def _opened(file: Path, name: str) -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name}: reading {file} needs h5py (pip install h5py)", name="h5py"
        ) from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{name}: {file} must be the file released, MATLAB 7.3 (HDF5) ({error})") from None


def _member(content: Any, key: str, file: Path, name: str) -> Any:
    if key not in content:
        got = ", ".join(sorted(content)) or "nothing"
        raise ValueError(f"{name}: {file} must be the file released, which has {key}, got {got}")
    return content[key]
