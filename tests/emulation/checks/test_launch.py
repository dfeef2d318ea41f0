"""What a launch refuses, the device it describes, launches side by side, and their speed."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np
import pytest

from tests.emulation.support import (
    INVALID_CONFIGURATION,
    INVALID_VALUE,
    SUCCESS,
    Library,
    uints,
)


@pytest.mark.parametrize(
    ("grid", "block", "error"),
    [
        ((1, 1, 1), (1024, 1, 1), SUCCESS),
        ((1, 1, 1), (1, 1, 64), SUCCESS),
        ((1, 65535, 1), (1, 1, 1), SUCCESS),
        ((0, 1, 1), (1, 1, 1), INVALID_CONFIGURATION),
        ((1, 1, 0), (1, 1, 1), INVALID_CONFIGURATION),
        ((1, 1, 1), (1, 0, 1), INVALID_CONFIGURATION),
        ((1, 1, 1), (1025, 1, 1), INVALID_CONFIGURATION),
        ((1, 1, 1), (32, 33, 1), INVALID_CONFIGURATION),
        ((1, 1, 1), (1, 1, 65), INVALID_CONFIGURATION),
        ((1, 1, 1), (65536, 65536, 1), INVALID_CONFIGURATION),
        ((1, 65536, 1), (1, 1, 1), INVALID_CONFIGURATION),
        ((1, 1, 65536), (1, 1, 1), INVALID_CONFIGURATION),
        ((2**31, 1, 1), (1, 1, 1), INVALID_CONFIGURATION),
    ],
)
def test_launch_dimensions(
    library: Library, grid: tuple[int, ...], block: tuple[int, ...], error: int
) -> None:
    """The limits of sm_90; the error stays with the thread until it is taken."""
    library("run_get_last_error")
    assert library("run_launch", uints(*grid), uints(*block), ctypes.c_ulonglong(0)) == error
    assert library("run_peek_at_last_error") == error
    assert library("run_get_last_error") == error
    assert library("run_get_last_error") == SUCCESS


def test_launch_shared_memory(library: Library) -> None:
    """48 KB without asking, 227 KB with."""
    one = uints(1, 1, 1)
    assert library("run_launch", one, one, ctypes.c_ulonglong(48 * 1024)) == SUCCESS
    assert library("run_launch", one, one, ctypes.c_ulonglong(48 * 1024 + 1)) == INVALID_VALUE
    assert library("run_launch_raised", ctypes.c_ulonglong(232448)) == SUCCESS
    assert library("run_launch_raised", ctypes.c_ulonglong(232449)) == INVALID_VALUE
    library("run_get_last_error")


def test_device_attributes(library: Library) -> None:
    """An sm_90; what is not known is an error."""
    value = np.zeros(1, np.int32)
    expected = {1: 1024, 8: 49152, 10: 32, 39: 2048, 75: 9, 76: 0, 97: 232448}
    for attribute, number in expected.items():
        assert library("run_device_attribute", attribute, value) == SUCCESS
        assert value[0] == number
    assert library("run_device_attribute", 12345, value) == INVALID_VALUE
    library("run_get_last_error")
    assert library("run_occupancy", 256, ctypes.c_ulonglong(100 * 1024), value) == SUCCESS
    assert value[0] == 2
    library.handle.run_error_name.restype = ctypes.c_char_p
    assert library.handle.run_error_name(719) == b"cudaErrorLaunchFailure"


def test_launches_from_several_threads(library: Library) -> None:
    """Launches side by side keep their shared memory and their indices apart."""
    generator = np.random.default_rng(5)
    inputs = [generator.integers(-50, 50, (40, 128)).astype(np.float32) for _ in range(4)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            out = np.zeros(40, dtype=np.float32)
            if library("run_sums", 40, 128, inputs[number], out) != 0 or (out != inputs[number].sum(1)).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_many_launches_are_fast(library: Library) -> None:
    """The suite launches thousands of kernels: 2000 of 256 threads with two barriers in 5 s."""
    out = np.zeros(256, dtype=np.float32)
    start = time.perf_counter()
    assert library("run_many", 2000, 256, 1, out) == 0
    assert time.perf_counter() - start < 5
    np.testing.assert_array_equal(out, np.arange(256)[::-1])
