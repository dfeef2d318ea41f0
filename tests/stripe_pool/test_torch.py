"""stripe_pool as a citizen of torch: tracing, autocast, errors, sizes, instruction sets, CUDA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from tests.conftest import Backend
from tests.cuda_support import capture, on_another_stream
from tests.instruction_set_support import INSTRUCTION_SETS, run_with
from tests.stripe_pool.test_windows import LAYOUTS, random_map


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_argmax", [False, True])
def test_opcheck(backend: Backend, with_argmax: bool, layout: str) -> None:
    ops = getattr(torch.ops, backend.library)
    x = random_map((2, 5, 6, 4), torch.float32, backend.device, layout)
    # Gradients need the positions, which the public function asks for when a gradient is wanted.
    torch.library.opcheck(ops.stripe_pool.default, (x.requires_grad_(with_argmax), 3, with_argmax))
    if with_argmax:
        output, argmax = ops.stripe_pool(x, 3, True)
        grad = torch.randn_like(output).requires_grad_()
        arguments = (grad, argmax, 3, 6, 4, layout == "channels-last")
        torch.library.opcheck(ops.stripe_pool_backward.default, arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compile_and_export(backend: Backend, layout: str) -> None:
    """No graph break, forward and backward; dynamic sizes; torch.export keeps the operator."""
    compiled = torch.compile(reid_ops.stripe_pool, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((2, 6, 12, 4), (3, 9, 24, 8)):
        x = random_map(shape, torch.float32, backend.device, layout)
        results = []
        for function in (reid_ops.stripe_pool, compiled):
            own = x.detach().requires_grad_()
            maximum, mean = function(own, 6)
            (maximum.square().sum() + mean.sum()).backward()
            results.append((maximum, mean, own.grad))
        for eager, traced in zip(*results, strict=True):
            assert torch.equal(eager, traced)

    program = torch.export.export(reid_ops.StripePool(3), (x,))
    assert backend.library in program.graph_module.code
    for actual, expected in zip(program.module()(x), reid_ops.stripe_pool(x, 3), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.slow
def test_compile_with_inductor(backend: Backend) -> None:
    """The default compiler, forward and backward."""
    x = random_map((2, 20, 12, 4), torch.float32, backend.device).requires_grad_()

    def step(x: Tensor) -> tuple[Tensor, ...]:
        output = reid_ops.stripe_pool(x.relu(), 6, stacked=True)
        return output, *torch.autograd.grad(output.sin().sum(), (x,))

    for actual, expected in zip(torch.compile(step)(x), step(x), strict=True):
        torch.testing.assert_close(actual, expected)


def test_meta_tensors_and_autocast(backend: Backend) -> None:
    maximum, mean = reid_ops.stripe_pool(torch.empty(2, 7, 12, 4, device="meta"), 4)
    assert maximum.shape == mean.shape == (2, 10, 7) and maximum.device.type == "meta"
    x = random_map((2, 7, 12, 4), torch.float32, backend.device)
    with torch.autocast(backend.device, torch.bfloat16):
        assert reid_ops.stripe_pool(x)[0].dtype == torch.float32


def test_forward_mode_is_refused() -> None:
    x = torch.rand(1, 2, 6, 3)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda t: reid_ops.stripe_pool(t)[1], (x,), (torch.ones_like(x),))


def test_module(backend: Backend) -> None:
    x = random_map((2, 7, 12, 4), torch.float32, backend.device)
    fused = reid_ops.StripePool(4, stacked=True)(x)
    torch.testing.assert_close(fused, reid_ops.StripePool(4, stacked=True, impl="reference")(x))
    assert repr(reid_ops.StripePool()) == "StripePool(stripes=6, stacked=False, impl='fused')"


# One case a line, however long.
# ruff: noqa: E501
BAD = {
    "no tensor": (([1.0], 6), TypeError, r"x must be a torch.Tensor, got list"),
    "rank": ((torch.zeros(3, 6, 4), 6), ValueError, r"x must have shape \(N, C, H, W\), got \(3, 6, 4\)"),
    "integers": ((torch.zeros(1, 3, 6, 4, dtype=torch.int32), 6), TypeError, r"x must be float32.*got int32"),
    "no channels": ((torch.zeros(1, 0, 6, 4), 6), ValueError, r"x must have C, H, W >= 1, got \(1, 0, 6, 4\)"),
    "no columns": ((torch.zeros(1, 3, 6, 0), 6), ValueError, r"x must have C, H, W >= 1"),
    "height": ((torch.zeros(1, 3, 23, 8), 6), ValueError, r"height of x must be a multiple of stripes \(6\), got 23"),
    "fewer rows than stripes": ((torch.zeros(1, 3, 3, 8), 6), ValueError, r"must be a multiple of stripes \(6\), got 3"),
    "no stripes": ((torch.zeros(1, 3, 6, 8), 0), ValueError, r"stripes must be in \[1, 64\], got 0"),
    "too many stripes": ((torch.zeros(1, 3, 130, 8), 65), ValueError, r"stripes must be in \[1, 64\], got 65"),
    "float": ((torch.zeros(1, 3, 6, 8), 6.0), TypeError, r"stripes must be an int, got float"),
    "bool": ((torch.zeros(1, 3, 6, 8), True), TypeError, r"stripes must be an int, got bool"),
    "positions": ((torch.zeros(1, 1, 1, 1).expand(1, 1, 2**16, 2**15), 2), ValueError, r"fewer than 2\*\*31 positions, got 65536x32768"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    arguments, error, message = BAD[name]
    with pytest.raises(error, match=message):
        reid_ops.stripe_pool(*arguments)  # type: ignore[call-overload]
    if error is ValueError:
        with pytest.raises(error, match=message):
            reid_ops.StripePool(arguments[1], impl="reference")(arguments[0])  # type: ignore[arg-type]


def test_bad_flags() -> None:
    with pytest.raises(TypeError, match="stacked must be a bool, got int"):
        reid_ops.stripe_pool(torch.zeros(1, 1, 6, 1), stacked=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r'impl must be "fused" or "reference", got \'fast\''):
        reid_ops.StripePool(impl="fast")


def _backward(ops: object, **change: object) -> Tensor:
    arguments = {
        "grad_output": torch.zeros(2, 6, 2, 5), "argmax": torch.zeros(2, 6, 5, dtype=torch.int32),
        "stripes": 3, "height": 6, "width": 4, "channels_last": False,
    }  # fmt: skip
    result: Tensor = ops.stripe_pool_backward(*{**arguments, **change}.values())  # type: ignore[attr-defined]
    return result


OPERATOR_ERRORS = {
    "rank": (lambda ops: ops.stripe_pool(torch.zeros(2, 3, 5), 1, False), "x must have shape"),
    "dtype": (lambda ops: ops.stripe_pool(torch.zeros(2, 3, 6, 4).int(), 3, False), "must be float32"),
    "stripes": (lambda ops: ops.stripe_pool(torch.zeros(2, 3, 6, 4), 0, False), "stripes must be in"),
    "height": (lambda ops: ops.stripe_pool(torch.zeros(2, 3, 7, 4), 3, False), "multiple of stripes"),
    "no width": (lambda ops: ops.stripe_pool(torch.zeros(2, 3, 6, 0), 3, False), "C, H, W >= 1"),
    "grad rank": (lambda ops: _backward(ops, grad_output=torch.zeros(2, 6, 5)), "grad_output must have shape"),
    "grad pair": (lambda ops: _backward(ops, grad_output=torch.zeros(2, 6, 3, 5)), "grad_output must have shape"),
    "windows": (lambda ops: _backward(ops, stripes=2), "must have 3 windows for 2 stripes"),
    "negative height": (lambda ops: _backward(ops, height=-6), "C, H, W >= 1"),
    "huge height": (lambda ops: _backward(ops, height=3 * 2**40, width=2**40), r"less than 2\*\*31 positions"),
    "argmax dtype": (lambda ops: _backward(ops, argmax=torch.zeros(2, 6, 5, dtype=torch.int64)), "argmax must be"),
    "argmax shape": (lambda ops: _backward(ops, argmax=torch.zeros(2, 5, 6, dtype=torch.int32)), "argmax must be"),
    "argmax strides": (lambda ops: _backward(ops, argmax=torch.zeros(2, 5, 6, dtype=torch.int32).transpose(1, 2)), "argmax must be"),
    "no argmax": (lambda ops: _backward(ops, argmax=torch.zeros(0, dtype=torch.int32)), "argmax must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATOR_ERRORS)
def test_operators_check_too(backend: Backend, name: str) -> None:
    """A call that bypasses the Python function raises as well, instead of reading out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    call, message = OPERATOR_ERRORS[name]
    with pytest.raises(RuntimeError, match=message):
        call(getattr(torch.ops, backend.library))


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions_that_are_not_there(backend: Backend, layout: str) -> None:
    """Positions outside the map or of another stripe write nothing outside; the means still arrive."""
    ops = getattr(torch.ops, backend.library)
    last = layout == "channels-last"
    grad = torch.ones(2, 6, 2, 40, device=backend.device)
    for stray in (-1, 24, 2**31 - 1, -(2**31), 23):
        argmax = torch.full((2, 6, 40), stray, dtype=torch.int32, device=backend.device)
        gradient = ops.stripe_pool_backward(grad, argmax, 3, 6, 4, last)
        inside = gradient.flatten(2)[:, :, :23]
        ordinary = ops.stripe_pool_backward(
            grad * torch.tensor([[0.0], [1.0]], device=grad.device), argmax, 3, 6, 4, last
        )
        assert torch.equal(inside, ordinary.flatten(2)[:, :, :23])
        assert gradient.isfinite().all()


