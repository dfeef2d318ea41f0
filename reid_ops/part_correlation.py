"""CSN's part-as-filter depthwise cross-correlation: kernels behind autograd (Eq. 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake

from . import _checks, _dispatch, reference

__all__ = ["CSNSimilarity", "PartCorrelation", "csn_similarity", "part_correlation"]

MAX_KERNEL = 64  # csrc/part_correlation/kernels.h: kMaxKernel
MAX_POOL = 32  # kMaxPool

_OP = "part_correlation"


def part_correlation(signal: Tensor, parts: Tensor, *, pool: int = 1, pairs: Tensor | None = None) -> Tensor:
    r"""Correlates every channel of an image's map with the same channel of another image's parts.

    For pair :math:`b = (n, m)`, part :math:`p` and channel :math:`c` (CSN, Eq. 2):

    .. math::
        s[b, pC + c, i, j] = \sum_{u,v} x[n, c, i+u-t, j+v-l] \; f[m, p, c, u, v],
        \qquad t = \lfloor (k_h-1)/2 \rfloor, \; l = \lfloor (k_w-1)/2 \rfloor

    The map counts as zero outside ("same" padding; an even filter gets one more row and column after
    than before), and the filter is not flipped.

    Equivalent to: ``F.conv2d(F.pad(x, ...), f, groups=N*C)`` over all pairs, then
    ``F.max_pool2d(s, pool, ceil_mode=True)``; see :func:`reid_ops.reference.part_correlation`.

    Args:
        signal: maps ``(N, C, H, W)``, float32, float64, float16 or bfloat16 (half types accumulate in
            float32), any strides. The CPU kernel reads them as they are; CUDA makes them contiguous.
        parts: ``(M, P, C, kh, kw)``, P parts an image, filters from 1x1 to 64x64, dtype and device of
            ``signal`` (under autocast dtypes may differ: both are cast).
        pool: window and stride of a max-pool of the result, 1 (none) to 32, ceil mode, fused: the
            unpooled map is never written to memory.
        pairs: int64 ``(B, 2)``, rows of (signal, parts) to correlate; None pairs row i with row i, and
            then N == M. May be on the CPU (checked, then copied; not for CUDA graphs) or on the
            features' device. On a CUDA device the rows cannot be checked without waiting for it, nor
            while tracing: a pair that names a row that is not there then gives an output of NaN and no
            gradient.

    Returns:
        ``(B, P*C, ceil(H/pool), ceil(W/pool))``, contiguous, part-major channels (``p*C + c``). An empty
        batch gives an empty result. NaN in an input reaches every output it belongs to. Differentiable in
        ``signal`` and ``parts``, twice too; deterministic. Under ``torch.autocast`` it runs in the
        autocast dtype, like a convolution.

    Raises:
        TypeError: an argument is no tensor, not a supported float type, or of another dtype.
        ValueError: a shape, device, ``pool`` or row of ``pairs`` is out of range.
        NotImplementedError: under forward-mode differentiation (``torch.func.jvp``, ``jacfwd``).

    Example:
        >>> signal = torch.rand(8, 96, 40, 15)
        >>> parts = torch.rand(8, 3, 96, 10, 10)
        >>> reid_ops.part_correlation(signal, parts, pool=2).shape
        torch.Size([8, 288, 20, 8])
    """
    signal, parts, pairs = _prepare(signal, parts, pool, pairs)
    # Where each maximum came from is only worth keeping for a backward pass.
    with_argmax = pool > 1 and torch.is_grad_enabled() and (signal.requires_grad or parts.requires_grad)
    return _dispatch.call("part_correlation", signal, parts, pairs, pool, with_argmax)[0]


def csn_similarity(x1: Tensor, x2: Tensor, parts1: Tensor, parts2: Tensor, *, pool: int = 1) -> Tensor:
    """Similarity maps of image pairs in both directions (CSN, section 3.1).

    First ``x1`` correlated with ``parts2``, then ``x2`` with ``parts1``: "signal of image i, filter from
    the other image".

    Args:
        x1: maps ``(N, C, H, W)`` of the first images.
        x2: of the second images.
        parts1: parts ``(N, P, C, kh, kw)`` of the first images.
        parts2: of the second images.
        pool: as in :func:`part_correlation`.

    Returns:
        ``(N, 2*P*C, ceil(H/pool), ceil(W/pool))``: direction-major, then part, then channel.

    Raises:
        TypeError, ValueError: as :func:`part_correlation`.

    Example:
        >>> x1, x2 = torch.rand(2, 4, 96, 20, 8)
        >>> parts1, parts2 = torch.rand(2, 4, 3, 96, 5, 5)
        >>> reid_ops.csn_similarity(x1, x2, parts1, parts2).shape
        torch.Size([4, 576, 20, 8])
    """
    first = part_correlation(x1, parts2, pool=pool)
    second = part_correlation(x2, parts1, pool=pool)
    return torch.cat([first, second], dim=1)


class PartCorrelation(nn.Module):
    """:func:`part_correlation` as a module; ``impl="reference"`` runs the pure PyTorch reference."""

    def __init__(self, pool: int = 1, *, impl: str = "fused") -> None:
        super().__init__()
        _checks.check_integer(pool, "pool", 1, MAX_POOL, "PartCorrelation")
        if impl not in ("fused", "reference"):
            raise ValueError(f'PartCorrelation: impl must be "fused" or "reference", got {impl!r}')
        self.pool = pool
        self.impl = impl

    def forward(self, signal: Tensor, parts: Tensor, pairs: Tensor | None = None) -> Tensor:
        """As :func:`part_correlation`."""
        if self.impl == "fused":
            return part_correlation(signal, parts, pool=self.pool, pairs=pairs)
        signal, parts, pairs = _prepare(signal, parts, self.pool, pairs)
        return reference.part_correlation(signal, parts, pool=self.pool, pairs=pairs)

    def extra_repr(self) -> str:
        return f"pool={self.pool}, impl={self.impl!r}"


class CSNSimilarity(PartCorrelation):
    """:func:`csn_similarity` as a module; ``impl="reference"`` runs the pure PyTorch reference."""

    def forward(self, x1: Tensor, x2: Tensor, parts1: Tensor, parts2: Tensor) -> Tensor:  # type: ignore[override]
        """As :func:`csn_similarity`."""
        forward = super().forward
        return torch.cat([forward(x1, parts2), forward(x2, parts1)], dim=1)


def _prepare(
    signal: Tensor, parts: Tensor, pool: int, pairs: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Raises on bad arguments; returns them in the autocast dtype, ``pairs`` on the features' device."""
    _checks.check_features(signal, "signal", ("N", "C", "H", "W"), _OP)
    _checks.check_features(parts, "parts", ("M", "P", "C", "kh", "kw"), _OP)
    signal, parts = _checks.autocast(signal, parts)  # first: under autocast the dtypes may differ
    _checks.check_alike(parts, "parts", signal, "signal", _OP)
    _checks.check_integer(pool, "pool", 1, MAX_POOL, _OP)
    rows, channels, height, width = signal.shape
    part_rows, parts_per_image, part_channels, kernel_height, kernel_width = parts.shape
    if channels < 1 or height < 1 or width < 1:
        raise ValueError(f"{_OP}: signal must have C, H, W >= 1, got {tuple(signal.shape)}")
    if parts_per_image < 1:
        raise ValueError(f"{_OP}: parts must have P >= 1, got {tuple(parts.shape)}")
    if part_channels != channels:
        raise ValueError(f"{_OP}: parts must have the signal's {channels} channels, got {part_channels}")
    if not (1 <= kernel_height <= MAX_KERNEL and 1 <= kernel_width <= MAX_KERNEL):
        raise ValueError(
            f"{_OP}: parts must be filters of 1x1 to {MAX_KERNEL}x{MAX_KERNEL}, "
            f"got {kernel_height}x{kernel_width}"
        )
    if pairs is None:
        if rows != part_rows:
            raise ValueError(
                f"{_OP}: without pairs, parts must have as many rows as signal ({rows}), got {part_rows}"
            )
        return signal, parts, None
    return signal, parts, _check_pairs(pairs, rows, part_rows, signal.device)


