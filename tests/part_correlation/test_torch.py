"""part_correlation as a citizen of torch: tracing, autocast, errors, sizes, instruction sets, CUDA."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from tests.conftest import Backend
from tests.cuda_support import capture, on_another_stream
from tests.instruction_set_support import INSTRUCTION_SETS, run_with
from tests.part_correlation.test_part_correlation import random_inputs


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_opcheck(backend: Backend, pool: int, with_pairs: bool) -> None:
    ops = getattr(torch.ops, backend.library)
    signal, parts = random_inputs((2, 3, 5, 4, 2, 3, 3), torch.float32, backend.device)
    pairs = torch.tensor([[0, 1], [1, 1], [0, 0]], device=backend.device) if with_pairs else None
    orders = [None if pairs is None else torch.argsort(pairs[:, side], stable=True) for side in (0, 1)]
    signal.requires_grad_(), parts.requires_grad_()
    torch.library.opcheck(ops.part_correlation.default, (signal, parts, pairs, pool, True))
    output, argmax = ops.part_correlation(signal, parts, pairs, pool, True)
    grad = torch.randn_like(output).requires_grad_()
    saved = argmax if pool > 1 else None
    for mask in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(
            ops.part_correlation_backward.default,
            (grad, saved, signal, parts, pairs, *orders, pool, mask),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_each_gradient_alone_is_that_of_both(backend: Backend, pool: int, with_pairs: bool) -> None:
    """Bit for bit; of the operand whose other gradient is not wanted only the shape counts."""
    ops = getattr(torch.ops, backend.library)
    signal, parts = random_inputs((2, 3, 5, 4, 2, 3, 3), torch.float32, backend.device)
    pairs = torch.tensor([[0, 1], [1, 1], [0, 0]], device=backend.device) if with_pairs else None
    orders = [None if pairs is None else torch.argsort(pairs[:, side], stable=True) for side in (0, 1)]
    output, argmax = ops.part_correlation(signal, parts, pairs, pool, True)
    saved = argmax if pool > 1 else None

    def backward(signal: Tensor, parts: Tensor, *mask: bool) -> tuple[Tensor, Tensor]:
        return ops.part_correlation_backward(output, saved, signal, parts, pairs, *orders, pool, list(mask))

    to_signal, to_parts = backward(signal, parts, True, True)
    nothing = signal.new_empty(())
    alone, empty = backward(nothing.expand(signal.shape), parts, True, False)
    assert torch.equal(alone, to_signal) and empty.numel() == 0
    empty, alone = backward(signal, nothing.expand(parts.shape), False, True)
    assert torch.equal(alone, to_parts) and empty.numel() == 0
    assert all(t.numel() == 0 for t in backward(signal, parts, False, False))


def test_compile_and_export(backend: Backend) -> None:
    """No graph break, forward and backward; dynamic sizes; torch.export keeps the operator."""
    signal, parts = random_inputs((3, 6, 9, 7, 2, 3, 4), torch.float32, backend.device)
    pairs = torch.tensor([[0, 1], [2, 2]], device=backend.device)
    compiled = torch.compile(reid_ops.part_correlation, fullgraph=True, backend="aot_eager", dynamic=True)
    for pool in (1, 2):
        results = []
        for function in (reid_ops.part_correlation, compiled):
            x, f = signal.clone().requires_grad_(), parts.clone().requires_grad_()
            output = function(x, f, pool=pool, pairs=pairs)
            output.square().sum().backward()
            results.append((output, x.grad, f.grad))
        for eager, traced in zip(*results, strict=True):
            assert torch.equal(eager, traced)

    program = torch.export.export(reid_ops.PartCorrelation(2), (signal, parts))
    assert backend.library in program.graph_module.code
    assert torch.equal(program.module()(signal, parts), reid_ops.part_correlation(signal, parts, pool=2))


@pytest.mark.slow
def test_compile_with_inductor(backend: Backend) -> None:
    """The default compiler, forward and backward."""
    signal, parts = random_inputs((2, 4, 9, 7, 2, 3, 4), torch.float32, backend.device)
    signal.requires_grad_(), parts.requires_grad_()

    def step(x: Tensor, f: Tensor) -> tuple[Tensor, ...]:
        output = reid_ops.part_correlation(x.relu(), f * 2, pool=2)
        return output, *torch.autograd.grad(output.sin().sum(), (x, f))

    for actual, expected in zip(torch.compile(step)(signal, parts), step(signal, parts), strict=True):
        torch.testing.assert_close(actual, expected)


def test_meta_tensors_and_default_device() -> None:
    """Shapes without data, and CPU pairs while another default device is set."""
    signal, parts = random_inputs((2, 3, 6, 5, 2, 3, 3), torch.float32, "cpu")
    assert reid_ops.part_correlation(signal.to("meta"), parts.to("meta"), pool=2).shape == (2, 6, 3, 3)
    pairs = torch.tensor([[0, 1]])
    with torch.device("meta"):
        output = reid_ops.part_correlation(signal, parts, pairs=pairs)
    assert output.device.type == "cpu" and output.shape == (1, 6, 6, 5)


def test_autocast(backend: Backend) -> None:
    signal, parts = random_inputs((2, 3, 6, 5, 2, 3, 3), torch.float32, backend.device)
    with torch.autocast(backend.device, torch.bfloat16):
        output = reid_ops.part_correlation(signal.requires_grad_(), parts)
        wide = reid_ops.part_correlation(signal.double(), parts.double())
        mixed = reid_ops.part_correlation(signal.bfloat16(), parts)
        by_reference = reid_ops.PartCorrelation(impl="reference")(signal, parts)
    assert output.dtype == torch.bfloat16 and wide.dtype == torch.float64
    assert torch.equal(mixed, output) and by_reference.dtype == torch.bfloat16
    assert torch.equal(output, reid_ops.part_correlation(signal.bfloat16(), parts.bfloat16()))
    output.sum().backward()
    assert signal.grad is not None and signal.grad.dtype == torch.float32


def good() -> dict[str, object]:
    return {"signal": torch.zeros(2, 3, 5, 4), "parts": torch.zeros(2, 2, 3, 3, 3), "pool": 1, "pairs": None}


# One case a line, however long.
# ruff: noqa: E501
BAD = {
    "signal is no tensor": ({"signal": [1.0]}, TypeError, r"signal must be a torch.Tensor, got list"),
    "signal rank": ({"signal": torch.zeros(3, 5, 4)}, ValueError, r"signal must have shape \(N, C, H, W\), got \(3, 5, 4\)"),
    "parts rank": ({"parts": torch.zeros(2, 3, 3, 3)}, ValueError, r"parts must have shape \(M, P, C, kh, kw\)"),
    "integer signal": ({"signal": torch.zeros(2, 3, 5, 4, dtype=torch.int32)}, TypeError, r"signal must be float32.*got int32"),
    "complex parts": ({"parts": torch.zeros(2, 2, 3, 3, 3, dtype=torch.complex64)}, TypeError, r"parts must be float32"),
    "mixed dtypes": ({"parts": torch.zeros(2, 2, 3, 3, 3, dtype=torch.float64)}, TypeError, r"parts must have the dtype of signal \(float32\), got float64"),
    "mixed devices": ({"parts": torch.zeros(2, 2, 3, 3, 3, device="meta")}, ValueError, r"parts must be on the device of signal \(cpu\), got meta"),
    "channels": ({"parts": torch.zeros(2, 2, 4, 3, 3)}, ValueError, r"parts must have the signal's 3 channels, got 4"),
    "rows": ({"parts": torch.zeros(3, 2, 3, 3, 3)}, ValueError, r"as many rows as signal \(2\), got 3"),
    "no channels": ({"signal": torch.zeros(2, 0, 5, 4), "parts": torch.zeros(2, 2, 0, 3, 3)}, ValueError, r"signal must have C, H, W >= 1"),
    "no rows in the map": ({"signal": torch.zeros(2, 3, 0, 4)}, ValueError, r"signal must have C, H, W >= 1"),
    "no parts": ({"parts": torch.zeros(2, 0, 3, 3, 3)}, ValueError, r"parts must have P >= 1"),
    "empty filter": ({"parts": torch.zeros(2, 2, 3, 0, 3)}, ValueError, r"filters of 1x1 to 64x64, got 0x3"),
    "filter too large": ({"parts": torch.zeros(2, 2, 3, 3, 65)}, ValueError, r"filters of 1x1 to 64x64, got 3x65"),
    "pool zero": ({"pool": 0}, ValueError, r"pool must be in \[1, 32\], got 0"),
    "pool negative": ({"pool": -2}, ValueError, r"pool must be in \[1, 32\], got -2"),
    "pool too large": ({"pool": 33}, ValueError, r"pool must be in \[1, 32\], got 33"),
    "pool float": ({"pool": 2.0}, TypeError, r"pool must be an int, got float"),
    "pool bool": ({"pool": True}, TypeError, r"pool must be an int, got bool"),
    "pairs list": ({"pairs": [[0, 0]]}, TypeError, r"pairs must be a torch.Tensor or None, got list"),
    "pairs dtype": ({"pairs": torch.zeros(1, 2, dtype=torch.int32)}, TypeError, r"pairs must be int64, got int32"),
    "pairs shape": ({"pairs": torch.zeros(2, 3, dtype=torch.int64)}, ValueError, r"pairs must have shape \(B, 2\), got \(2, 3\)"),
    "pairs device": ({"pairs": torch.zeros(2, 2, dtype=torch.int64, device="meta")}, ValueError, r"pairs must be on the CPU or on cpu, got meta"),
    "signal row too large": ({"pairs": torch.tensor([[0, 1], [2, 0]])}, ValueError, r"pairs\[1, 0\] must be in \[0, 2\), got 2"),
    "parts row negative": ({"pairs": torch.tensor([[0, -1]])}, ValueError, r"pairs\[0, 1\] must be in \[0, 2\), got -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    change, error, message = BAD[name]
    with pytest.raises(error, match=message):
        reid_ops.part_correlation(**{**good(), **change})  # type: ignore[arg-type]


def test_bad_module_arguments() -> None:
    with pytest.raises(ValueError, match=r'impl must be "fused" or "reference", got \'fast\''):
        reid_ops.PartCorrelation(impl="fast")
    with pytest.raises(ValueError, match="pool must be in"):
        reid_ops.CSNSimilarity(0)


def raw_backward(
    ops: Any, grad: Tensor, *, channels: int = 3, part_channels: int | None = None, pool: int = 1,
    pairs: Any = None, orders: Any = (None, None), mask: Any = (True, True),
) -> Any:  # fmt: skip
    signal = torch.zeros(2, channels, 5, 4)
    parts = torch.zeros(2, 2, channels if part_channels is None else part_channels, 3, 3)
    index = [None if values is None else torch.tensor(values) for values in (pairs, *orders)]
    return ops.part_correlation_backward(grad, None, signal, parts, *index, pool, list(mask))


OPERATOR_ERRORS = {
    "parts": (lambda ops: ops.part_correlation(torch.zeros(2, 3, 5, 4), torch.zeros(2, 3), None, 1, False), "parts must have shape"),
    "rows": (lambda ops: ops.part_correlation(torch.zeros(2, 3, 5, 4), torch.zeros(1, 2, 3, 3, 3), None, 1, False), "as many rows"),
    "dtype": (lambda ops: ops.part_correlation(torch.zeros(2, 3, 5, 4).int(), torch.zeros(2, 2, 3, 3, 3).int(), None, 1, False), "must be float32"),
    "pool": (lambda ops: ops.part_correlation(torch.zeros(2, 3, 5, 4), torch.zeros(2, 2, 3, 3, 3), None, 0, False), "pool must be in"),
    "grad_output": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 5, 5)), "grad_output must have shape"),
    "grad_output's type": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 5, 4).double()), "dtype of signal"),
    "argmax": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 3, 2), pool=2), "argmax must be"),
    "no channels": (lambda ops: raw_backward(ops, torch.zeros(2, 0, 5, 4), channels=0), "at least one channel"),
    "channels": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 5, 4), part_channels=4), "parts have 4"),
    "mask": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 5, 4), mask=[True] * 3), "mask must have two"),
    "stray order": (lambda ops: raw_backward(ops, torch.zeros(1, 6, 5, 4), pairs=[[0, 0]], orders=[[10**10]] * 2), r"signal_order\[0\] must be in"),
    "unsorted order": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 5, 4), pairs=[[0, 0], [1, 0]], orders=[[1, 0]] * 2), "signal_order must sort"),
    "order": (lambda ops: raw_backward(ops, torch.zeros(1, 6, 5, 4), pairs=[[0, 0]]), "signal_order comes with pairs"),
    "no pairs": (lambda ops: raw_backward(ops, torch.zeros(2, 6, 5, 4), orders=[[0, 1]] * 2), "signal_order comes with pairs"),
    "length of order": (lambda ops: raw_backward(ops, torch.zeros(1, 6, 5, 4), pairs=[[0, 0]], orders=[[0], [0, 0]]), "part_order must have one"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATOR_ERRORS)
def test_operators_check_too(backend: Backend, name: str) -> None:
    """A call that bypasses the Python function raises as well, instead of reading out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    if backend.is_emulated and name in ("stray order", "unsorted order"):
        pytest.skip("a device cannot raise: its kernels skip stray entries")
    call, message = OPERATOR_ERRORS[name]
    with pytest.raises(RuntimeError, match=message):
        call(getattr(torch.ops, backend.library))


