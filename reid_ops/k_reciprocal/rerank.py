"""k-reciprocal re-ranking without N x N matrices (HCN, section 3.4; the cited method's encoding)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks
from .candidates import COSINE, EUCLIDEAN, GIVEN, inner_products, norms_of, offset_of
from .definition import (
    MAX_K1,
    check_features,
    check_finite,
    check_numbers,
    choose_definition,
    expansion,
    given_neighbours,
    half_list,
    joined,
    nothing,
    scale_of,
    widened,
)
from .encoding import Encoding, Measured, feature_distances, nearest_of_blocks, row_blocks
from .neighbours import Neighbours, SearchIndex, gather_given, search, search_given, search_index

_RERANK, _FROM_DISTANCE = "k_reciprocal_rerank", "k_reciprocal_rerank_from_distance"
_SQUARINGS = {1: 0, 2: 1, 4: 2}


@_checks.takes_arrays
@_checks.outside_autocast
def k_reciprocal_rerank(
    query: Tensor,
    gallery: Tensor,
    *,
    k1: int = 20,
    k2: int | None = None,
    lambda_value: float = 0.3,
    jaccard: str = "soft",
    topk: int | None = None,
    index: SearchIndex | None = None,
    neighbours: Neighbours | None = None,
    preset: str = "zhong",
    power: int | None = None,
    normalize: bool | None = None,
    include_self: bool | None = None,
    blend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Re-ranked distances of queries to gallery items by k-reciprocal encoding.

    Over the N = Q + G items together, with :math:`N(i, k)` the k nearest of item i, itself included:

    .. math::
        R(i) &= \{j \in N(i, k_1{+}1) : i \in N(j, k_1{+}1)\} \quad\text{(Eqs. 2, 3)} \\
        R^*(i) &= R(i) \cup \{H(c) : c \in R(i),\; |R(i) \cap H(c)| > \tfrac23 |H(c)|\} \\
        V_{ij} &= e^{-d_{ij}} / \textstyle\sum_{l \in R^*(i)} e^{-d_{il}}, \quad j \in R^*(i), \qquad
        V_i \leftarrow \operatorname{mean}_{n \in N(i, k_2)} V_n \\
        d_J(q, g) &= 1 - m / (2 - m), \quad m = \textstyle\sum_j \min(V_{qj}, V_{gj})
            \quad\text{(Eq. 5 on soft sets)} \\
        d^*(q, g) &= (1 - \lambda)\, d_J(q, g) + \lambda\, d_{qg} \quad\text{(Eq. 4)}

    H(c) is R(c) of the half list, round(k1/2) + 1 places with halves rounded to even, and :math:`d_{ij}`
    the squared Euclidean distance over the row's largest. Ties go to the lower number, queries counting
    before gallery items. Neither N x N nor, with ``topk``, Q x G ever exists: memory is O(N k1).

    Equivalent to: :func:`reid_ops.reference.k_reciprocal_rerank`.

    Args:
        query: features ``(Q, D)``, a tensor or a numpy array; float32 or float64, half types are widened to
            float32.
        gallery: features ``(G, D)``, dtype and device of ``query``. Features are used as they are:
            normalise them first if the distance is to be the cosine's.
        k1: length of the neighbour lists, at least 1. More than N gives everybody.
        k2: neighbours in the local expansion, 1 (none) to k1; None: 6, or k1 where that is less.
        lambda_value: weight of the original distance, in [0, 1].
        jaccard: "soft", as above, or "set": Eq. 5 as printed, :math:`1 - |R^*_q \cap R^*_g| / |R^*_q \cup
            R^*_g|`, which uses neither weights nor ``k2``.
        topk: the length of ranked lists to return instead of all distances, 1 to G (of an empty gallery: 0).
        index: the gallery's own search (see ``SearchIndex``: ``search(query, k) -> (scores, ids)``, ids
            being the rows of ``gallery`` nearest by Euclidean distance). Lists are then as exact as the
            index. With ``normalize`` every row's largest distance is still computed in full; the presets
            "spcl" and "fast-reid" do without.
        neighbours: those of an earlier search, ``(indices, largest)`` of :class:`reid_ops.Neighbours`, at
            least as long as the lists; for trying other k1, k2 and lambda.
        preset: the family of public code whose numbers to give: "zhong", "torchreid", "spcl" (which has no
            lambda: pass 0) or "fast-reid"; see ``docs/k_reciprocal.md``.
        power: 2 or 4; this and the next three are choices of :class:`RerankDefinition` that overrule the
            preset's.
        normalize: whether rows of distances are divided by their largest.
        include_self: whether lists have k1 + 1 places or k1.
        blend: "encoded", "raw" or "cosine".

    Returns:
        ``(Q, G)`` distances, or with ``topk`` ``(values, indices)``, each ``(Q, topk)``, ascending, indices
        int64 rows of ``gallery``; arrays if ``query`` is one. Deterministic; other numbers of threads can
        only make torch's products round differently. Not differentiable. The sizes of the sparse rows are
        read from the device, so it can neither be captured in a CUDA graph nor compiled with
        ``fullgraph=True``.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: a shape or range is wrong, or a feature is NaN or infinite (the row is named).

    Example:
        >>> query, gallery = torch.rand(4, 128), torch.rand(100, 128)
        >>> reid_ops.k_reciprocal_rerank(query, gallery).shape
        torch.Size([4, 100])
        >>> values, indices = reid_ops.k_reciprocal_rerank(query, gallery, topk=10)
    """
    definition = choose_definition(
        preset, power, normalize, include_self, blend, ("encoded", "raw", "cosine"), _RERANK
    )
    features = joined(query, gallery, _RERANK)
    _checks.check_integer(k1, "k1", 1, MAX_K1, _RERANK)
    k2 = expansion(k1, k2)
    check_numbers(k1, k2, lambda_value, jaccard, _RERANK)
    queries, items = len(query), len(query) + len(gallery)
    if topk is not None:
        _checks.check_integer(topk, "topk", 1, len(gallery) or None, _RERANK)
    if index is not None and not callable(getattr(index, "search", None)):
        raise TypeError(f"{_RERANK}: index must have a method search(query, k), got {type(index).__name__}")
    if index is not None and neighbours is not None:
        raise ValueError(f"{_RERANK}: index and neighbours exclude each other")

    if queries == 0 or len(gallery) == 0:
        return nothing(queries, len(gallery), topk, features)
    if definition.blend != "cosine":  # distances don't change
        features = features - offset_of(features)
    places = min(k1 + 1 if definition.include_self else k1, items)
    needs_products = lambda_value > 0
    # The search computes the products of queries and gallery: kept where the whole result is wanted.
    output = features.new_empty(queries, len(gallery)) if topk is None else None
    searched = index is None and neighbours is None
    if neighbours is not None:
        found = given_neighbours(neighbours, places, items, definition.normalize, features, _RERANK)
    elif index is not None:
        given = joined(query, gallery, _RERANK)  # not moved
        found = search_index(features, places, queries, index, definition.normalize, given)
    else:
        found = search(features, places, queries=queries, products=output if needs_products else None)
    scale = scale_of(found.largest, definition.power, definition.normalize, features, items)
    encoding = Encoding(
        found.indices,
        half_list(k1),
        k2,
        first_row=queries,
        soft=jaccard == "soft",
        scale=scale,
        distances=feature_distances(features, definition.power),
    )
    norms = norms_of(features)
    cosine = definition.blend == "cosine"
    terms = torch.where(norms > 0, norms.rsqrt(), 0) if cosine else norms

    def blended(rows: slice, out: Tensor | None = None, *, has_products: bool = False) -> Tensor:
        if needs_products and not has_products:
            out = inner_products(features[rows], features[queries:], out)
        elif out is None:
            out = features.new_empty(rows.stop - rows.start, len(gallery))
        measured = Measured(
            out,
            COSINE if cosine else EUCLIDEAN,
            0 if cosine else definition.power // 4,
            terms[rows],
            terms[queries:],
            scale[rows] if definition.blend == "encoded" else None,
        )
        encoding.blend(measured, rows.start, lambda_value)
        return out

    if topk is not None:
        return nearest_of_blocks(queries, len(gallery), topk, features, blended)
    assert output is not None
    for rows in row_blocks(queries, len(gallery), features):
        blended(rows, output[rows], has_products=searched)
    return output


