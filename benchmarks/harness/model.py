"""The data model: what a benchmark module declares. Nothing here measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One set of sizes. ``sizes`` is the operator's own; the harness only stores it."""

    name: str
    sizes: Mapping[str, int]
    devices: tuple[str, ...] = ("cpu", "cuda")
    quick: bool = False  # part of a --quick run


@dataclass(frozen=True)
class Mode:
    """What is computed: the options handed to every contender, and whether gradients are taken."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    backward: bool = False


@dataclass(frozen=True)
class Inputs:
    """One set of arguments: tensors that gradients are taken for, and keyword tensors without."""

    differentiable: tuple[Tensor, ...]
    constant: Mapping[str, Tensor] = field(default_factory=dict)

    def call(self, function: Function, mode: Mode) -> Tensor:
        """The function's output in this mode."""
        return function(*self.differentiable, **self.constant, **mode.options)

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same arguments with every differentiable tensor changed."""
        return Inputs(tuple(change(tensor) for tensor in self.differentiable), self.constant)

    def bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (*self.differentiable, *self.constant.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _always(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
    return True


@dataclass(frozen=True)
class Formulation:
    """One way to write the operator. ``applies`` leaves out cases it can't or shouldn't do.

    ``compilable`` is False for what isn't written in PyTorch, where ``torch.compile`` has nothing to compile,
    and for what the benchmark says it leaves out.
    """

    name: str
    function: Function
    applies: Callable[[Case, Mode, torch.dtype], bool] = _always
    handwritten_backward: bool = False
    compilable: bool = True


@dataclass(frozen=True)
class Work:
    """What one call must do at least: operations (two per multiply-add) and bytes of operands and results."""

    flops: int
    flops_in_bounds: int
    bytes_read: int
    bytes_written: int


def _no_mask(inputs: Inputs, mode: Mode) -> Tensor | None:
    return None


def _every_row(case: Case, mode: Mode, device: str) -> bool:
    return True


def _same_type(dtype: torch.dtype) -> torch.dtype:
    return dtype


def _all_rows(case: Case) -> list[int] | None:
    return None


@dataclass(frozen=True)
class Benchmark:
    """Everything the harness needs to know about one operator.

    ``ours``, ``reference`` and the formulations share one signature: differentiable tensors by position,
    the rest by keyword. ``checked_rows`` names the rows of the batch that are compared with the float64
    reference where rows are independent and a whole batch would take too long (None: all); formulations are
    always compared with ours over the whole batch. ``gradient_mask`` is 1 where the output's gradient is
    well defined and 0 where rounding decides, such as a tie in a maximum. ``table_cases`` names the rows of
    the table in docs/measured.md by device, ``table_modes`` the modes. ``headline`` is the mode in which
    the first of the rows speaks for the operator: on the README's line and on a busy machine. ``compiles``
    tells on which rows ``torch.compile`` is timed too, where compiling takes a
    minute; ``compile_options`` are Inductor's. ``output_dtype`` is the outputs' by the inputs'. ``busy_with``
    names the formulation to compare with on a busy machine where the quickest keeps to one thread, which
    loses less to other processes whatever it does (None: the quickest); it may be one of a part of the work.
    """

    name: str
    ours: Function
    reference: Function
    formulations: tuple[Formulation, ...]
    cases: tuple[Case, ...]
    sweep: tuple[Case, ...]
    modes: tuple[Mode, ...]
    make_inputs: Callable[[Case, torch.dtype, torch.device, int], Inputs]
    work: Callable[[Case, Mode, int], Work]
    tolerance: Mapping[torch.dtype, float]
    sweep_modes: tuple[str, ...]
    table_cases: Mapping[str, tuple[str, ...]]
    table_modes: tuple[str, ...]
    headline: str
    checked_rows: Callable[[Case], list[int] | None] = _all_rows
    gradient_mask: Callable[[Inputs, Mode], Tensor | None] = _no_mask
    compiles: Callable[[Case, Mode, str], bool] = _every_row
    compile_options: Mapping[str, Any] = field(default_factory=dict)
    output_dtype: Callable[[torch.dtype], torch.dtype] = _same_type
    busy_with: str | None = None

    def mode(self, name: str) -> Mode:
        """The mode of that name."""
        return next(mode for mode in self.modes if mode.name == name)

    def case(self, name: str) -> Case:
        """The case of that name, from the cases or the sweep."""
        return next(case for case in (*self.cases, *self.sweep) if case.name == name)
