"""Small copies of datasets, as they are distributed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_models.data.datasets import cuhk01, cuhk03, cuhk03_old, viper

from .person_support import protocol, write_mat, write_named


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A copy as it is distributed: cuhk-03.mat in its folder, the protocol's files beside that."""
    savemat = pytest.importorskip("scipy.io").savemat
    write_mat(tmp_path / "cuhk03_release" / "cuhk-03.mat")
    for file in cuhk03.FILES.values():
        savemat(tmp_path / file, protocol())
    return tmp_path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuhk03_old, "TEST", 3)
    monkeypatch.setattr(cuhk03_old, "VALIDATION", 2)
    monkeypatch.setattr(cuhk03_old, "TRAIN", 6)
    monkeypatch.setattr(cuhk01, "PERSONS", 7)
    monkeypatch.setattr(viper, "TEST_IDENTITIES", 3)


@pytest.fixture
def campus(tmp_path: Path) -> Path:
    write_named(tmp_path / "campus", [f"{i:04}{n:03}.png" for i in range(1, 8) for n in range(1, 5)])
    return tmp_path