def _check_pairs(pairs: Tensor, rows: int, part_rows: int, device: torch.device) -> Tensor:
    if not isinstance(pairs, Tensor):
        raise TypeError(f"{_OP}: pairs must be a torch.Tensor or None, got {type(pairs).__name__}")
    if pairs.dtype != torch.int64:
        raise TypeError(f"{_OP}: pairs must be int64, got {_checks.dtype_name(pairs.dtype)}")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"{_OP}: pairs must have shape (B, 2), got {tuple(pairs.shape)}")
    if pairs.device.type not in ("cpu", device.type) or (
        pairs.device.type == device.type and pairs.device != device
    ):
        raise ValueError(f"{_OP}: pairs must be on the CPU or on {device}, got {pairs.device}")
    # While tracing there are no values to look at; the CPU operator looks when it runs.
    if pairs.device.type == "cpu" and not torch.compiler.is_compiling() and not is_fake(pairs):
        bad = (pairs < 0) | (pairs >= torch.tensor([rows, part_rows], device="cpu"))
        if bad.any():
            pair, side = bad.nonzero()[0].tolist()
            raise ValueError(
                f"{_OP}: pairs[{pair}, {side}] must be in [0, {(rows, part_rows)[side]}), "
                f"got {pairs[pair, side].item()}"
            )
    return pairs.to(device).contiguous()


