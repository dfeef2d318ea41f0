"""Clusters: ranks, barriers over blocks, and reading another block's shared memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.emulation.support import INVALID_CONFIGURATION, NOT_SUPPORTED, SUCCESS, Library

INVALID_CLUSTER_SIZE = 912


@pytest.mark.parametrize("blocks", [1, 2, 3, 8, 16])
def test_blocks_exchange_through_shared_memory(library: Library, schedule: str, blocks: int) -> None:
    clusters, threads, rounds = 3, 40, 3
    out = np.zeros((clusters, blocks, threads, 4), np.float32)
    assert library("run_exchange", clusters, blocks, threads, rounds, out) == SUCCESS
    number = np.arange(clusters * blocks).reshape(clusters, blocks)
    sums = sum((number + turn).sum(1) for turn in range(rounds))
    np.testing.assert_array_equal(out[..., 0], blocks)
    np.testing.assert_array_equal(out[..., 1], np.broadcast_to(np.arange(blocks)[:, None], out.shape[:3]))
    np.testing.assert_array_equal(out[..., 2], np.broadcast_to(sums[:, None, None], out.shape[:3]))
    np.testing.assert_array_equal(out[..., 3], 2 * out[..., 2])


def test_a_launch_without_clusters(library: Library) -> None:
    """Every block is alone, and its shared memory its own."""
    out = np.zeros((5, 8, 4), np.float32)
    assert library("run_exchange_alone", 5, 8, out) == SUCCESS
    assert (out[..., 0] == 1).all() and (out[..., 1] == 0).all()
    np.testing.assert_array_equal(out[..., 2], np.broadcast_to(3 * np.arange(5)[:, None] + 3, (5, 8)))


@pytest.mark.parametrize(
    ("grid", "x", "y", "error"),
    [
        (16, 8, 1, SUCCESS),
        (16, 16, 1, INVALID_CLUSTER_SIZE),  # the kernel was not allowed more than the portable 8
        (16, 0, 1, INVALID_CLUSTER_SIZE),
        (9, 2, 1, INVALID_CONFIGURATION),
        (8, 2, 2, NOT_SUPPORTED),  # by the emulation
    ],
)
def test_refused(library: Library, grid: int, x: int, y: int, error: int) -> None:
    assert library("run_raw_cluster", grid, x, y) == error
    library("run_get_last_error")


def test_what_fits(library: Library) -> None:
    """Eight multiprocessors with 228 KB, 227 of them for one block; asking leaves no error behind."""
    for blocks, kilobytes, fits in ((8, 227, True), (16, 227, False), (8, 228, False), (16, 113, True)):
        assert library("run_cluster_fits", blocks, ctypes.c_ulonglong(kilobytes * 1024)) == fits
        assert library("run_get_last_error") == SUCCESS
    assert library("run_cluster_fits", 32, ctypes.c_ulonglong(1024)) == 0
    library("run_get_last_error")
