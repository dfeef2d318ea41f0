"""One call, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXPECTED = (ValueError, TypeError, RuntimeError, MemoryError)


@dataclass
class Call:
    """What to call, and what may come of it.

    Attributes:
        name: to show.
        function: what is called.
        arguments, options: with which.
        right: a refusal is wrong.
        finite: so is an answer that has NaN.
    """

    name: str
    function: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any] = field(default_factory=dict)
    right: bool = False
    finite: bool = False

    def outcome(self) -> str:
        """What came of it: "answer", an expected error's name, or what is wrong, starting with "!"."""
        try:
            answer = self.function(*self.arguments, **self.options)
        except EXPECTED as error:
            if self.right:
                return f"! it is right, but was refused: {error}"
            silent = not str(error) and not isinstance(error, MemoryError)
            return "! an error without a text" if silent else type(error).__name__
        except Exception as error:
            return f"! {type(error).__name__}: {error}"
        if self.finite and any(bool(tensor.isnan().any()) for tensor in numbers(answer)):
            return "! NaN from finite numbers"
        return "answer"

    def __str__(self) -> str:
        words = [*map(_shown, self.arguments)]
        words += [f"{key}={_shown(value)}" for key, value in self.options.items()]
        return f"{self.name}({', '.join(words)})"


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        layout = "" if value.is_contiguous() else f"/{value.stride()}"
        return f"{value.dtype}{tuple(value.shape)}{layout}"
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else repr(value)


def numbers(value: Any) -> Iterator[Tensor]:
    """The tensors of floating-point numbers of an answer."""
    if isinstance(value, (tuple, list)):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, dict):
        yield from numbers(list(value.values()))
    elif is_dataclass(value):  # of a report's arrays some have NaN by their meaning: its numbers only
        inner = [getattr(value, each.name) for each in fields(value)]
        yield from numbers([each for each in inner if isinstance(each, (float, dict, Tensor))])
    elif isinstance(value, float):
        yield torch.tensor(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield torch.from_numpy(value)
    elif isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
        yield value