@_checks.takes_arrays
@_checks.outside_autocast
def rerank_neighbours(query: Tensor, gallery: Tensor, *, k1: int = 20) -> Neighbours:
    """The search of :func:`k_reciprocal_rerank` alone, to try several k1 (up to this one), k2 and lambda on.

    Args:
        query: features ``(Q, D)``.
        gallery: features ``(G, D)``.
        k1: as there; the lists have k1 + 1 places, or Q + G where those are fewer.

    Returns:
        :class:`reid_ops.Neighbours`, for the argument ``neighbours``; of tensors, whatever features are.

    Raises:
        TypeError, ValueError: as there.

    Example:
        >>> neighbours = reid_ops.rerank_neighbours(query, gallery, k1=30)
        >>> reid_ops.k_reciprocal_rerank(query, gallery, k1=20, neighbours=neighbours)
    """
    features = joined(query, gallery, "rerank_neighbours")
    _checks.check_integer(k1, "k1", 1, MAX_K1, "rerank_neighbours")
    return search(features - offset_of(features), k1 + 1, queries=len(query))


@_checks.takes_arrays
@_checks.outside_autocast
def k_reciprocal_rerank_from_distance(
    q_g: Tensor,
    q_q: Tensor,
    g_g: Tensor,
    *,
    k1: int = 20,
    k2: int | None = None,
    lambda_value: float = 0.3,
    jaccard: str = "soft",
    topk: int | None = None,
    preset: str = "zhong",
    power: int = 2,
    normalize: bool | None = None,
    include_self: bool | None = None,
    blend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """As :func:`k_reciprocal_rerank`, from distances: the signature that re-ID code calls today.

    Args:
        q_g: query to gallery ``(Q, G)``, float32 or float64 (half types are widened to float32); a tensor or
            a numpy array.
        q_q: query to query ``(Q, Q)``.
        g_g: gallery to gallery ``(G, G)``. Where a matrix is not symmetric, columns are read, as in the
            published code.
        k1: as there.
        k2: as there.
        lambda_value: as there.
        jaccard: as there.
        topk: as there.
        preset: as there; its power is not used.
        power: the matrices are first raised to this power, 1, 2 or 4. 2, as the published code does whatever
            it is given, torchreid's too, which gives it squared distances; 1 for a distance to be used as it
            is, such as XQDA's.
        normalize: as there.
        include_self: as there.
        blend: "encoded" or "raw". The preset "fast-reid" blends "raw" here, as it does for
            ``METRIC=euclidean``.

    Returns:
        As :func:`k_reciprocal_rerank`. Contiguous float32 and float64 matrices are read in place, not copied.

    Raises:
        TypeError, ValueError: as there; a distance that is NaN or infinite is named by its row.

    Example:
        >>> q_g, q_q, g_g = torch.rand(4, 100), torch.rand(4, 4), torch.rand(100, 100)
        >>> reid_ops.k_reciprocal_rerank_from_distance(q_g, q_q, g_g).shape
        torch.Size([4, 100])
    """
    if blend is None and preset == "fast-reid":
        blend = "raw"
    definition = choose_definition(
        preset, None, normalize, include_self, blend, ("encoded", "raw"), _FROM_DISTANCE
    )
    if power not in _SQUARINGS:
        raise ValueError(f"{_FROM_DISTANCE}: power must be 1, 2 or 4, got {power!r}")
    check_features(q_g, "q_g", _FROM_DISTANCE, ("Q", "G"), empty=True)
    queries, gallery = q_g.shape
    for name, matrix, size in (("q_q", q_q, queries), ("g_g", g_g, gallery)):
        check_features(matrix, name, _FROM_DISTANCE, ("Q", "Q") if name == "q_q" else ("G", "G"), empty=True)
        _checks.check_alike(matrix, name, q_g, "q_g", _FROM_DISTANCE)
        if tuple(matrix.shape) != (size, size):
            raise ValueError(
                f"{_FROM_DISTANCE}: {name} must have shape {(size, size)} to go with q_g {tuple(q_g.shape)}, "
                f"got {tuple(matrix.shape)}"
            )
    for name, matrix in (("q_g", q_g), ("q_q", q_q), ("g_g", g_g)):
        check_finite(matrix, name, _FROM_DISTANCE)
    _checks.check_integer(k1, "k1", 1, MAX_K1, _FROM_DISTANCE)
    k2 = expansion(k1, k2)
    check_numbers(k1, k2, lambda_value, jaccard, _FROM_DISTANCE)
    if topk is not None:
        _checks.check_integer(topk, "topk", 1, gallery or None, _FROM_DISTANCE)

    q_g, q_q, g_g = (widened(matrix.detach()) for matrix in (q_g, q_q, g_g))
    if queries == 0 or gallery == 0:
        return nothing(queries, gallery, topk, q_g)
    squarings = _SQUARINGS[power]
    found = search_given(q_g, q_q, g_g, k1 + 1 if definition.include_self else k1, squarings)
    # The largest came out of the search in its final power already.
    scale = scale_of(found.largest, 2, definition.normalize, q_g, queries + gallery)

    encoding = Encoding(
        found.indices,
        half_list(k1),
        k2,
        first_row=queries,
        soft=jaccard == "soft",
        scale=scale,
        distances=lambda offsets, columns: gather_given(q_g, q_q, g_g, squarings, offsets, columns),
    )

    def compute(rows: slice) -> Tensor:
        block = q_g[rows].clone()
        factor = scale[rows] if definition.blend == "encoded" else None
        encoding.blend(Measured(block, GIVEN, squarings, scale=factor), rows.start, lambda_value)
        return block

    if topk is not None:
        return nearest_of_blocks(queries, gallery, topk, q_g, compute)
    output = torch.empty_like(q_g)
    for rows in row_blocks(queries, gallery, q_g):
        output[rows] = compute(rows)
    return output
