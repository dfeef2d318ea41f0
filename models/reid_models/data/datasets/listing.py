"""Finding images in folders, with errors that name the path and the layout looked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..records import JUNK, ImageRecord

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def find_root(
    root: str | os.PathLike[str], name: str, needed: Sequence[str], layout: str, nested: Sequence[str] = ()
) -> Path:
    """The folder that holds all of ``needed``: ``root``, or one of its folders ``nested``.

    Raises:
        FileNotFoundError: naming the path, what is missing in it and the layout.
    """
    path = Path(root)
    if not path.is_dir():
        raise FileNotFoundError(f"{name}: root must be a folder, got {path}. Looked for:\n{layout}")
    for folder in (path, *(path / child for child in nested)):
        missing = [entry for entry in needed if not (folder / entry).exists()]
        if not missing:
            return folder
    missing = [entry for entry in needed if not (path / entry).exists()]
    raise FileNotFoundError(f"{name}: {path} has no {', '.join(missing)}. Looked for:\n{layout}")


def list_images(folder: Path, name: str) -> list[Path]:
    """Images directly in a folder, sorted by name; other files are passed over.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an image file is empty.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: {folder} must be a folder of images")
    images = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith("."):
                if entry.is_file() and entry.stat().st_size == 0:
                    raise ValueError(f"{name}: {entry.path} is an empty file")
                images.append(Path(entry.path))
    return sorted(images)


def read_images(paths: Iterable[str | os.PathLike[str]]) -> tuple[ImageRecord, ...]:
    """Images of which nothing is known but where they are: files, and all in folders and the folders in them.

    Identity and camera of the records are -1. The images of a folder are in the order of their paths;
    hidden ones are passed over.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder has no images, or an image is an empty file.

    Example:
        >>> gallery = read_images(["my_images", "one_more.jpg"])
    """
    name = "images"
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            folders = [path, *_folders_below(path)]
            inside = sorted(image for folder in folders for image in list_images(folder, name))
            if not inside:
                suffixes = ", ".join(IMAGE_SUFFIXES)
                raise ValueError(f"{name}: {path} has no images ({suffixes}), nor have the folders in it")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{name}: {path} does not exist")
    return tuple(ImageRecord(str(path), JUNK, -1) for path in found)


def _folders_below(folder: Path) -> list[Path]:
    return [below for child in list_folders(folder) for below in (child, *_folders_below(child))]


def list_folders(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted by name, hidden ones left out."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def named_record(
    path: Path, pattern: re.Pattern[str], form: str, name: str, *, camera: int | None = None
) -> ImageRecord:
    """The record that a file's name tells, and of ``camera`` where the folder does.

    Raises:
        ValueError: the name does not have the form.
    """
    match = pattern.match(path.name)
    if match is None:
        raise ValueError(f"{name}: {path} must be named {form}")
    seen = int(match["camera"]) if camera is None else camera
    return ImageRecord(str(path), int(match["identity"]), seen)


def read_lines(path: Path, name: str) -> list[str]:
    """Lines of a list file without blank ones.

    Raises:
        FileNotFoundError, ValueError: no such file, or it is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: {path} must be a text file ({error})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
