"""The profiler against patterns counted by hand, the race detector against planted races."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.emulation import build as emulation
from tests.emulation.observation import Launch, Observation
from tests.emulation.support import SUCCESS, Library

FOLDER = emulation.FOLDER / "observed"
RACES = {
    "threads_read_too_early": ("write, then read", "shared"),
    "threads_overwrite_too_early": ("read, then write", "shared"),
    "lanes_without_syncwarp": ("write, then read", "shared"),
    "lanes_outside_the_mask": ("write, then read", "shared"),
    "same_value_twice": ("write, then write", "global"),
    "blocks_write_over": ("write, then write", "global"),
    "blocks_read": ("write, then read", "global"),
    "atomic_against_write": ("write, then write", "global"),
    "cluster_reads_too_early": ("write, then read", "shared"),
    "cluster_overwrites_too_early": ("read, then write", "shared"),
}


@pytest.fixture(scope="module")
def observed() -> Path:
    """The library of patterns and planted races."""
    return emulation.build("observed", sorted(FOLDER.glob("*.cu")), torch=False, observe=True)


def line_of(text: str, source: str = "patterns.cu") -> int:
    """The number of the only line that has this text."""
    lines = (FOLDER / source).read_text(encoding="utf-8").splitlines()
    (found,) = [number for number, line in enumerate(lines, 1) if text in line]
    return found


def aligned(count: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Zeros that begin at a multiple of 256 bytes."""
    size = np.dtype(dtype).itemsize
    memory = np.zeros(count * size + 256, np.uint8)
    first = -memory.ctypes.data % 256
    return memory[first : first + count * size].view(dtype)


def counts(launch: Launch, text: str, space: str, kind: str = "read") -> tuple[int, ...]:
    """(bytes a lane, requests, lanes, units, ideal units) of the line with this text."""
    place = ("observed/patterns.cu", line_of(text))
    (site,) = [each for each in launch.sites if (each.place, each.space, each.kind) == (place, space, kind)]
    return site.size, site.requests, site.lanes, site.units, site.ideal_units


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled:3"])
def test_sectors(observed: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """Sectors of 32 bytes a warp's request touches, and the fewest that would do."""
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", order)
    run = Library(observed)
    with Observation(observed, profile=True) as seen:
        assert run("run_global_patterns", aligned(256), aligned(32), aligned(1, np.int32)) == SUCCESS
    (launch,) = seen.launches
    assert launch.kernel.endswith("global_patterns(float const*, float*, int*)")
    assert (launch.grid, launch.block) == ((1, 1, 1), (32, 1, 1))
    assert counts(launch, "float sum = in[lane]; ", "global") == (4, 1, 32, 4, 4)
    assert counts(launch, "// a sector each", "global") == (4, 1, 32, 32, 4)
    assert counts(launch, "// together, a sector too many", "global") == (4, 1, 32, 5, 4)
    assert counts(launch, "sum += in[0];", "global") == (4, 1, 32, 1, 1)
    assert counts(launch, "// bytes", "global") == (1, 1, 32, 1, 1)
    assert counts(launch, "// eight lanes", "global") == (4, 1, 8, 1, 1)
    assert counts(launch, "out[lane] = sum;  ", "global", "write") == (4, 1, 32, 4, 4)
    assert counts(launch, "atomicAdd(counter, 1)", "global", "atomic") == (4, 1, 32, 1, 1)


def test_bank_passes(observed: Path) -> None:
    """Passes over 32 banks of four bytes."""
    run = Library(observed)
    with Observation(observed, profile=True) as seen:
        assert run("run_shared_patterns", aligned(32)) == SUCCESS
    (launch,) = seen.launches
    assert counts(launch, "// 33 rows", "shared", "write") == (4, 33, 33 * 32, 33, 33)
    assert counts(launch, "// two lanes a bank", "shared") == (4, 1, 32, 2, 1)
    assert counts(launch, "// all in one bank", "shared") == (4, 1, 32, 32, 1)
    assert counts(launch, "// none in another's", "shared") == (4, 1, 32, 1, 1)
    assert counts(launch, "sum += tile[5];", "shared") == (4, 1, 32, 1, 1)
    assert counts(launch, "// quarter by quarter", "shared") == (16, 1, 32, 4, 4)
    assert counts(launch, "// 16 bytes for all", "shared") == (16, 1, 32, 1, 1)
    assert sum(site.space == "wait" for site in launch.sites) == 1


def test_bytes_of_tensors(observed: Path) -> None:
    """However often a byte is read, it counts once; a tensor is an argument of the kernel."""
    run = Library(observed)
    with Observation(observed, profile=True) as seen:
        assert run("run_bytes", aligned(128), aligned(128)) == SUCCESS
    (launch,) = seen.launches
    read, written = sorted(launch.tensors, key=lambda tensor: tensor.read, reverse=True)
    assert {read.argument, written.argument} == {0, 1}
    assert (read.read, read.written, read.sectors_read, read.sectors_written) == (512, 0, 16, 0)
    assert (written.read, written.written, written.sectors_written) == (0, 256, 8)
    assert counts(launch, "sum += in[(threadIdx.x + again) % 32]", "global") == (4, 8, 256, 32, 32)


def test_nothing_is_kept_outside(observed: Path) -> None:
    """Only what runs inside the `with` is observed."""
    run = Library(observed)
    with Observation(observed, profile=True, races=True) as seen:
        pass
    assert run("run_race", np.frombuffer(b"same_value_twice\0", np.uint8).copy(), 0) == SUCCESS
    with Observation(observed, profile=True, races=True) as after:
        pass
    assert seen.launches == seen.races == after.launches == after.races == []


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled:5"])
@pytest.mark.parametrize("name", sorted(RACES))
def test_races(observed: Path, monkeypatch: pytest.MonkeyPatch, name: str, order: str) -> None:
    """A planted race is found in every order of threads and blocks, its corrected twin has none."""
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", order)
    run, text = Library(observed), np.frombuffer(name.encode() + b"\0", np.uint8).copy()
    with Observation(observed, races=True) as seen:
        assert run("run_race", text, 0) == SUCCESS
    with Observation(observed, races=True) as corrected:
        assert run("run_race", text, 1) == SUCCESS
    assert corrected.races == []
    kinds, space = RACES[name]
    assert {race.space for race in seen.races} == {space}
    assert all(name in race.kernel and race.now[0] == "observed/races.cu" for race in seen.races)
    opposite = ", then ".join(reversed(kinds.split(", then ")))
    assert {race.kinds for race in seen.races} <= {kinds, opposite}
    if order == "forward":
        assert kinds in {race.kinds for race in seen.races}


def test_no_race(observed: Path) -> None:
    """Bytes of one word by different threads, and the same bytes by two launches."""
    with Observation(observed, races=True) as seen:
        assert Library(observed)("run_without_race") == SUCCESS
    assert seen.races == []
