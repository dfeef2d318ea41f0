"""Jaccard distances of all pairs of items, for clustering: k-reciprocal encodings without N x N matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from .candidates import offset_of
from .definition import (
    check_features,
    check_finite,
    check_numbers,
    choose_definition,
    half_list,
    prepare,
    scale_of,
)
from .encoding import Encoding, Measured, feature_distances, row_blocks
from .neighbours import search

_OP = "jaccard_distance"


@_checks.outside_autocast
def jaccard_distance(
    features: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    jaccard: str = "soft",
    sparse: bool = False,
    preset: str = "zhong",
    power: int | None = None,
    normalize: bool | None = None,
    include_self: bool | None = None,
) -> Tensor:
    """Jaccard distances of the k-reciprocal encodings of all pairs, for clustering (Eq. 5).

    Args:
        features: ``(N, D)``, N >= 1; float32 or float64, half types are widened to float32.
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
        ``(N, N)``, symmetric, in [0, 1].

    Raises:
        TypeError, ValueError: as :func:`k_reciprocal_rerank`.

    Example:
        >>> distances = reid_ops.jaccard_distance(torch.rand(50, 64), preset="spcl")
    """
    definition = choose_definition(preset, power, normalize, include_self, None, ("encoded", "cosine"), _OP)
    check_features(features, "features", _OP)
    check_finite(features, "features", _OP)
    check_numbers(k1, k2, 0.0, jaccard, _OP)
    features = prepare(features.detach(), _OP)
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
    output = features.new_empty(0 if sparse else items, items)
    counts, columns, values = [], [], []
    for rows in row_blocks(items, items, features):
        block = features.new_empty(rows.stop - rows.start, items) if sparse else output[rows]
        encoding.blend(Measured(block), rows.start, 0.0)
        if sparse:
            near = block < 1
            counts.append(near.sum(1))
            columns.append(near.nonzero()[:, 1])
            values.append(block[near])
    if not sparse:
        return output
    offsets = torch.cat([counts[0].new_zeros(1), torch.cat(counts).cumsum(0)])
    return torch.sparse_csr_tensor(
        offsets, torch.cat(columns), torch.cat(values), (items, items), check_invariants=False
    )