def test_a_pair_that_is_not_there(backend: Backend) -> None:
    """On the CPU an error. On a device, which cannot raise: NaN, and no gradient."""
    signal, parts = random_inputs((2, 3, 5, 4, 2, 3, 3), torch.float32, backend.device)
    signal.requires_grad_(), parts.requires_grad_()
    pairs = torch.tensor([[0, 1], [7, 0], [1, -1]], device=backend.device)
    operator = getattr(torch.ops, backend.library).part_correlation
    if backend.name == "cpu":
        with pytest.raises(RuntimeError, match=r"pairs\[1, 0\] must be in \[0, 2\), got 7"):
            operator(signal, parts, pairs, 1, False)
        return
    output, _ = operator(signal, parts, pairs, 1, False)
    assert output[0].isfinite().all() and output[1:].isnan().all()
    to_signal, to_parts = torch.autograd.grad(output, (signal, parts), torch.ones_like(output))
    good_output = operator(signal, parts, pairs[:1], 1, False)[0]
    expected = torch.autograd.grad(good_output, (signal, parts), torch.ones_like(good_output))
    assert torch.equal(to_signal, expected[0]) and torch.equal(to_parts, expected[1])


def test_sizes_beyond_memory(backend: Backend) -> None:
    signal = torch.zeros(1, 1, 1, 1, device=backend.device).expand(2**22, 64, 512, 512)
    parts = torch.zeros(1, 1, 1, 1, 1, device=backend.device).expand(2**22, 3, 64, 5, 5)
    with pytest.raises(RuntimeError, match=r"(?i)memory|allocate|too (big|large)"):
        reid_ops.part_correlation(signal, parts)


