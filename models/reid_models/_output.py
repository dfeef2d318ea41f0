"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

READ = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".safetensors", ".ckpt", ".csv")  # from folders of inputs
DEAD = 24 * 3600.0  # seconds after which an unfinished file that nobody writes to is a killed process's


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], argument: str = "path") -> Iterator[Path]:
    """A name to write to, which takes the place of ``path`` at the end, or goes if anything fails.

    The new file has the mode of the one that it replaces; where there was none, the umask decides.

    Args:
        path: the file to be; its folder must exist. Of a link, what it points to is replaced.
        argument: what the caller calls the path, for the error.

    Raises:
        FileNotFoundError: no such folder.
        PermissionError, IsADirectoryError: the file can't be written.
        ValueError: what is there is no file but a device, a pipe or a socket.

    Example:
        >>> with replacing("result.json") as unfinished:
        ...     unfinished.write_text("{}")
    """
    check_folder(path, argument)
    path = Path(path).resolve()
    _remove_dead(path)
    # Not by tempfile, whose files only their owner may read; some libraries make theirs so, too.
    unfinished = path.with_name(f"{path.name}.{_writer()}.{secrets.token_hex(8)}.part")
    try:
        unfinished.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.exists() else unfinished).stat().st_mode)
        yield unfinished
        unfinished.chmod(mode)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_folder(path: str | os.PathLike[str], argument: str = "path") -> None:
    """Raises unless the file could be written: for before the work starts.

    Args:
        path: the file to be.
        argument: what the caller calls it.

    Raises:
        OSError: the folder is not there or can't be written to, or a folder has that name.
        ValueError: a device, a pipe or a socket has that name.
    """
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{argument} must be in a folder that exists, got {path}")
    if target.is_dir():
        raise IsADirectoryError(f"{argument} must be a file, got the folder {path}")
    if target.exists() and not target.is_file():
        raise ValueError(f"{argument} must be a file, got {path}, which is a device, a pipe or a socket")
    check_writable(target.parent, path, argument)


def check_not_input(
    path: str | os.PathLike[str], argument: str, inputs: Iterable[str | os.PathLike[str]]
) -> None:
    """Raises ``ValueError`` if the file to be is one of the inputs, or an image, weights or data in one.

    Args:
        path: the file to be.
        argument: what the caller calls it.
        inputs: files and folders that the work may read; what does not exist is passed over.
    """
    target = Path(path).resolve()
    if not target.is_file():
        return
    for given in inputs:
        is_it = os.path.exists(given) and os.path.samefile(given, target)
        inside = os.path.isdir(given) and target.is_relative_to(Path(given).resolve())
        if is_it or (inside and target.suffix.lower() in READ):
            raise ValueError(f"{argument} must not be one of the files that are read, got {path}")


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
                    if _is_dead(entry.name.removeprefix(start)) or entry.stat().st_mtime < before:
                        os.unlink(entry)


def _is_dead(name: str) -> bool:
    """Whether the process that wrote ``WRITER.RANDOM.part`` ran here and is gone; False if unknown."""
    here, number, started = [*name.split(".")[0].split("-"), "", ""][:3]
    return here != "" and here == _here() and number.isdigit() and _start_time(int(number)) != started


def _writer() -> str:
    """A name for this process that no other ever has: where, its number there, when it was started."""
    return f"{_here()}-{os.getpid()}-{_start_time(os.getpid())}"


@functools.cache
def _here() -> str:
    """Which boot of which machine, and which of its containers, numbers this process; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        place = f"{boot}{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: what is left over goes when it is old
        return ""
    return hashlib.blake2b(place.encode(), digest_size=6).hexdigest()


def _start_time(process: int) -> str:
    """When a process was started, in the kernel's clock; "" if there is none of this number."""
    try:
        # Behind the name, which may have spaces and parentheses, it is the 20th field (proc(5): 22nd of all).
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
