"""Conversions and integer functions, element by element."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from tests.emulation.support import Library

torch = pytest.importorskip("torch")


def convert(library: Library, kind: int, values: np.ndarray, dtype: Any) -> np.ndarray:
    """Run one conversion over an array."""
    out = np.zeros(values.shape, dtype=dtype)
    values = np.ascontiguousarray(values)
    assert library("run_convert", kind, values, out, ctypes.c_longlong(values.size)) == 0
    return out


def awkward_floats() -> np.ndarray:
    """Random bit patterns, and the neighbourhoods of every rounding boundary of half."""
    generator = np.random.default_rng(6)
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = halves[np.isfinite(halves)]
    ordered = np.unique(halves)
    middles = (ordered[1:] + ordered[:-1]) / 2
    patterns = generator.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = np.array([np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 3.4e38, 1e-45, -0.0], np.float32)
    near = [np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))]
    return np.concatenate([halves, middles, *near, patterns, special]).astype(np.float32)


def same_values(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal bits, any NaN equal to any NaN."""
    both_nan = np.isnan(ours) & np.isnan(theirs)
    width = {2: np.uint16, 4: np.uint32, 8: np.uint64}[ours.itemsize]
    np.testing.assert_array_equal(
        np.where(both_nan, 0, ours.view(width)), np.where(both_nan, 0, theirs.view(width))
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_half_conversions(library: Library) -> None:
    """All 65536 halves, and floats and doubles at every rounding boundary, against numpy."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    same_values(convert(library, 0, halves, np.float32), halves.astype(np.float32))
    floats = awkward_floats()
    same_values(convert(library, 1, floats, np.float16), floats.astype(np.float16))
    # Just beside the boundary in double: rounding by way of float would go wrong.
    doubles = np.concatenate([floats.astype(np.float64) * (1 + step) for step in (-1e-12, 0, 1e-12)])
    same_values(convert(library, 2, doubles, np.float16), doubles.astype(np.float16))


def test_bfloat16_conversions(library: Library) -> None:
    """All 65536 bfloat16 values and awkward floats, against torch."""
    patterns = np.arange(65536, dtype=np.uint16)
    ours = convert(library, 3, patterns, np.float32)
    theirs = torch.from_numpy(patterns.view(np.int16)).view(torch.bfloat16).float().numpy()
    same_values(ours, theirs)
    floats = awkward_floats()
    finite = patterns[np.isfinite(theirs)].astype(np.uint32) << 16
    middles = np.concatenate([finite | offset for offset in (0x7FFF, 0x8000, 0x8001)]).astype(np.uint32)
    floats = np.concatenate([floats, middles.view(np.float32)])
    bits = convert(library, 4, floats, np.uint16)
    theirs_half = torch.from_numpy(floats).to(torch.bfloat16)
    same_values(convert(library, 3, bits, np.float32), theirs_half.float().numpy())
    assert (bits[np.isnan(floats)] == 0x7FFF).all()
    # From double: between two bfloat16 values, a hair beside the middle.
    lower = (finite[finite < 0x7F000000]).astype(np.uint32).view(np.float32).astype(np.float64)
    upper = (finite[finite < 0x7F000000] + 0x10000).astype(np.uint32).view(np.float32).astype(np.float64)
    for side, expected in ((-1e-9, lower), (1e-9, upper)):
        middle = (lower + upper) / 2 + side * (upper - lower)
        bits = convert(library, 5, middle, np.uint16)
        np.testing.assert_array_equal(convert(library, 3, bits, np.float32).astype(np.float64), expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_half_arithmetic(library: Library) -> None:
    """Each operation rounds once."""
    generator = np.random.default_rng(7)
    a, b, c = (generator.integers(0, 65536, 50_000).astype(np.uint16).view(np.float16) for _ in range(3))
    out = np.zeros((7, a.size), dtype=np.float16)
    assert library("run_half_arithmetic", a, b, c, out, a.size) == 0
    wide_a, wide_b, wide_c = (array.astype(np.float64) for array in (a, b, c))
    for row, expected in enumerate([a + b, a - b, a * b, a / b]):
        same_values(out[row], expected)
    same_values(out[4], (wide_a * wide_b + wide_c).astype(np.float16))
    np.testing.assert_array_equal(out[5], np.fmax(a, b))
    np.testing.assert_array_equal(out[6], np.fmin(a, b))


def test_pairs(library: Library) -> None:
    """__half2 and __nv_bfloat162 keep the low element first."""
    values = np.random.default_rng(8).standard_normal((500, 2)).astype(np.float32)
    half, bfloat = np.zeros((500, 2), np.float16), np.zeros((500, 2), np.int16)
    back = np.zeros((500, 2), np.float32)
    assert library("run_pairs", values, half, bfloat, back, 500) == 0
    same_values(half, values.astype(np.float16) + np.array([1, 2], np.float16))
    same_values(back, half.astype(np.float32))
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    np.testing.assert_array_equal(bfloat, expected)


def test_float_to_integer(library: Library) -> None:
    """Rounding to even or towards zero; saturating; NaN is zero; rsqrtf."""
    floats = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.7, 3e9, -3e9, np.inf, -np.inf, np.nan, 7.9], np.float32)
    top, bottom = 2**31 - 1, -(2**31)
    nearest = [0, 2, 2, 0, -2, -3, top, bottom, top, bottom, 0, 8]
    truncated = [0, 1, 2, 0, -1, -2, top, bottom, top, bottom, 0, 7]
    assert convert(library, 6, floats, np.int32).tolist() == nearest
    assert convert(library, 7, floats, np.int32).tolist() == truncated
    positive = np.random.default_rng(9).random(1000).astype(np.float32) + np.float32(0.01)
    np.testing.assert_allclose(convert(library, 8, positive, np.float32), positive**-0.5, rtol=2e-7)
    same_values(convert(library, 9, awkward_floats(), np.float32), awkward_floats())


def test_integer_functions(library: Library) -> None:
    """Bit counting, reversal, high product, funnel shift, byte permutation, mixed min and max."""
    values = np.random.default_rng(10).integers(0, 2**32, 500, dtype=np.uint64).astype(np.uint32)
    values[:6] = [0, 1, 0x80000000, 0xFFFFFFFF, 3, 100]
    out = np.zeros((7, 500), dtype=np.uint32)
    assert library("run_integers", values, out, ctypes.c_longlong(500)) == 0
    for index, value in enumerate(int(number) for number in values):
        inverse = value ^ 0xFFFFFFFF
        both = inverse << 32 | value
        picked = [(both >> (8 * byte)) & 0xFF for byte in (1, 3, 5, 7)]
        expected = [
            value.bit_count(),
            32 - value.bit_length(),
            (value & -value).bit_length(),
            int(f"{value:032b}"[::-1], 2),
            value * 0xD2511F53 >> 32,
            (both << 7 >> 32 & 0xFFFFFFFF) ^ sum(byte << (8 * place) for place, byte in enumerate(picked)),
            (max(value, 5) + min(value, 100)) & 0xFFFFFFFF,
        ]
        assert out[:, index].tolist() == expected
