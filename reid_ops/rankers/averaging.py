"""Features averaged with others: a query with its nearest, an image with its mirror image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _checks
from .inputs import check_pair, unit


@_checks.takes_arrays
@_checks.outside_autocast
def expand_queries(
    query: Tensor,
    gallery: Tensor,
    *,
    k: int = 10,
    alpha: float | None = None,
    search: Callable[[Tensor, int], tuple[Any, Any]] | None = None,
) -> Tensor:
    r"""Query expansion: each query becomes a mean of itself and its k nearest gallery items.

    :math:`q' = q + \sum_{i \le k} w_i g_i`, L2-normalised, with :math:`w_i = 1` (average expansion, Chum
    et al. 2007) or :math:`w_i = \max(\cos(q, g_i), 0)^\alpha` (Radenovic et al. 2018) if ``alpha`` is given.

    Args:
        query: features ``(Q, D)``; normalised here.
        gallery: features ``(G, D)``, dtype and device of ``query``; normalised here.
        k: items per query, from 0; at most G are there.
        alpha: exponent, from 0; None: all weights 1.
        search: finds the items: (unit queries, k) -> (anything, gallery rows ``(Q, k)``, -1 for none), such
            as ``index.search`` of a :class:`GalleryIndex` whose ids are the gallery's rows. None: exact
            search here, a block of queries at a time.

    Returns:
        Unit features ``(Q, D)``, float32 for half types.

    Raises:
        TypeError, ValueError: arguments are of the wrong kind, shape or range, or a vector is zero.

    Example:
        >>> expand_queries(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), k=1)
        tensor([[0.7071, 0.7071]])
    """
    op = "expand_queries"
    query, gallery = check_pair(query, gallery, op)
    _checks.check_integer(k, "k", 0, 2**31, op)
    if alpha is not None and not 0.0 <= alpha < float("inf"):
        raise ValueError(f"{op}: alpha must be finite and at least 0, got {alpha}")
    query, gallery = unit(query, "query", op), unit(gallery, "gallery", op)
    k = min(k, len(gallery))
    if k == 0:
        return query
    step = max(1, (1 << 22) // max(len(gallery), k * gallery.shape[1]))
    expanded = []
    for block in query.split(step):
        if search is None:
            rows = (block @ gallery.T).topk(k, dim=1).indices
        else:
            rows = torch.as_tensor(search(block, k)[1]).to(gallery.device)
            if rows.shape != (len(block), k) or bool((rows >= len(gallery)).any()):
                raise ValueError(f"{op}: search must give ({len(block)}, {k}) rows of the gallery")
        found = gallery[rows.clamp(min=0)]
        weights = torch.ones_like(rows, dtype=block.dtype)
        if alpha is not None:
            weights = torch.einsum("qd,qkd->qk", block, found).clamp(min=0.0) ** alpha
        expanded.append(block + torch.einsum("qk,qkd->qd", weights * (rows >= 0), found))
    return F.normalize(torch.cat(expanded), dim=1)


def flip_average(model: Callable[[Tensor], Tensor], images: Tensor, *, normalize: bool = True) -> Tensor:
    """Features averaged over an image and its mirror image (hybrid attention, section 4).

    Args:
        model: images ``(N, C, H, W)`` -> features ``(N, D)``.
        images: ``(N, C, H, W)``.
        normalize: L2-normalise both features before, and the mean after.

    Returns:
        ``(N, D)``.

    Raises:
        TypeError, ValueError: images or the model's features are of the wrong kind or shape.

    Example:
        >>> flip_average(lambda images: images.flatten(1), torch.tensor([[[[1.0, 3.0]]]]), normalize=False)
        tensor([[2., 2.]])
    """
    op = "flip_average"
    if not isinstance(images, Tensor):
        raise TypeError(f"{op}: images must be a torch.Tensor, got {type(images).__name__}")
    if images.dim() != 4:
        raise ValueError(f"{op}: images must have shape (N, C, H, W), got {tuple(images.shape)}")
    features = [model(images), model(images.flip(-1))]
    for each in features:
        _checks.check_features(each, "the model's output", ("N", "D"), op)
    if not normalize:
        return (features[0] + features[1]) / 2
    first, second = (F.normalize(each, dim=1) for each in features)
    return F.normalize(first + second, dim=1)