def test_sizes_beyond_memory(backend: Backend) -> None:
    x = torch.zeros(1, 1, 1, 1, device=backend.device).expand(2**22, 2**20, 64, 8)
    with pytest.raises(RuntimeError, match=r"(?i)memory|allocate|too (big|large)"):
        reid_ops.stripe_pool(x, 64)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_every_instruction_set(instruction_set: str) -> None:
    """The wheel's older code paths, in a process of their own: the choice is made once."""
    code = (
        "import torch, reid_ops\n"
        "from tests.stripe_pool import test_windows as t\n"
        "for shape in t.SHAPES.values():\n"
        "    for dtype in t.DTYPES:\n"
        "        for layout in t.LAYOUTS:\n"
        "            t.check_against_reference(t.random_map(shape, dtype, 'cpu', layout), shape[4])\n"
    )
    run_with(instruction_set, code)


@pytest.mark.cuda
class TestCuda:
    """What only a real device can show."""

    def test_other_stream(self) -> None:
        x = random_map((8, 64, 24, 8), torch.float32, "cuda")
        expected = reid_ops.stripe_pool(x, stacked=True)
        assert torch.equal(on_another_stream(lambda: reid_ops.stripe_pool(x * 1.0, stacked=True)), expected)

    def test_graph_capture(self) -> None:
        x = random_map((4, 64, 24, 8), torch.float32, "cuda").requires_grad_()

        def step() -> tuple[Tensor, ...]:
            output = reid_ops.stripe_pool(x, stacked=True)
            return output, *torch.autograd.grad(output.sum(), (x,))

        graph, captured = capture(step)
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        graph.replay()
        for actual, expected in zip(captured, step(), strict=True):
            assert torch.equal(actual, expected)

    def test_second_device(self) -> None:
        if torch.cuda.device_count() < 2:
            pytest.skip("one CUDA device only")
        x = random_map((2, 8, 12, 7), torch.float32, "cuda:1")
        for actual, expected in zip(reid_ops.stripe_pool(x), reference.stripe_pool(x), strict=True):
            torch.testing.assert_close(actual, expected)
