"""Files that end with a BLAKE2b digest of everything before it, so that no flipped bit goes unnoticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

LENGTH = 16  # bytes
CHUNK = 4 << 20  # bytes read at a time


def seal(path: Path) -> None:
    """Appends the digest of what a file has."""
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(digest)


def is_sealed(path: Path) -> bool:
    """Whether a file ends with the digest of all before it."""
    size = path.stat().st_size - LENGTH
    if size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        return file.read() == _digest(path, size)


def read_seal(path: Path) -> str:
    """The digest that a sealed file ends with, in hexadecimal digits; what is before it is not read."""
    with path.open("rb") as file:
        file.seek(-LENGTH, 2)
        return file.read().hex()


def _digest(path: Path, size: int) -> bytes:
    """Of the first ``size`` bytes of a file."""
    digest = hashlib.blake2b(digest_size=LENGTH)
    with path.open("rb") as file:
        while size > 0 and (content := file.read(min(size, CHUNK))):
            digest.update(content)
            size -= len(content)
    return digest.digest()
