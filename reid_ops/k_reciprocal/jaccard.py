"""Jaccard distances of all pairs of items, for clustering: k-reciprocal encodings without N x N matrices."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from .. import _checks
from .candidates import offset_of
from .definition import (
    MAX_K1,
    check_features,
    check_finite,
    check_numbers,
    choose_definition,
    expansion,
    half_list,
    prepare,
    scale_of,
)
from .encoding import Encoding, Measured, feature_distances, row_blocks
from .neighbours import search

_OP = "jaccard_distance"


@_checks.takes_arrays
@_checks.outside_autocast
def jaccard_distance(
    features: Tensor,
    *,
    k1: int = 20,
    k2: int | None = None,
    jaccard: str = "soft",
    sparse: bool = False,
    preset: str = "zhong",
    power: int | None = None,
    normalize: bool | None = None,
    include_self: bool | None = None,
) -> Tensor:
    """Jaccard distances of the k-reciprocal encodings of all pairs, for clustering (Eq. 5).

    Args:
        features: ``(N, D)``, a tensor or a numpy array; float32 or float64, half types are widened to
            float32.
        k1: as :func:`k_reciprocal_rerank`, like all that is not said here.
        k2: as there.
        jaccard: as there.
        sparse: return only pairs closer than 1, as a CSR tensor, so that no N x N matrix exists. What it
            does not hold is at distance 1; a distance of 0 is an entry.
        preset: as there. Clustering pipelines of the SpCL family use "spcl".
        power: as there.
        normalize: as there.
        include_self: as there.

    Returns:
        ``(N, N)``, symmetric to the last bit, in [0, 1], 0 on the diagonal. For an array: an array, sparse a
        ``scipy.sparse.csr_array``.

    Raises:
        TypeError, ValueError: as :func:`k_reciprocal_rerank`.

    Example:
        >>> distances = reid_ops.jaccard_distance(torch.rand(50, 64), preset="spcl")
    """
    definition = choose_definition(preset, power, normalize, include_self, None, ("encoded", "cosine"), _OP)
    check_features(features, "features", _OP)
    check_finite(features, "features", _OP)
    _checks.check_integer(k1, "k1", 1, MAX_K1, _OP)
    k2 = expansion(k1, k2)
    check_numbers(k1, k2, 0.0, jaccard, _OP)
    features = prepare(features.detach(), _OP)
    if len(features) == 0:
        offsets = torch.zeros(1, dtype=torch.int64, device=features.device)
        return _csr(offsets, offsets[:0], features.flatten(), 0) if sparse else features.new_empty(0, 0)
    features = features - offset_of(features)
    items = len(features)
    found = search(features, min(k1 + 1 if definition.include_self else k1, items))
    encoding = Encoding(
        found.indices,
        half_list(k1),
        k2,
        first_row=0,
        soft=jaccard == "soft",
        scale=scale_of(found.largest, definition.power, definition.normalize, features, items),
        distances=feature_distances(features, definition.power),
    )
    if sparse:
        return _sparse(encoding, items, features)
    output = features.new_empty(items, items)
    for rows in row_blocks(items, items, features):
        encoding.blend(Measured(output[rows]), rows.start, 0.0)
        # The sums of (i, j) and (j, i) run in other orders: one of them is for both.
        output[rows, : rows.start] = output[: rows.start, rows].t()
        corner = output[rows, rows].triu(1)
        output[rows, rows] = corner + corner.t()
    return output


def _sparse(encoding: Encoding, items: int, features: Tensor) -> Tensor:
    """The pairs closer than 1; of each pair's two sums that of the lower row is for both."""
    places = torch.arange(items, device=features.device)
    above, values = [], []
    for rows in row_blocks(items, items, features):
        block = features.new_empty(rows.stop - rows.start, items)
        encoding.blend(Measured(block), rows.start, 0.0)
        near = (block < 1) & (places > places[rows, None])
        row, column = near.nonzero(as_tuple=True)
        above.append(torch.stack([row + rows.start, column]))
        values.append(block[near])
    pairs, distances = torch.cat(above, 1), torch.cat(values)
    indices = torch.cat([pairs, pairs.flip(0), places.expand(2, items)], 1)
    found = torch.cat([distances, distances, distances.new_zeros(items)])
    order = (indices[0] * items + indices[1]).argsort()
    counts = torch.bincount(indices[0], minlength=items)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _csr(offsets, indices[1][order], found[order], items)


def _csr(offsets: Tensor, columns: Tensor, values: Tensor, items: int) -> Tensor:
    with warnings.catch_warnings():  # torch's, that its sparse tensors are in beta state
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(offsets, columns, values, (items, items), check_invariants=False)
