"""Ctrl-C and SIGTERM while a run trains: it stops at a step's end, where there is something whole to save."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

USUAL: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
SAME = 2.0  # seconds in which a second signal is the first one's echo: a launcher passes it on as well


class Interrupted(BaseException):
    """Ends a run. Not KeyboardInterrupt, on which Lightning ends the process with status 1."""


class Terminated(KeyboardInterrupt):
    """A run that SIGTERM has ended, as schedulers of clusters send it."""

    exit_status = 143  # 128 + SIGTERM, as shells have it


class Interruption:
    """What Ctrl-C and SIGTERM do to a run.

    Args:
        message: for stderr, when it has to wait; "": none.

    Attributes:
        asked: a signal came, and the run is to stop when it has been saved.
        waits: training is on, so that a step's end will come; without, a signal stops at once.
    """

    def __init__(self, message: str = "") -> None:
        self.waits = False
        self._message = message
        self._asked_at: float | None = None
        self._signals: list[int] = []  # that are this object's
        self._last = int(signal.SIGINT)

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM are this object's in the block.

        Raises:
            KeyboardInterrupt: where :class:`Interrupted` was raised; :class:`Terminated` after SIGTERM.
        """
        if threading.current_thread() is not threading.main_thread():  # Python has no signals in threads
            yield
            return
        # Who handles or ignores one already, as behind `nohup`, keeps it.
        self._signals = [number for number, usual in USUAL.items() if signal.getsignal(number) is usual]
        for number in self._signals:
            signal.signal(number, self._handle)
        try:
            yield
        except Interrupted:
            raise (Terminated if self._last == signal.SIGTERM else KeyboardInterrupt) from None
        finally:
            for number in self._signals:
                signal.signal(number, USUAL[number])
            self._signals = []

    def start(self) -> None:
        """Training is on. SIGTERM is taken from Lightning, which would stop a step early and save nothing.

        Where Lightning asks SLURM to queue a job again it stays as Lightning has it.
        """
        self.waits = True
        if signal.SIGTERM in self._signals and not SLURMEnvironment.detect():
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._last = number
        if not self.waits or (self._asked_at is not None and now - self._asked_at > SAME):
            raise Interrupted
        if self._asked_at is None:
            self._asked_at = now
            if self._message:
                os.write(2, f"{self._message}\n".encode())  # sys.stderr may be in the middle of a line
