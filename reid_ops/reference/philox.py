"""Philox4x32-10 in integer tensors: the random words behind every erasing op."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["philox4x32", "scale_word"]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox4x32(key: tuple[int, int], counter: tuple[int | Tensor, ...]) -> Tensor:
    """Four random words for every counter (Salmon et al. 2011, "Random123").

    Args:
        key: two 32-bit words.
        counter: four 32-bit words, least significant first; ints, or int64 tensors of one shape.

    Returns:
        int64 ``(..., 4)`` with values in ``[0, 2**32)``.
    """
    x = list(torch.broadcast_tensors(*(torch.as_tensor(word) for word in counter)))
    first, second = key
    for _ in range(10):
        # A product of two words has 64 bits: in int64 it wraps, and both halves are still the right bits.
        products = [
            word.to(torch.int64) * multiplier for word, multiplier in zip(x[::2], _MULTIPLIERS, strict=True)
        ]
        low = [product & _MASK for product in products]
        high = [(product >> 32) & _MASK for product in products]
        x = [high[1] ^ x[1] ^ first, low[1], high[0] ^ x[3] ^ second, low[0]]
        first, second = (first + _KEY_STEPS[0]) & _MASK, (second + _KEY_STEPS[1]) & _MASK
    return torch.stack(x, -1)


def scale_word(word: Tensor, span: Tensor | int) -> Tensor:
    """A word as an integer in ``[0, span)``: ``word * span // 2**32`` for spans up to ``2**32``."""
    return ((word * span) >> 32) & _MASK
