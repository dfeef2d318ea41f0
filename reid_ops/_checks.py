"""Argument checks shared by the ops: every message names the argument, what was expected, what came."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

FLOATING_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_features(tensor: Tensor, argument: str, shape: tuple[str, ...], op: str) -> None:
    """A float tensor with one dimension for each letter of ``shape``."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: {argument} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dim() != len(shape):
        expected = f"({', '.join(shape)})"
        raise ValueError(f"{op}: {argument} must have shape {expected}, got {tuple(tensor.shape)}")
    if tensor.dtype not in FLOATING_TYPES:
        raise TypeError(
            f"{op}: {argument} must be float32, float64, float16 or bfloat16, got {dtype_name(tensor.dtype)}"
        )


def check_alike(tensor: Tensor, argument: str, first: Tensor, first_argument: str, op: str) -> None:
    """The same dtype and device as another argument."""
    if tensor.dtype != first.dtype:
        raise TypeError(
            f"{op}: {argument} must have the dtype of {first_argument} ({dtype_name(first.dtype)}), "
            f"got {dtype_name(tensor.dtype)}"
        )
    if tensor.device != first.device:
        raise ValueError(
            f"{op}: {argument} must be on the device of {first_argument} ({first.device}), "
            f"got {tensor.device}"
        )


def check_integer(value: int, argument: str, least: int, most: int | None, op: str) -> None:
    """An int (no bool, no float) in ``[least, most]``, or from ``least`` on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, torch.SymInt)):
        raise TypeError(f"{op}: {argument} must be an int, got {type(value).__name__}")
    if most is None and value < least:
        raise ValueError(f"{op}: {argument} must be at least {least}, got {value}")
    if most is not None and not least <= value <= most:
        raise ValueError(f"{op}: {argument} must be in [{least}, {most}], got {value}")


def check_number(value: float, argument: str, least: float, most: float, op: str) -> None:
    """An int or a float (no bool, no NaN) in ``[least, most]``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {argument} must be a number, got {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{op}: {argument} must be in [{least:g}, {most:g}], got {value}")


def integer_array(
    values: Any, argument: str, op: str, size: int | None = None, least: int | None = None
) -> np.ndarray:
    """An int64 array ``(size,)`` from a list, an array or a tensor of integers; None: any size."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{op}: {argument} must be integers, got {array.dtype}")
    if array.ndim != 1 or (size is not None and len(array) != size):
        expected = f"({'N' if size is None else size},)"
        raise ValueError(f"{op}: {argument} must have shape {expected}, got {array.shape}")
    if array.size and int(array.max()) >= 2**63:
        raise ValueError(f"{op}: {argument} must be below 2**63, got {array.max()}")
    if least is not None and array.size and array.min() < least:
        raise ValueError(f"{op}: {argument} must be at least {least}, got {array.min()}")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_flag(value: bool, argument: str, op: str) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {argument} must be a bool, got {type(value).__name__}")


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Inside ``torch.autocast``: the tensors in its dtype, as for a convolution (float64 is left alone)."""
    device_type = tensors[0].device.type
    # Meta tensors have no autocast and raise; torch 2.11 cannot trace the function that would tell.
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def outside_autocast(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorator: the function computes as outside of ``torch.autocast``: distances want all their digits."""

    @functools.wraps(function)
    def left(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            for device_type in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device_type):
                    stack.enter_context(torch.autocast(device_type, enabled=False))
            return function(*args, **kwargs)

    return left


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``"float32"``."""
    return str(dtype).removeprefix("torch.")
