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


def check_features(
    tensor: Tensor, argument: str, shape: tuple[str, ...], op: str, *, arrays: bool = False
) -> None:
    """A float tensor with one dimension for each letter of ``shape``.

    ``arrays``: the operator :func:`takes_arrays`, for the error.
    """
    if not isinstance(tensor, Tensor):
        expected = "a torch.Tensor or a numpy array of floats" if arrays else "a torch.Tensor"
        got = f"an array of {tensor.dtype}" if isinstance(tensor, np.ndarray) else type(tensor).__name__
        raise TypeError(f"{op}: {argument} must be {expected}, got {got}")
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


def label_array(values: Any, argument: str, op: str, size: int | None = None) -> np.ndarray:
    """Labels ``(size,)``, compared only for being equal: int64, or objects where they are names.

    A list, an array or a tensor of integers, strings or whatever else has a hash, also mixed in an object
    array or a pandas column; nothing is converted that could make two labels one.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "OUST":
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"{op}: {argument} must be integers or names, got {array.dtype}")
        return integer_array(array, argument, op, size)
    if array.ndim != 1 or (size is not None and len(array) != size):
        raise ValueError(f"{op}: {argument} must have shape ({size or 'N'},), got {array.shape}")
    names = array.astype(object)
    if all(isinstance(name, (int, np.integer)) and not isinstance(name, bool) for name in names):
        return integer_array(names.astype(np.int64), argument, op, size)
    for place, name in enumerate(names):
        if name is None or name != name or isinstance(name, float) or getattr(name, "__hash__", None) is None:
            raise TypeError(f"{op}: {argument} must be integers or names, got {name!r} in place {place}")
    return names


class Labels:
    """Numbers for labels of one kind, such as identities: equal ones get equal numbers.

    Integers stay as they are, so that their numbers are those that errors and files have. Names are numbered
    from 0, but "-1", which says of nobody and of no camera what -1 does.

    Args:
        op: for errors.
    """

    def __init__(self, op: str) -> None:
        self._op = op
        self._first: tuple[str, bool] | None = None  # the argument that came first, and whether it had names
        self._numbers: dict[Any, int] = {"-1": -1}

    def numbers(self, values: Any, argument: str, size: int | None = None) -> np.ndarray:
        """The labels ``(size,)`` as int64; TypeError for names beside integers of earlier."""
        found = label_array(values, argument, self._op, size)
        if len(found) == 0:
            return np.empty(0, np.int64)
        named = found.dtype == object
        if self._first is None:
            self._first = argument, named
        if named != self._first[1]:
            kinds = "integers", "names"
            raise TypeError(
                f"{self._op}: {argument} must be {kinds[not named]}, as {self._first[0]}, got {kinds[named]}"
            )
        if not named:
            return found
        return np.array([self._numbers.setdefault(name, len(self._numbers) - 1) for name in found], np.int64)

    @property
    def named(self) -> bool:
        """Whether the labels so far are names."""
        return self._first is not None and self._first[1]

    def number(self, label: Any) -> Any:
        """The number of one label, such as junk's; that of names is also found by an integer, as text."""
        if label is None or not self.named:
            return label
        name = str(label) if isinstance(label, int) and label not in self._numbers else label
        return self._numbers.setdefault(name, len(self._numbers) - 1)


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


def takes_arrays(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorator: numpy arrays may stand for tensors, uncopied; tensors in the result are arrays then.

    The first argument of either kind decides. What is no array of numbers stays, for the function to refuse.
    """

    @functools.wraps(function)
    def in_kind(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        given = (*args, *kwargs.values())
        if not any(isinstance(value, np.ndarray) for value in given):
            return function(*args, **kwargs)
        first = next(value for value in given if isinstance(value, (np.ndarray, Tensor)))
        convert: Any = function
        result = convert(*map(as_tensor, args), **{name: as_tensor(value) for name, value in kwargs.items()})
        return as_arrays(result) if isinstance(first, np.ndarray) else result

    return in_kind


def as_tensor(value: Any) -> Any:
    """A numpy array of numbers as a tensor of the same memory, which must not be written to; else the value.

    Only what torch has no tensors for is copied: foreign byte order, backward or odd strides.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        return value
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if any(stride < 0 or stride % value.itemsize for stride in value.strides):
        value = value.copy()
    if not value.flags.writeable:  # such as a mapped file, of which torch would warn
        value = np.asarray(_Unlocked(value))
    return torch.from_numpy(value)


class _Unlocked:
    """Hands out a read-only array's memory as an array that says it may be written to."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # which is kept as long as what is handed out
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def as_arrays(result: Any) -> Any:
    """Tensors as numpy arrays, also those in a tuple, and sparse ones as scipy's; what is neither stays."""
    if type(result) is tuple:
        return tuple(map(as_arrays, result))
    if isinstance(result, Tensor) and result.layout == torch.sparse_csr:
        return _scipy_csr(result)
    return result.detach().cpu().numpy() if isinstance(result, Tensor) else result


def _scipy_csr(matrix: Tensor) -> Any:
    try:
        from scipy import sparse
    except ImportError as error:
        raise RuntimeError("a sparse result for numpy arrays needs scipy: pip install scipy") from error
    values, *places = (
        part.cpu().numpy() for part in (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    )
    # Of 32 bits where they suffice: scikit-learn takes no others.
    short = max(len(values), *matrix.shape) < 2**31
    columns, offsets = (part.astype(np.int32) if short else part for part in places)
    return sparse.csr_array((values, columns, offsets), shape=tuple(matrix.shape))


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``"float32"``."""
    return str(dtype).removeprefix("torch.")
