"""Finding images in folders, with errors that name the path and the layout looked for."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..damage import report_damage
from ..passed_over import COPIES, FRAMES, VIDEOS, counted_files, describe, pass_over
from ..records import JUNK, ImageRecord

#: Made by file servers and systems: thumbnails, forks, what was thrown away.
SYSTEM_FOLDERS = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "System Volume Information")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
#: How Windows, macOS and browsers name copies: "a - Copy.jpg", "a - Copy (2).jpg", "a copy.jpg", "a (1).jpg".
COPY = re.compile(
    r"(?P<original>.+?)( - (Copy|Kopie|Copie|Copia)( \(\d+\))?| copy( \d+)?| ?\(\d+\))", re.IGNORECASE
)


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
    """Images directly in a folder, sorted by name. Other files and folders named like images are passed over.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an image file is empty, or no file: a pipe, a device, a link that leads nowhere.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: {folder} must be a folder of images")
    images = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.is_dir():
                continue
            if not entry.name.lower().endswith(IMAGE_SUFFIXES):
                pass_over(entry.name)
            elif not entry.is_file():
                kinds = "a pipe, a device or a broken link"
                report_damage(ValueError(f"{name}: {entry.path} must be a file, not {kinds}"))
            elif entry.stat().st_size == 0:
                report_damage(ValueError(f"{name}: {entry.path} is an empty file"))
            else:
                images.append(Path(entry.path))
    return sorted(images)


def read_images(paths: Iterable[str | os.PathLike[str]]) -> tuple[ImageRecord, ...]:
    """Images of which nothing is known but where they are: files, and all in folders and the folders in them.

    Identity and camera of the records are -1. The images of a folder are in the order of their paths; hidden
    ones are passed over. A file or folder that is met twice, by a link or because it was given twice, counts
    once; so does a copy, of the bytes of the file that it is named after (``a (1).jpg``, ``a - Copy.jpg``).
    What else is passed over :func:`reid_models.data.passed_over.counted_files` counts.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder has no images, an image is an empty file, or a file is a video.

    Example:
        >>> gallery = read_images(["my_images", "one_more.jpg"])
    """
    name = "images"
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(image for folder in _folders_of(path) for image in list_images(folder, name))
            if not inside:
                raise _no_images(path, name)
            found += inside
        elif path.suffix.lower() in VIDEOS and path.is_file():
            raise ValueError(f"{name}: {path} is a video; {FRAMES}")
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{name}: {path} does not exist")
    once: dict[str, Path] = {}
    all_of_them = set(found)
    for path in found:
        if copied_from(path) in all_of_them and _is_copy(path):
            pass_over(path.name, COPIES)
        else:
            once.setdefault(os.path.realpath(path), path)
    return tuple(ImageRecord(str(path), JUNK, -1) for path in once.values())


def _no_images(folder: Path, name: str) -> ValueError:
    """With what there is instead."""
    with counted_files() as counts:
        for inside in _folders_of(folder):
            list_images(inside, name)
    suffixes = ", ".join(IMAGE_SUFFIXES)
    there = "".join(f"; {line}" for line in describe(counts))
    return ValueError(f"{name}: {folder} has no images ({suffixes}), nor have the folders in it{there}")


def copied_from(path: Path) -> Path | None:
    """The file beside it that a file is a copy of, by its name; None if there is none."""
    match = COPY.fullmatch(path.stem)
    original = None if match is None else path.with_name(match["original"] + path.suffix)
    return original if original is not None and original.is_file() else None


def _is_copy(path: Path) -> bool:
    """Whether it is named as a copy and has the original's bytes."""
    original = copied_from(path)
    return original is not None and filecmp.cmp(path, original, shallow=False)


def _folders_of(folder: Path) -> list[Path]:
    """The folder and all below it, each once: links may lead back up, or to one place from several."""
    found, seen, waiting = [], set(), [folder]
    while waiting:
        folder = waiting.pop()
        facts = folder.stat()
        if (facts.st_dev, facts.st_ino) not in seen:
            seen.add((facts.st_dev, facts.st_ino))
            found.append(folder)
            waiting += list_folders(folder)
    return found


def list_folders(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted by name, without hidden ones and those that systems make."""
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".") and child.name not in SYSTEM_FOLDERS
    )


def named_record(
    path: Path, pattern: re.Pattern[str], form: str, name: str, *, camera: int | None = None
) -> ImageRecord:
    """The record that a file's name tells, and of ``camera`` where the folder does.

    Raises:
        ValueError: the name does not have the form, or is that of a copy.
    """
    match = pattern.match(path.name)
    if match is None:
        raise ValueError(f"{name}: {path} must be named {form}")
    original = copied_from(path)
    if original is not None:
        raise ValueError(
            f"{name}: {path} is named as a copy of {original.name} and would count twice: remove it"
        )
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
