"""A progress bar for what takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 2.0  # seconds without a bar

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: int, *, show: bool = True) -> Iterator[Item]:
    """The items, with a bar on stderr once two seconds have gone by; nothing where stderr is no terminal.

    Args:
        items: each counts one.
        description: before the bar.
        total: how many there are.
        show: False: never a bar.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total)
    wanted, started = show and sys.stderr.isatty(), False
    begin = time.monotonic()
    try:
        for item in items:
            yield item
            bar.advance(task)
            if wanted and not started and time.monotonic() - begin > PATIENCE:
                bar.start()
                started = True
    finally:
        if started:
            bar.stop()
