"""The main job's folder, and which networks it trains."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples import main_job


class _Reached(Exception):
    pass


def test_only_its_own_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its folder is the one in which `reid train` has runs, of the same names."""

    def stop(name: str) -> None:
        raise _Reached

    kept = [tmp_path / "runs" / name / "best.safetensors" for name in ("HSGNet", "baseline", "mine")]
    own = tmp_path / main_job.RUNS / "HSGNet" / "best.safetensors"
    for file in (*kept, own):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main_job", "--output", "."])
    monkeypatch.setattr(main_job, "read_dataset", stop)
    with pytest.raises(_Reached):
        main_job.main()
    assert all(file.exists() for file in kept) and not own.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"), [([], ["HSGNet"]), (["--baseline"], ["baseline", "HSGNet"])]
)
def test_the_baseline_is_trained_when_asked_for(
    arguments: list[str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train_recipe(method: str, *others: object) -> None:
        trained.append(method)
        if method == "HSGNet":
            raise _Reached

    monkeypatch.setattr(sys, "argv", ["main_job", "--output", str(tmp_path), *arguments])
    monkeypatch.setattr(main_job, "train_recipe", train_recipe)
    with pytest.raises(_Reached):
        main_job.main()
    assert trained == expected
