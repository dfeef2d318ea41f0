"""Checks before any timing: ours against the float64 reference, everything else against ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness.model import Benchmark, Case, Function, Inputs, Mode


class CheckFailed(Exception):
    """Ours is wrong: there is nothing to time."""


@dataclass(frozen=True)
class Outcome:
    """What one call gives: the output and, in a mode with backward, the gradients."""

    output: Tensor
    gradients: tuple[Tensor, ...] = ()


def evaluate(function: Function, inputs: Inputs, mode: Mode, gradient: Tensor | None) -> Outcome:
    """Calls the function once; ``gradient`` is the output's, needed in a mode with backward."""
    if not mode.backward:
        return Outcome(inputs.map(torch.Tensor.detach).call(function, mode))
    leaves = inputs.map(lambda tensor: tensor.detach().requires_grad_())
    output = leaves.call(function, mode)
    gradients = torch.autograd.grad(output, leaves.differentiable, gradient)
    return Outcome(output.detach(), gradients)


def output_gradient(benchmark: Benchmark, inputs: Inputs, mode: Mode, output: Tensor) -> Tensor | None:
    """A random gradient of the output, 0 where the true one hangs on rounding."""
    if not mode.backward:
        return None
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(output.shape, generator=generator).to(output.device, output.dtype)
    mask = benchmark.gradient_mask(inputs, mode)
    return gradient if mask is None else gradient * mask


def ours_outcome(benchmark: Benchmark, mode: Mode, inputs: Inputs) -> tuple[Outcome, Tensor | None]:
    """What ours gives, and the gradient of the output that was used."""
    output = evaluate(benchmark.ours, inputs, Mode(mode.name, mode.options), None).output
    gradient = output_gradient(benchmark, inputs, mode, output)
    return evaluate(benchmark.ours, inputs, mode, gradient), gradient


def check_ours(benchmark: Benchmark, case: Case, mode: Mode, inputs: Inputs) -> None:
    """Compares ours with the reference in float64; CheckFailed if they differ."""
    dtype = inputs.differentiable[0].dtype
    where = f"{benchmark.name}, {case.name}, {mode.name}, {str(dtype).removeprefix('torch.')}"
    try:
        found, gradient = ours_outcome(benchmark, mode, inputs)
    except Exception as error:
        raise CheckFailed(f"{where}: ours raised {error!r}") from error

    rows = benchmark.checked_rows(case)
    chosen = slice(None) if rows is None else rows
    exact = evaluate(
        benchmark.reference,
        inputs.map(lambda tensor: tensor[chosen].double()),
        mode,
        None if gradient is None else gradient[chosen].double(),
    )
    part = Outcome(found.output[chosen], tuple(tensor[chosen] for tensor in found.gradients))
    fault = layout_fault(found.output, benchmark.output_dtype(dtype))
    reason = difference(part, exact, benchmark.tolerance[dtype]) or fault
    if reason is None and not all(tensor.isfinite().all() for tensor in (found.output, *found.gradients)):
        reason = "a value is not finite"
    if reason is not None:
        raise CheckFailed(f"{where}: ours disagrees with the reference: {reason}")


def refusal(
    benchmark: Benchmark,
    function: Function,
    mode: Mode,
    inputs: Inputs,
    expected: Outcome,
    gradient: Tensor | None,
) -> str | None:
    """Why a contender is not comparable with ours here; None if it is."""
    try:
        found = evaluate(function, inputs, mode, gradient)
    except Exception as error:  # some formulations have no kernel for some dtypes
        first_line = (str(error).splitlines() or [""])[0]
        return f"raised {type(error).__name__}: {re.sub(r'/[^ ]+/', '', first_line)}"[
            :200
        ]  # no paths in results
    dtype = inputs.differentiable[0].dtype
    fault = layout_fault(found.output, benchmark.output_dtype(dtype))
    return fault or difference(found, expected, 2 * benchmark.tolerance[dtype])


def difference(found: Outcome, expected: Outcome, tolerance: float) -> str | None:
    """The first tensor that differs by more than ``tolerance`` times the largest expected magnitude."""
    names = ["output", *(f"gradient {index}" for index in range(len(expected.gradients)))]
    pairs = zip((found.output, *found.gradients), (expected.output, *expected.gradients), strict=True)
    for name, (mine, theirs) in zip(names, pairs, strict=True):
        if mine.shape != theirs.shape:
            return f"{name}: shape {tuple(mine.shape)}, expected {tuple(theirs.shape)}"
        if mine.numel() == 0:
            continue
        scale = float(theirs.abs().max())
        error = float((mine.double() - theirs.double()).abs().max())
        if not error <= tolerance * scale:  # so that NaN fails
            return f"{name}: largest error {error:.3g}, allowed {tolerance:.1g} of {scale:.3g}"
    return None


def layout_fault(output: Tensor, dtype: torch.dtype) -> str | None:
    """Unlike results are not compared: all must give a contiguous tensor of one dtype, mostly the inputs'."""
    if output.dtype != dtype:
        return f"output has dtype {output.dtype}, expected {dtype}"
    return None if output.is_contiguous() else f"output is not contiguous: strides {output.stride()}"
