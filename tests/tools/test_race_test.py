"""A race's reason is the comment at one of its accesses, and stands for no other line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulation.observation import Race
from tools import race_test

SOURCE = """\
__global__ void kernel(int* out) {
  out[0] = 1;  // race: all write one
  out[1] = 2;
  // race: a reason before the line
  out[2] = 3;
  out[3] = 4;  // race:
}
"""


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout with one source."""
    (tmp_path / "csrc" / "op").mkdir(parents=True)
    (tmp_path / "csrc" / "op" / "cuda.cu").write_text(SOURCE)
    monkeypatch.setattr(race_test, "ROOT", tmp_path)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (2, 2, "all write one"),
        (5, 6, "a reason before the line"),
        (6, 5, "a reason before the line"),
        (6, 6, None),
        (3, 3, None),
        (1, 7, None),
    ],
)
def test_reason(before: int, now: int, expected: str | None) -> None:
    race = Race(
        "kernel", "global", ("op/cuda.cu", before), ("op/cuda.cu", now), "write, then write", "", 1, ""
    )
    assert race_test.reason(race) == expected


def test_other_files_give_no_reason() -> None:
    places = ("observed/races.cu", 2), ("nowhere.cu", 2)
    race = Race("kernel", "global", *places, "write, then write", "", 3, "x")
    assert race_test.reason(race) is None
    assert str(race) == (
        "race in kernel: write, then write at observed/races.cu:2 and nowhere.cu:2, global memory, , 3 times"
        "; first in x"
    )
