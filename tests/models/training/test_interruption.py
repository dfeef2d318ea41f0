"""What Ctrl-C and SIGTERM do to a run; with a run itself in test_processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reid_models.training import interruption
from reid_models.training.interruption import Interruption, Terminated


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_waits_only_while_training() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption().handled():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_ends_with_its_own_status() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Terminated), Interruption().handled():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Terminated.exit_status == 143


@pytest.mark.parametrize(("status", "problem"), [(0, None), (1, "no such job"), (None, "scontrol")])
def test_slurm_is_asked_to_queue_the_job_again(
    status: int | None, problem: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also before training, when there is nothing to save; by the job's array, if it is in one."""
    for name, value in {"JOB_ID": "9", "NTASKS": "1", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if status is not None:
        program = f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho {problem} >&2\nexit {status}\n'
        (tmp_path / "scontrol").write_text(program)
        (tmp_path / "scontrol").chmod(0o755)
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        expected = RuntimeError if problem else Terminated
        with pytest.raises(expected, match=problem), Interruption(requeues=True).handled():
            signal.raise_signal(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert status is None or (tmp_path / "asked").read_text() == "requeue 7_3\n"


def test_the_second_stops_at_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    asked = Interruption("saving")
    now = 100.0
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt), asked.handled():
        asked.waits = True
        assert not asked.asked
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # passed on by a launcher
        assert asked.asked
        assert capfd.readouterr().err == "saving\n"
        now += interruption.SAME + 0.1
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_the_way_of_others_stays(handler: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, handler)
    asked = Interruption()
    with asked.handled():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler and not asked.asked
