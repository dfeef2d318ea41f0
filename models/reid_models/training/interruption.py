"""Ctrl-C while a run trains: it stops at the end of a step, where there is something whole to save."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME = 2.0  # seconds in which a second signal is the first one's echo: a launcher passes it on as well


class Interrupted(BaseException):
    """Ends a run. Not KeyboardInterrupt, on which Lightning ends the process with status 1."""


class Interruption:
    """What Ctrl-C does to a run.

    Args:
        message: for stderr, when it has to wait; "": none.

    Attributes:
        asked: it was pressed, and the run is to stop when it has been saved.
        waits: training is on, so that a step's end will come; without, Ctrl-C stops at once.
    """

    def __init__(self, message: str = "") -> None:
        self.waits = False
        self._message = message
        self._asked_at: float | None = None

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Ctrl-C is this object's in the block.

        Raises:
            KeyboardInterrupt: where :class:`Interrupted` was raised.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        # Who handles or ignores it already, as behind `nohup`, keeps it; Python has no signals in threads.
        if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        except Interrupted:
            raise KeyboardInterrupt from None
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.waits or (self._asked_at is not None and now - self._asked_at > SAME):
            raise Interrupted
        if self._asked_at is None:
            self._asked_at = now
            if self._message:
                os.write(2, f"{self._message}\n".encode())  # sys.stderr may be in the middle of a line
