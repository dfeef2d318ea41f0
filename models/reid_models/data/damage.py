"""Files that can't be used: one is an error, or, where somebody collects them, one of a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[list[str] | None] = ContextVar("damage", default=None)


@contextmanager
def collected_damage() -> Iterator[list[str]]:
    """Within it readers pass over files that are empty, missing or no files; the list gets a line for each.

    Example:
        >>> with collected_damage() as damage:
        ...     dataset = read_folder("my_images")
    """
    lines: list[str] = []
    token = _collected.set(lines)
    try:
        yield lines
    finally:
        _collected.reset(token)


def report_damage(error: Exception) -> None:
    """Raises the error, unless it is collected."""
    lines = _collected.get()
    if lines is None:
        raise error
    lines.append(str(error).partition(": ")[2] or str(error))
