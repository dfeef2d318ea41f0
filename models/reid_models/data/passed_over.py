"""Files beside images that are not read: counted, and said in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

COPIES = "copies"
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".ts")
FRAMES = (
    "videos are not read: take images out of them first, as by `ffmpeg -i VIDEO -vf fps=2 FOLDER/%06d.jpg`"
)

_counted: ContextVar[Counter[str] | None] = ContextVar("passed_over", default=None)


@contextmanager
def counted_files() -> Iterator[Counter[str]]:
    """Within it readers count the files that they pass over, by suffix (:data:`COPIES`: copies of others).

    Example:
        >>> with counted_files() as counts:
        ...     records = read_images(["my_images"])
        >>> describe(counts)
        ['2 files passed over: .tif 1, without a suffix 1']
    """
    counts: Counter[str] = Counter()
    token = _counted.set(counts)
    try:
        yield counts
    finally:
        _counted.reset(token)


def pass_over(name: str, kind: str | None = None) -> None:
    """Counts a file, if somebody counts."""
    counts = _counted.get()
    if counts is not None:
        counts[kind or Path(name).suffix.lower()] += 1


def describe(counts: Counter[str]) -> list[str]:
    """Lines for people to read; none where nothing was passed over."""
    lines = []
    others = {suffix: count for suffix, count in sorted(counts.items()) if suffix != COPIES}
    if others:
        kinds = ", ".join(f"{suffix or 'without a suffix'} {count}" for suffix, count in others.items())
        lines.append(f"{sum(others.values())} files passed over: {kinds}")
    if counts[COPIES]:
        lines.append(f"{counts[COPIES]} copies passed over: the same bytes under a name as `x (1).jpg`")
    if set(others) & set(VIDEOS):
        lines.append(FRAMES)
    return lines
