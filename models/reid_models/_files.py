"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], argument: str = "path") -> Iterator[Path]:
    """A name to write to, which takes the place of ``path`` at the end, or goes if anything fails.

    Args:
        path: the file to be; its folder must exist.
        argument: what the caller calls the path, for the error.

    Raises:
        FileNotFoundError: no such folder.

    Example:
        >>> with replacing("result.json") as unfinished:
        ...     unfinished.write_text("{}")
    """
    path = Path(path)
    check_folder(path, argument)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_folder(path: str | os.PathLike[str], argument: str = "path") -> None:
    """Raises ``FileNotFoundError`` unless the file could be written: for before the work starts."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{argument} must be in a folder that exists, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{argument} must be a file, got the folder {path}")
