"""Which compiled library the operators call, and the Python half of their registration.

Two libraries can hold the same operators: ``reid_ops``, the package's own (CPU and CUDA kernels), and
``reid_ops_emulated``, the CUDA kernels compiled for the CPU, which only the tests build and load.
Each op module hands its registration of shapes and gradients to :func:`registers`; it is then run
for every library that gets loaded.

An operator that is differentiated is called by :func:`call`. What torch registers for gradients is made for
compilers: in eager mode it goes from C++ to Python and back several times, 11 us of the 45 us that forward
and backward of the smallest call take. There :func:`call` uses the same two functions in a plain
``torch.autograd.Function``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import has_torch_function

from . import _extension

Registration = Callable[[str], None]

_registrations: list[Registration] = []
_libraries: list[str] = ["reid_ops"] if _extension.is_available() else []
_active = "reid_ops"
_eager: dict[tuple[str, str], type[torch.autograd.Function]] = {}
_functional: dict[tuple[str, str], type[torch.autograd.Function]] = {}


def registers(registration: Registration) -> Registration:
    """Decorator: ``registration(library)`` registers an op's fake kernels and gradients there."""
    _registrations.append(registration)
    for library in _libraries:
        registration(library)
    return registration


def add_library(library: str) -> None:
    """Runs all registrations for a library that was just loaded."""
    if library not in _libraries:
        _libraries.append(library)
        for registration in _registrations:
            registration(library)


@contextlib.contextmanager
def use_library(library: str) -> Iterator[None]:
    """Within the block, the public functions call the operators of ``library``."""
    global _active
    previous, _active = _active, library
    try:
        yield
    finally:
        _active = previous


def register_gradient(
    library: str, name: str, backward: Callable[..., Any], save: Callable[..., None]
) -> None:
    """``torch.library.register_autograd`` of an operator that the public functions :func:`call`."""
    torch.library.register_autograd(f"{library}::{name}", backward, setup_context=save)
    operator = getattr(getattr(torch.ops, library), name).default
    _eager[library, name] = _eager_function(name, operator, backward, save)
    _functional[library, name] = _functional_function(name, operator, backward, save)


def _eager_function(
    name: str, operator: Any, backward_formula: Callable[..., Any], save: Callable[..., None]
) -> type[torch.autograd.Function]:
    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():  # past what register_autograd put there
                output = operator(*inputs)
            save(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return backward_formula(ctx, *grads)

    # The node's name in profiles and in anomaly mode's messages.
    return type(f"reid_ops_{name}_", (Eager,), {})


def _functional_function(
    name: str, operator: Any, backward_formula: Callable[..., Any], save: Callable[..., None]
) -> type[torch.autograd.Function]:
    """The same for ``torch.func``, whose transforms want forward and saving apart."""

    class Functional(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Any:  # type: ignore[override]
            return operator(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            save(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return backward_formula(ctx, *grads)

    return type(f"reid_ops_{name}_", (Functional,), {})


def call(name: str, *arguments: Any) -> Any:
    """The operator of the library in use, as ``operators().name(*arguments)``, cheaper in eager mode."""
    operators()
    return call_in(_active, name, *arguments)


def call_in(library: str, name: str, *arguments: Any) -> Any:
    """The operator of ``library``, whose gradient is registered here; formulas of gradients call it, too.

    All arguments are given, by position. Tracing, compiling and ``__torch_function__`` see the operator
    itself (inside the autograd.Function an override would compute where autograd does not look).
    Forward-mode differentiation raises NotImplementedError: the operator would drop the tangents.
    """
    operator = getattr(getattr(torch.ops, library), name)
    if torch.compiler.is_compiling():
        return operator(*arguments)
    refuse_forward_mode(name, *arguments)
    if torch._C._are_functorch_transforms_active():
        return _functional[library, name].apply(*arguments)
    if (
        torch._C._is_tracing()
        or not torch.is_grad_enabled()
        or not torch._C._any_requires_grad(*arguments)
        or has_torch_function(arguments)
    ):
        return operator(*arguments)
    return _eager[library, name].apply(*arguments)


def refuse_forward_mode(name: str, *arguments: Any) -> None:
    """Raises where torch would silently drop the tangents of an argument."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            f"{name}: forward-mode differentiation (torch.func.jvp, jacfwd, dual tensors) is not supported; "
            "use reverse mode (backward, torch.autograd.grad)"
        )


def operators() -> Any:
    """The namespace with the operators to call; a clear error when they are not built."""
    if _active not in _libraries:
        _extension.require()
    return getattr(torch.ops, _active)
