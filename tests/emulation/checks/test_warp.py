"""Shuffles, votes, matches and reductions of a warp against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulation.support import Library


def shuffle_source(kind: int, lane: int, argument: int, width: int) -> int:
    """CUDA C++ programming guide, "Warp Shuffle Functions", one lane at a time."""
    segment = lane // width * width
    if kind == 0:
        return segment + argument % width
    source = {1: lane - argument, 2: lane + argument, 3: lane ^ argument}[kind]
    if kind == 1:
        return source if source >= segment else lane
    return source if source < segment + width else lane


def random_masks(generator: np.random.Generator) -> np.ndarray:
    """The warp cut into groups of lanes: each lane's mask."""
    groups = generator.integers(0, generator.integers(1, 6), 32)
    lanes = np.uint32(1) << np.arange(32, dtype=np.uint32)
    return np.array([lanes[groups == group].sum() for group in groups], dtype=np.uint32)


SHUFFLE_TYPES = {
    "i": np.int32,
    "I": np.uint32,
    "q": np.int64,
    "Q": np.uint64,
    "f": np.float32,
    "d": np.float64,
    "e": np.uint16,
    "E": np.uint32,
    "b": np.uint16,
    "B": np.uint32,
}


@pytest.mark.parametrize("kind", range(4), ids=["index", "up", "down", "xor"])
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
def test_shuffles(library: Library, kind: int, width: int, schedule: str) -> None:
    """Every kind, width and distance, a distance of its own in every lane, all types."""
    generator = np.random.default_rng(width)
    full = np.full(32, 0xFFFFFFFF, dtype=np.uint32)
    cases = [np.full(32, distance) for distance in range(32)] + [
        generator.integers(0, 32, 32) for _ in range(8)
    ]
    for number, arguments in enumerate(cases):
        name = list(SHUFFLE_TYPES)[number % len(SHUFFLE_TYPES)]
        values = generator.integers(0, 256, 32 * 8, dtype=np.uint8).view(SHUFFLE_TYPES[name])[:32].copy()
        if name in "fd":
            values = generator.standard_normal(32).astype(values.dtype)
        results = np.zeros_like(values)
        assert (
            library(
                "run_shuffle_by_name", name, kind, full, values, arguments.astype(np.int32), width, results
            )
            == 0
        )
        expected = [values[shuffle_source(kind, lane, int(arguments[lane]), width)] for lane in range(32)]
        np.testing.assert_array_equal(results, np.array(expected, dtype=values.dtype))


def test_shuffle_arguments_wrap(library: Library) -> None:
    """An index is taken modulo the width, also a negative one."""
    full = np.full(32, 0xFFFFFFFF, dtype=np.uint32)
    values, results = np.arange(32, dtype=np.int32), np.zeros(32, dtype=np.int32)
    for index in (-1, 32, 45):
        arguments = np.full(32, index, dtype=np.int32)
        assert library("run_shuffle_by_name", "i", 0, full, values, arguments, 8, results) == 0
        np.testing.assert_array_equal(results, values // 8 * 8 + index % 8)


def test_votes_matches_and_reductions(library: Library, schedule: str) -> None:
    """Over random cuts of the warp into groups, each group is its own warp."""
    generator = np.random.default_rng(0)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for round_number in range(100):
        masks = random_masks(generator)
        high = [2, 5, 2**32][round_number % 3]
        values = generator.integers(0, high, 32, dtype=np.uint64).astype(np.uint32)
        results = np.zeros((13, 32), dtype=np.uint32)
        assert library("run_vote", masks, values, results) == 0
        for lane in range(32):
            group = (masks[lane] & bits) != 0
            members = values[group]
            signed = members.view(np.int32)
            same = bits[group & (values == values[lane])].sum()
            expected = [
                bits[group & (values != 0)].sum(),
                (members != 0).any(),
                (members != 0).all(),
                same,
                same if (members == members[0]).all() else 0,
                members.sum(dtype=np.uint64) & 0xFFFFFFFF,
                members.min(),
                members.max(),
                signed.min().view(np.uint32),
                signed.max().view(np.uint32),
                np.bitwise_and.reduce(members),
                np.bitwise_or.reduce(members),
                np.bitwise_xor.reduce(members),
            ]
            assert results[:, lane].tolist() == [int(value) for value in expected]


def test_match_compares_all_bits(library: Library) -> None:
    """Eight-byte values that differ in the upper half only, and -0.0 against 0.0."""
    values = (np.arange(32, dtype=np.uint64) % 4) << np.uint64(40)
    same, same_zero = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    assert library("run_match_wide", values, same, same_zero) == 0
    np.testing.assert_array_equal(same, [0x11111111 << (lane % 4) for lane in range(32)])
    np.testing.assert_array_equal(same_zero, [0x55555555 << (lane % 2) for lane in range(32)])


def test_halves_of_a_warp_run_apart(library: Library, schedule: str) -> None:
    """Two masks in one warp proceed at different paces and meet in a full shuffle."""
    results = np.zeros(96, dtype=np.int32)
    assert library("run_halves", 96, results) == 0
    value = np.arange(32)
    low, high = value[:16].copy(), value[16:].copy()
    for _ in range(5):
        low = low + low[np.arange(16) ^ 1]
    for _ in range(3):
        high = high + high[np.arange(16) ^ 2]
    np.testing.assert_array_equal(results.reshape(3, 32), np.tile(np.concatenate([high, low]), (3, 1)))


def test_activemask_counts_every_lane_once(library: Library, schedule: str) -> None:
    """Warp-aggregated counting is right whatever __activemask answers."""
    count = np.zeros(1, dtype=np.uint32)
    assert library("run_active_lanes", 200, count) == 0
    assert count[0] == 67
