"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

DEAD = 24 * 3600.0  # seconds after which an unfinished file that nobody writes to is a killed process's


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], argument: str = "path") -> Iterator[Path]:
    """A name to write to, which takes the place of ``path`` at the end, or goes if anything fails.

    Args:
        path: the file to be; its folder must exist. Of a link, what it points to is replaced.
        argument: what the caller calls the path, for the error.

    Raises:
        FileNotFoundError: no such folder.
        PermissionError, IsADirectoryError: the file can't be written.

    Example:
        >>> with replacing("result.json") as unfinished:
        ...     unfinished.write_text("{}")
    """
    check_folder(path, argument)
    path = Path(path).resolve()
    _remove_dead(path)
    # Not by the process's number, which others in other containers or on other machines have, too; and not
    # by tempfile, whose files only their owner may read.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_folder(path: str | os.PathLike[str], argument: str = "path") -> None:
    """Raises an ``OSError`` unless the file could be written: for before the work starts."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{argument} must be in a folder that exists, got {path}")
    if target.is_dir():
        raise IsADirectoryError(f"{argument} must be a file, got the folder {path}")
    check_writable(target.parent, path, argument)


def check_writable(folder: Path, path: str | os.PathLike[str], argument: str) -> None:
    """Raises ``PermissionError`` unless files can be made in the folder, for the path asked for."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{argument} must be in a folder that can be written to, got {path}")


def _remove_dead(path: Path) -> None:
    """Removes what killed processes have left of a file of this name."""
    start, before = f"{path.name}.", time.time() - DEAD
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.name.endswith(".part"):
                with contextlib.suppress(FileNotFoundError):  # another process may do so, too
                    if entry.stat().st_mtime < before:
                        os.unlink(entry)
