"""All multi-granularity windows of a map from one read (hybrid attention, section III-C)."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from . import _checks, _dispatch, reference

__all__ = ["StripePool", "stripe_pool"]

MAX_STRIPES = 64  # csrc/stripe_pool/kernels.h: kMaxStripes

_OP = "stripe_pool"


@overload
def stripe_pool(x: Tensor, stripes: int = 6, *, stacked: Literal[False] = False) -> tuple[Tensor, Tensor]: ...
@overload
def stripe_pool(x: Tensor, stripes: int = 6, *, stacked: Literal[True]) -> Tensor: ...
def stripe_pool(x: Tensor, stripes: int = 6, *, stacked: bool = False) -> tuple[Tensor, Tensor] | Tensor:
    r"""Maximum and mean of every run of consecutive horizontal stripes of a map.

    The map is cut into k stripes of H/k rows; a window is stripes :math:`a` to :math:`b`. With k = 6 there
    are 21: the whole map, two of five stripes, and so on to the six single stripes (hybrid attention,
    section III-C, multi-granularity; the two numbers of a window are what section III-D pools):

    .. math::
        \max_{[a,b]} x = \max_{a \le s \le b} \max_{\text{stripe } s} x, \qquad
        \operatorname{mean}_{[a,b]} x = \frac{\sum_{a \le s \le b} \sum_{\text{stripe } s} x}
        {(b-a+1)\,(H/k)\,W}

    The stripes' maxima and sums come from one read of ``x``; window by window, k = 6 takes 56 sixths of a
    map twice. The gradient is one write of ``x``'s size.

    Equivalent to: for every window ``x[:, :, top:bottom].amax((2, 3))`` and ``.mean((2, 3))``, stacked;
    see :func:`reid_ops.reference.stripe_pool`.

    Channel attention commutes with it: for a factor ``s (N, C) > 0`` the windows of
    ``s[..., None, None] * x`` are ``s[:, None]`` times the windows of ``x``, maxima bit for bit and means
    within rounding. The whole map's maximum and mean that such a factor is made of are window 0.

    Args:
        x: maps ``(N, C, H, W)``, float32, float64, float16 or bfloat16 (half types are added up in float32),
            fewer than 2**31 positions. Contiguous and channels-last maps are read as they are, others made
            contiguous.
        stripes: k, a divisor of H, 1 to 64.
        stacked: return one tensor instead of two, as the heads take it.

    Returns:
        ``(maximum, mean)``, each ``(N, k(k+1)/2, C)`` in ``x``'s dtype, widest windows first, then from the
        top down; with ``stacked`` one contiguous ``(N, k(k+1)/2, 2, C)``: maximum, then mean. An empty batch
        gives an empty result. A window with a NaN has NaN for both. The gradient of a maximum goes to the
        first of equal ones (the first NaN, if any) and comes in ``x``'s layout. Differentiable twice and
        more; deterministic; keeps its dtype under ``torch.autocast``.

    Raises:
        TypeError: ``x`` is no tensor or not a supported float type, ``stripes`` no int, ``stacked`` no bool.
        ValueError: a shape or ``stripes`` is out of range, or H is no multiple of ``stripes``.
        NotImplementedError: under forward-mode differentiation (``torch.func.jvp``, ``jacfwd``).

    Example:
        >>> maximum, mean = reid_ops.stripe_pool(torch.rand(16, 3840, 24, 8))
        >>> maximum.shape
        torch.Size([16, 21, 3840])
    """
    _check(x, stripes, stacked)
    with_argmax = torch.is_grad_enabled() and x.requires_grad
    output: Tensor = _dispatch.call("stripe_pool", x, stripes, with_argmax)[0]
    if stacked:
        return output
    maximum, mean = output.unbind(2)
    return maximum, mean


class StripePool(nn.Module):
    """:func:`stripe_pool` as a module; ``impl="reference"`` runs the pure PyTorch reference."""

    def __init__(self, stripes: int = 6, *, stacked: bool = False, impl: str = "fused") -> None:
        super().__init__()
        _checks.check_integer(stripes, "stripes", 1, MAX_STRIPES, "StripePool")
        _checks.check_flag(stacked, "stacked", "StripePool")
        if impl not in ("fused", "reference"):
            raise ValueError(f'StripePool: impl must be "fused" or "reference", got {impl!r}')
        self.stripes = stripes
        self.stacked = stacked
        self.impl = impl

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """As :func:`stripe_pool`."""
        if self.impl == "fused":
            pooled: tuple[Tensor, Tensor] | Tensor = stripe_pool(x, self.stripes, stacked=self.stacked)  # type: ignore[call-overload]
            return pooled
        _check(x, self.stripes, self.stacked)
        return reference.stripe_pool(x, self.stripes, stacked=self.stacked)

    def extra_repr(self) -> str:
        return f"stripes={self.stripes}, stacked={self.stacked}, impl={self.impl!r}"


def _check(x: Tensor, stripes: int, stacked: bool) -> None:
    _checks.check_features(x, "x", ("N", "C", "H", "W"), _OP)
    _checks.check_integer(stripes, "stripes", 1, MAX_STRIPES, _OP)
    _checks.check_flag(stacked, "stacked", _OP)
    _, channels, height, width = x.shape
    if channels < 1 or height < 1 or width < 1:
        raise ValueError(f"{_OP}: x must have C, H, W >= 1, got {tuple(x.shape)}")
    if height % stripes:
        raise ValueError(f"{_OP}: the height of x must be a multiple of stripes ({stripes}), got {height}")
    if height * width >= 2**31:
        raise ValueError(f"{_OP}: x must have fewer than 2**31 positions, got {height}x{width}")


@_dispatch.registers
def _register(library: str) -> None:
    """Fake kernels (shapes for tracing) and gradients of the two operators in ``library``."""

    @torch.library.register_fake(f"{library}::stripe_pool")
    def _(x: Tensor, stripes: int, with_argmax: bool) -> tuple[Tensor, Tensor]:
        windows = stripes * (stripes + 1) // 2
        shape = (x.shape[0], windows, x.shape[1]) if with_argmax else (0,)
        return x.new_empty(x.shape[0], windows, 2, x.shape[1]), x.new_empty(shape, dtype=torch.int32)

    @torch.library.register_fake(f"{library}::stripe_pool_backward")
    def _(
        grad_output: Tensor, argmax: Tensor, stripes: int, height: int, width: int, channels_last: bool
    ) -> Tensor:
        batch, channels = grad_output.shape[0], grad_output.shape[3]
        if channels_last:
            return grad_output.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
        return grad_output.new_empty(batch, channels, height, width)

    def save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.stripes, _ = inputs
        ctx.size = x.shape[2:]
        ctx.channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)

    def backward_forward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, None, None]:
        if grad is None:
            return None, None, None
        (argmax,) = ctx.saved_tensors
        layout = (ctx.stripes, *ctx.size, ctx.channels_last)
        return _dispatch.call_in(library, "stripe_pool_backward", grad, argmax, *layout), None, None

    def save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, argmax, ctx.stripes, *_ = inputs
        ctx.save_for_backward(argmax)

    def backward_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient is linear in the output's: what it took to a position is taken from there."""
        (argmax,) = ctx.saved_tensors
        # With positions where there may be a third derivative.
        pooled = _dispatch.call_in(library, "stripe_pool", upstream, ctx.stripes, torch.is_grad_enabled())
        mean = pooled[0][:, :, 1]
        positions = argmax.long().transpose(1, 2)
        chosen = upstream.flatten(2).gather(2, positions).transpose(1, 2)
        return torch.stack([chosen, mean], 2), None, None, None, None, None

    _dispatch.register_gradient(library, "stripe_pool", backward_forward, save_forward)
    _dispatch.register_gradient(library, "stripe_pool_backward", backward_backward, save_backward)
