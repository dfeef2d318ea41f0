"""Which compiled library the operators call, and the Python half of their registration.

Two libraries can hold the same operators: ``reid_ops``, the package's own (CPU and CUDA kernels), and
``reid_ops_emulated``, the CUDA kernels compiled for the CPU, which only the tests build and load.
Each op module hands its registration of shapes and gradients to :func:`registers`; it is then run
for every library that gets loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import _extension

Registration = Callable[[str], None]

_registrations: list[Registration] = []
_libraries: list[str] = ["reid_ops"] if _extension.is_available() else []
_active = "reid_ops"


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


def operators() -> Any:
    """The namespace with the operators to call; a clear error when they are not built."""
    if _active not in _libraries:
        _extension.require()
    return getattr(torch.ops, _active)
