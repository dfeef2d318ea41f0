"""What is drawn for one call: numbers, tensors, and arguments that nobody should give."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
INTEGERS = (-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 5, 7, 12, 64, 1000, 2**15, 2**31, 2**32, 2**62, 2**63 - 1)
NUMBERS = (-math.inf, -1e308, -1.0, 0.0, 0.5, 1.0, 255.0, 6e4, 1e30, 1e308, math.inf, math.nan)
OTHERS = (None, 2**70, "x", "", [], (), [1, 2], {}, True, b"a")


class Chance(random.Random):
    """Everything that is drawn for one call, from a seed and the call's number.

    Attributes:
        finite: nothing that was drawn so far is infinite, NaN or so large or small that it leads there.
    """

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(f"{seed} {number}")
        self.arrays = np.random.default_rng((seed, number))
        self.finite = True

    def size(self, most: int = 9, least: int = 1) -> int:
        return self.randint(least, most)

    def maybe(self, share: float = 0.5) -> bool:
        return self.random() < share

    def tensor(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Mostly ordinary numbers, at times such as people wish they never had; in any layout."""
        dtype = self.choice((*FLOATS[:1] * 4, *DTYPES)) if dtype is None else dtype
        kind = self.choice(("normal",) * 9 + ("zero", "nan", "infinite", "huge", "tiny", "same"))
        values = self.arrays.standard_normal(shape)
        if not dtype.is_floating_point:
            values = self.arrays.integers(0 if dtype == torch.uint8 else -1, 9, shape).astype(np.float64)
        elif kind in ("nan", "infinite"):
            self.finite = False
            wrong = math.nan if kind == "nan" else math.inf
            values = np.where(self.arrays.random(shape) < 0.3, wrong, values)
        elif kind in ("huge", "tiny"):
            self.finite = False  # they overflow, or their differences do
            values = values * (1e38 if kind == "huge" else 1e-40)
        if kind in ("zero", "same"):
            values = values * 0 + (kind == "same")
        tensor = torch.from_numpy(np.asarray(values)).to(dtype)
        layout = self.choice(("plain",) * 6 + ("channels_last", "turned", "every other"))
        if layout == "channels_last" and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        if layout == "turned" and tensor.dim() >= 2:
            return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
        if layout == "every other" and tensor.dim():
            return torch.repeat_interleave(tensor, 2, dim=-1)[..., ::2]
        return tensor

    def any_tensor(self) -> Tensor:
        return self.tensor(*(self.size(5, 0) for _ in range(self.size(5, 0))))

    def odd(self) -> Any:
        """An argument of any type."""
        return self.any_tensor() if self.maybe(0.4) else self.choice((*INTEGERS, *NUMBERS, *OTHERS))

    def other(self, value: Any) -> Any:
        """Another value instead of this one, mostly of its type."""
        if self.maybe(0.05):
            return self.odd()
        if isinstance(value, Tensor):
            return self._other_tensor(value)
        if isinstance(value, np.ndarray):
            changed = self._other_tensor(torch.from_numpy(np.ascontiguousarray(value)))
            if isinstance(changed, Tensor) and changed.dtype == torch.bfloat16:  # which numpy does not have
                return changed
            return (
                changed.numpy() if isinstance(changed, Tensor) and changed.device.type == "cpu" else changed
            )
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return self.choice(INTEGERS)
        if isinstance(value, float):
            return self.choice(NUMBERS)
        if isinstance(value, (list, tuple)):
            if not value or self.maybe(0.3):
                return [self.choice(INTEGERS) for _ in range(self.size(12, 0))]
            changed = list(value)
            changed[self.randrange(len(changed))] = self.other(value[0])
            return changed
        if isinstance(value, torch.dtype):
            return self.choice(DTYPES)
        return self.odd()

    def _other_tensor(self, tensor: Tensor) -> Any:
        """Another shape, type, layout or other values; or nothing."""
        shape = list(tensor.shape)
        place = self.randrange(len(shape)) if shape else None
        match self.randrange(16):
            case 0:
                return torch.zeros([self.size(4, 0) for _ in range(self.size(5, 0))], dtype=tensor.dtype)
            case 1 if place is not None:
                shape[place] = self.choice((0, 1, 2, 3, 9))
                return torch.ones(shape, dtype=tensor.dtype)
            case 2 if place is not None:  # cut off, at either end
                kept = self.choice((0, 1, max(shape[place] - 1, 0)))
                first = self.choice((0, shape[place] - min(kept, shape[place])))
                return tensor.narrow(place, first, min(kept, shape[place]))
            case 3 if place is not None:
                return torch.cat([tensor, tensor], place)
            case 4:
                return tensor.to(self.choice(DTYPES))
            case 5:
                return torch.zeros((), dtype=tensor.dtype).expand(shape)  # all elements are one
            case 6 if place is not None:
                return tensor.transpose(place, -1)
            case 7 if place is not None:
                return tensor.flip(place)
            case 8 if place is not None:
                return tensor[torch.randperm(len(tensor))]
            case 9 if tensor.dtype != torch.bool:
                return self.choice((tensor + 1, tensor - 1, -tensor, tensor * 2**20))
            case 10:
                return tensor.to("meta") if self.maybe(0.2) else tensor.clone()
            case 11:
                return None if self.maybe(0.1) else tensor[None]  # torch takes a tenth of a second to say no
            case 12:
                return tensor.flatten() if len(shape) != 1 else tensor[:, None]
        if tensor.is_floating_point():
            every = torch.full(shape, self.choice(NUMBERS), dtype=torch.float64).to(tensor.dtype)
            return every if self.maybe() else torch.where(torch.rand(shape) < 0.3, every, tensor)
        values = [value for value in INTEGERS if _fits(value, tensor.dtype)]
        drawn = torch.tensor([self.choice(values) for _ in range(tensor.numel())], dtype=tensor.dtype)
        return (
            drawn.view(shape)
            if self.maybe()
            else torch.where(torch.rand(shape) < 0.3, drawn.view(shape), tensor)
        )

    def of_type(self, kind: str, sizes: list[int]) -> Any:
        """A value of a schema's type; tensors have some of the sizes."""
        if kind.startswith("Optional["):
            return None if self.maybe(0.4) else self.of_type(kind[9:-1], sizes)
        if kind.startswith("List["):
            return [self.of_type(kind[5:-1], sizes) for _ in range(self.size(6, 0))]
        if kind == "Tensor":
            shape = [self.choice(sizes) for _ in range(self.size(5, 0))]
            return self.tensor(*shape, dtype=self.choice((torch.float32, *DTYPES[:8])))
        if kind == "int":
            return self.choice(INTEGERS)
        if kind in ("float", "number"):
            return self.choice(NUMBERS)
        if kind == "bool":
            return self.maybe()
        return self.choice(FLOATS) if kind == "ScalarType" else self.odd()


def _fits(value: int, dtype: torch.dtype) -> bool:
    if dtype == torch.bool:
        return value in (0, 1)
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max