def available_memory() -> float:
    """Bytes, as far as the system says."""
    file = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable: +(\d+) kB$", file.read_text(), re.MULTILINE) if file.exists() else None
    return math.inf if found is None else 1024.0 * int(found[1])


@pytest.mark.slow
def test_offsets_beyond_32_bits(backend: Backend) -> None:
    """More than 2**31 output elements; the last map is where it belongs."""
    if backend.is_emulated:
        pytest.skip("2**31 elements take too long in emulation")
    if backend.device == "cpu" and available_memory() < 6e9:
        pytest.skip("needs 6 GB of free memory: with less the system would end the whole run")
    signal = torch.randn(1, 1, 1024, 1024, dtype=torch.bfloat16, device=backend.device)
    parts = torch.randn(2, 1, 1, 1, 1, dtype=torch.bfloat16, device=backend.device)
    pairs = torch.zeros(2049, 2, dtype=torch.int64, device=backend.device)
    pairs[-1, 1] = 1
    output = reid_ops.part_correlation(signal, parts, pairs=pairs)
    assert output.numel() > 2**31
    assert torch.equal(output[-1], (signal[0] * parts[1, 0]))
    assert torch.equal(output[0], (signal[0] * parts[0, 0]))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_every_instruction_set(instruction_set: str) -> None:
    """The wheel's older code paths, in a process of their own: the choice is made once."""
    code = (
        "import torch, reid_ops\n"
        "from tests.part_correlation import test_part_correlation as t\n"
        "from tests.conftest import Backend\n"
        "backend = Backend('cpu', 'cpu', 'reid_ops')\n"
        "for name in t.SHAPES:\n"
        "    for dtype in t.DTYPES:\n"
        "        for pool in (1, 2):\n"
        "            t.check_against_reference(backend, *t.random_inputs(t.SHAPES[name], dtype, 'cpu'), pool)\n"
    )
    run_with(instruction_set, code)


