"""Ctrl-C and SIGTERM while a run trains: it stops at a step's end, where there is something whole to save.

In a job of SLURM SIGUSR1 does so, too, and the job is queued again. Lightning's own way of that
(``SLURMEnvironment.auto_requeue``) saves wherever in a step the signal comes, to a file of another name.
"""

from __future__ import annotations

import os
import signal
import subprocess
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
    """A run that SIGTERM has ended, as schedulers of clusters send it, or SIGUSR1 in a job of SLURM."""

    exit_status = 143  # 128 + SIGTERM, as shells have it


class Interruption:
    """What Ctrl-C, SIGTERM and, in a job of SLURM, SIGUSR1 do to a run.

    Args:
        message: for stderr, when it has to wait; "": none.
        requeues: after SIGUSR1 this process asks SLURM to queue the job again.

    Attributes:
        asked: a signal came, and the run is to stop when it has been saved.
        waits: training is on, so that a step's end will come; without, a signal stops at once.
    """

    def __init__(self, message: str = "", *, requeues: bool = False) -> None:
        self.waits = False
        self._message = message
        self._requeues = requeues
        self._asked_at: float | None = None
        self._signals: list[int] = []  # that are this object's
        self._last = int(signal.SIGINT)
        self._came: set[int] = set()

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """The signals are this object's in the block.

        Raises:
            KeyboardInterrupt: where :class:`Interrupted` was raised; :class:`Terminated` after SIGTERM and
                SIGUSR1.
            RuntimeError: SLURM does not queue the job again.
        """
        if threading.current_thread() is not threading.main_thread():  # Python has no signals in threads
            yield
            return
        usual = USUAL | ({signal.SIGUSR1: signal.SIG_DFL} if SLURMEnvironment.detect() else {})
        # Who handles or ignores one already, as behind `nohup`, keeps it.
        self._signals = [number for number in usual if signal.getsignal(number) is usual[number]]
        for number in self._signals:
            signal.signal(number, self._handle)
        try:
            yield
        except Interrupted:
            if self._last == signal.SIGINT:
                raise KeyboardInterrupt from None
            if signal.SIGUSR1 in self._came and self._requeues:
                for number in self._signals:  # SLURM ends a job that it queues again
                    signal.signal(number, signal.SIG_IGN)
                requeue()
            raise Terminated from None
        finally:
            for number in self._signals:
                signal.signal(number, usual[number])
            self._signals = []

    def start(self) -> None:
        """Training is on. SIGTERM is taken from Lightning, which would stop a step early and save nothing."""
        self.waits = True
        if signal.SIGTERM in self._signals:
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._last = number
        self._came.add(number)
        if not self.waits or (self._asked_at is not None and now - self._asked_at > SAME):
            raise Interrupted
        if self._asked_at is None:
            self._asked_at = now
            if self._message:
                os.write(2, f"{self._message}\n".encode())  # sys.stderr may be in the middle of a line


def requeue() -> None:
    """Asks SLURM to queue this job again, as Lightning does.

    Raises:
        RuntimeError: it doesn't.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        problem = done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        raise RuntimeError(f"the run can go on, but SLURM did not queue job {job} again: {problem}")