@_dispatch.registers
def _register(library: str) -> None:
    """Fake kernels (shapes for tracing) and gradients of the two operators in ``library``.

    The op is one trilinear form T(x, f, g): the forward is dT/dg, the backward dT/dx and dT/df. So the
    gradients of each are made of both (csrc/part_correlation/kernels.h).
    """

    @torch.library.register_fake(f"{library}::part_correlation")
    def _(
        signal: Tensor, parts: Tensor, pairs: Tensor | None, pool: int, with_argmax: bool
    ) -> tuple[Tensor, Tensor]:
        _checks.check_integer(pool, "pool", 1, MAX_POOL, _OP)
        batch = signal.shape[0] if pairs is None else pairs.shape[0]
        height, width = ((size + pool - 1) // pool for size in signal.shape[2:])
        output = signal.new_empty(batch, parts.shape[1] * parts.shape[2], height, width)
        shape = output.shape if with_argmax and pool > 1 else (0,)
        return output, signal.new_empty(shape, dtype=torch.int16)

    @torch.library.register_fake(f"{library}::part_correlation_backward")
    def _(
        grad_output: Tensor, argmax: Any, signal: Tensor, parts: Tensor, pairs: Any, signal_order: Any,
        part_order: Any, pool: int, mask: list[bool],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        of_signal, of_parts = mask
        to_signal = signal.new_empty(signal.shape if of_signal else (0,))
        return to_signal, parts.new_empty(parts.shape if of_parts else (0,))

    def gradients(
        grad: Tensor, argmax: Tensor | None, signal: Tensor, parts: Tensor, pairs: Tensor | None, pool: int,
        of_signal: bool, of_parts: bool,
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        if not (of_signal or of_parts):
            return None, None
        orders = [
            _pairs_by_row(pairs, side) if wanted else None
            for side, wanted in enumerate((of_signal, of_parts))
        ]
        to_signal, to_parts = _dispatch.call_in(
            library,
            "part_correlation_backward",
            grad,
            argmax,
            signal,
            parts,
            pairs,
            *orders,
            pool,
            [of_signal, of_parts],
        )
        return to_signal if of_signal else None, to_parts if of_parts else None

    def save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        signal, parts, pairs, pool, _ = inputs
        needs_signal, needs_parts = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            signal if needs_parts else None,
            parts if needs_signal else None,
            pairs,
            output[1] if pool > 1 else None,
        )
        ctx.signal_shape, ctx.parts_shape, ctx.pool = signal.shape, parts.shape, pool
        ctx.set_materialize_grads(False)

    def backward_forward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None
        signal, parts, pairs, argmax = ctx.saved_tensors
        # An operand that was not kept counts for its shape alone.
        signal = grad.new_empty(()).expand(ctx.signal_shape) if signal is None else signal
        parts = grad.new_empty(()).expand(ctx.parts_shape) if parts is None else parts
        found = gradients(grad, argmax, signal, parts, pairs, ctx.pool, *ctx.needs_input_grad[:2])
        return *found, None, None, None

    def save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.pool, ctx.mask = inputs[7:]
        ctx.set_materialize_grads(False)

    def backward_backward(
        ctx: Any, by_signal: Tensor | None, by_parts: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """T is linear in each argument: upstream gradients take the place of the signal and of the parts."""
        grad, argmax, signal, parts, pairs = ctx.saved_tensors
        needs_grad, _, needs_signal, needs_parts, *_ = ctx.needs_input_grad
        by_signal = by_signal if ctx.mask[0] else None
        by_parts = by_parts if ctx.mask[1] else None
        to_grad = None
        if needs_grad:
            terms = [(by_signal, parts)] if by_signal is not None else []
            terms += [(signal, by_parts)] if by_parts is not None else []
            maps = [
                _dispatch.call_in(library, "part_correlation", *term, pairs, 1, False)[0] for term in terms
            ]
            to_grad = _pick(sum(maps[1:], maps[0]), argmax, grad, ctx.pool) if maps else None
        to_signal, to_parts = gradients(
            grad,
            argmax,
            signal if by_signal is None else by_signal,
            parts if by_parts is None else by_parts,
            pairs,
            ctx.pool,
            needs_signal and by_parts is not None,
            needs_parts and by_signal is not None,
        )
        return to_grad, None, to_signal, to_parts, *(None,) * 5

    _dispatch.register_gradient(library, "part_correlation", backward_forward, save_forward)
    _dispatch.register_gradient(library, "part_correlation_backward", backward_backward, save_backward)


def _pairs_by_row(pairs: Tensor | None, column: int) -> Tensor | None:
    """The pairs sorted by their signal (0) or parts (1) row, stably: a fixed order of summation."""
    return None if pairs is None else torch.argsort(pairs[:, column], stable=True)


def _pick(full: Tensor, argmax: Tensor | None, pooled: Tensor, pool: int) -> Tensor:
    """The values of an unpooled map at the positions that a max-pool had chosen."""
    if argmax is None or pool == 1:
        return full
    height, width = pooled.shape[2:]
    rows = torch.arange(height, device=full.device)[:, None] * pool
    columns = torch.arange(width, device=full.device) * pool
    offset = argmax.to(torch.int64)
    position = (rows + offset // pool) * full.shape[3] + columns + offset % pool
    return full.flatten(2).gather(2, position.flatten(2)).view_as(pooled)
