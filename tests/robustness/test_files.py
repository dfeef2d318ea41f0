"""Files that are damaged, made up, or whose writers are killed: bounded; `kills` and `damage` do more."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from tests.robustness import damage, kills
from tests.robustness.written import APPROXIMATE, KINDS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork among threads


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A pool of threads does not live through fork."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_writers_lose_nothing(kind: str, tmp_path: Path) -> None:
    found = kills.campaign(kind, 5, 0, tmp_path)
    assert found.kills == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [100, 1 << 16])
def test_a_full_disk_keeps_the_old_file(kind: str, limit: int, tmp_path: Path) -> None:
    """By a limit on files' sizes, which writing meets as it meets the end of a disk."""
    path = tmp_path / "file"
    KINDS[kind].write(path, 1, 50)
    before = sorted(tmp_path.iterdir())
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            KINDS[kind].write(path, 2, 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert KINDS[kind].read(path) == 1 and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", [*KINDS, *APPROXIMATE])
def test_flipped_bytes(kind: str, tmp_path: Path) -> None:
    outcomes, wrong = damage.flips(kind, 97, tmp_path)
    assert not wrong, "\n".join(wrong)
    assert outcomes["refused"] > 5
    if kind in ("features", "checkpoint", "model"):  # indexes have gaps between their sections
        assert set(outcomes) == {"refused"}


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_crafted_faiss_parts(kind: str, tmp_path: Path) -> None:
    outcomes, wrong = damage.crafted(kind, 120, 0, tmp_path)
    assert not wrong, "\n".join(wrong)
    assert outcomes["refused"] > 20 and outcomes["harmless"] > 5