@pytest.mark.cuda
class TestCuda:
    """What only a real device can show."""

    def test_other_stream(self) -> None:
        signal, parts = random_inputs((8, 32, 40, 15, 3, 10, 10), torch.float32, "cuda")
        expected = reid_ops.part_correlation(signal, parts)
        actual = on_another_stream(lambda: reid_ops.part_correlation(signal * 1.0, parts))
        assert torch.equal(actual, expected)

    def test_graph_capture(self) -> None:
        signal, parts = random_inputs((4, 32, 20, 8, 3, 5, 5), torch.float32, "cuda")
        signal.requires_grad_(), parts.requires_grad_()
        pairs = torch.tensor([[0, 1], [3, 0]], device="cuda")

        def step() -> tuple[Tensor, ...]:
            output = reid_ops.part_correlation(signal, parts, pool=2, pairs=pairs)
            return output, *torch.autograd.grad(output.sum(), (signal, parts))

        graph, captured = capture(step)
        with torch.no_grad():
            signal.copy_(torch.randn_like(signal))
        graph.replay()
        for actual, expected in zip(captured, step(), strict=True):
            assert torch.equal(actual, expected)

    def test_second_device(self) -> None:
        if torch.cuda.device_count() < 2:
            pytest.skip("one CUDA device only")
        signal, parts = random_inputs((2, 8, 9, 7, 2, 3, 3), torch.float32, "cuda:1")
        torch.testing.assert_close(
            reid_ops.part_correlation(signal, parts), reference.part_correlation(signal, parts)
        )

    def test_pairs_on_the_host(self) -> None:
        signal, parts = random_inputs((2, 8, 9, 7, 2, 3, 3), torch.float32, "cuda")
        pairs = torch.tensor([[1, 0], [0, 0]])
        torch.testing.assert_close(
            reid_ops.part_correlation(signal, parts, pairs=pairs),
            reference.part_correlation(signal, parts, pairs=pairs.cuda()),
        )
