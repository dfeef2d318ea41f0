"""Indices, barriers, shared memory, schedules and atomics of a block."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulation.support import Library, uints


@pytest.mark.parametrize(
    ("grid", "block"),
    [((1, 1, 1), (1, 1, 1)), ((3, 2, 4), (5, 3, 2)), ((2, 1, 3), (1, 16, 64)), ((1, 7, 1), (1024, 1, 1))],
)
def test_indices(library: Library, schedule: str, grid: tuple[int, ...], block: tuple[int, ...]) -> None:
    """Every thread of every block runs once and knows its place."""
    out = np.full((np.prod(grid), np.prod(block), 12), 0xFFFFFFFF, dtype=np.uint32)
    assert library("run_indices", uints(*grid), uints(*block), out) == 0
    x, y, _ = block
    for block_number in range(int(np.prod(grid))):
        rows = out[block_number]
        thread = np.arange(np.prod(block))
        np.testing.assert_array_equal(
            rows[:, :3], np.stack([thread % x, thread // x % y, thread // x // y], 1)
        )
        place = [
            block_number % grid[0],
            block_number // grid[0] % grid[1],
            block_number // grid[0] // grid[1],
        ]
        assert (rows[:, 3:6] == place).all()
        assert (rows[:, 6:9] == block).all() and (rows[:, 9:] == grid).all()


@pytest.mark.parametrize("threads", [1, 31, 33, 256, 1024])
def test_barriers_count(library: Library, schedule: str, threads: int) -> None:
    """__syncthreads_count, _and and _or over predicates that are all, none or some."""
    generator = np.random.default_rng(threads)
    predicates = (generator.random((6, threads)) < np.array([0, 1, 0.5, 0.01, 0.99, 0.5])[:, None]).astype(
        np.int32
    )
    predicates *= generator.integers(1, 100, predicates.shape, dtype=np.int32)
    out = np.full((6, 3, threads), -1, dtype=np.int32)
    assert library("run_barriers", threads, predicates, 6, out) == 0
    count = (predicates != 0).sum(1)
    for row, expected in enumerate([count, count == threads, count > 0]):
        np.testing.assert_array_equal(out[:, row], np.repeat(expected[:, None], threads, 1))


@pytest.mark.parametrize("threads", [32, 96, 256, 1024])
def test_block_sums(library: Library, schedule: str, threads: int) -> None:
    """Shared memory, barriers and shuffles together, in a template with static shared memory."""
    values = np.random.default_rng(1).integers(-50, 50, (9, threads)).astype(np.float32)
    out = np.zeros(9, dtype=np.float32)
    assert library("run_sums", 9, threads, values, out) == 0
    np.testing.assert_array_equal(out, values.sum(1))


def test_shared_memory_starts_poisoned(library: Library, schedule: str) -> None:
    """Dynamic and static shared memory of every type is NaN or -1 at the start of every block."""
    out = np.zeros((5, 4), dtype=np.int32)
    assert library("run_poison", 5, out) == 0
    assert (out == 1).all()


def test_schedules(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and blocks come in the order asked for; shuffles repeat with their seed."""
    blocks, threads = 4, 50

    def run(schedule: str) -> tuple[list[int], list[int]]:
        monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", schedule)
        size = blocks * threads
        turn, before, after = uints(0), np.zeros(size, np.uint32), np.zeros(size, np.uint32)
        assert library("run_order", blocks, threads, turn, before, after) == 0
        assert sorted([*before, *after]) == list(range(2 * size))
        return np.argsort(before).tolist(), np.argsort(after).tolist()

    every = list(range(blocks * threads))
    assert run("forward") == (every, every)
    assert run("reverse") == (every[::-1], every[::-1])
    one, again, other = run("shuffled:1"), run("shuffled:1"), run("shuffled:2")
    assert one == again and one != other and one[0] != one[1] and one[0] != every


@pytest.mark.parametrize("name", ["i", "I", "Q"])
def test_integer_atomics(library: Library, schedule: str, name: str) -> None:
    """Add, min, max, and, or, xor, exchange and compare-and-swap on one address each."""
    types: dict[str, type[np.integer]] = {"i": np.int32, "I": np.uint32, "Q": np.uint64}
    dtype = types[name]
    low, high = (-(2**20), 2**20) if name == "i" else (0, 2**31 if name == "I" else 2**50)
    values = np.random.default_rng(3).integers(low, high, 300).astype(dtype)
    targets = np.zeros(9, dtype=dtype)
    targets[1], targets[3] = np.iinfo(dtype).max, dtype(-1) if name == "i" else np.iinfo(dtype).max
    assert library("run_common_atomics", name, 300, values, targets) == 0
    total = values.sum(dtype=dtype)
    reductions = [values.min(), max(values.max(), 0), np.bitwise_and.reduce(values)]
    assert targets[0] == total and targets[1:4].tolist() == [int(value) for value in reductions]
    assert targets[4] == np.bitwise_or.reduce(values) and targets[5] == np.bitwise_xor.reduce(values)
    with np.errstate(over="ignore"):
        assert targets[6] + targets[7] == total
    assert targets[8] == total


@pytest.mark.parametrize(("name", "dtype"), [("f", np.float32), ("d", np.float64), ("e", np.float16)])
def test_floating_atomics(library: Library, schedule: str, name: str, dtype: type[np.floating]) -> None:
    """The device's atomicAdd on small integers is exact in every floating type."""
    values = np.random.default_rng(4).integers(-9, 9, 200).astype(dtype)
    target = np.array([5], dtype=dtype)
    assert library("run_add", name, 200, values, target) == 0
    assert target[0] == 5 + values.astype(np.float64).sum()


def test_subtract_increment_decrement(library: Library) -> None:
    """Both atomicInc and atomicDec wrap at their argument."""
    difference, up, down = np.array([10], np.int32), uints(0), uints(3)
    assert library("run_subtract_and_count", 20, difference, up, down) == 0
    expected_down = 3
    for _ in range(20):
        expected_down = 6 if expected_down == 0 or expected_down > 6 else expected_down - 1
    assert (difference[0], up[0], down[0]) == (10 - 190, 20 % 7, expected_down)
