"""What k_reciprocal is given: wrong input is refused by name, nothing gives nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from tests.conftest import Backend


def good() -> dict[str, Any]:
    return {"query": torch.zeros(2, 3), "gallery": torch.ones(5, 3)}


def with_value(value: float, row: int) -> Tensor:
    features = torch.zeros(5, 3)
    features[row, 1] = value
    return features


class Index:
    def __init__(self, ids: Any) -> None:
        self.ids = ids

    def search(self, query: Tensor, k: int) -> tuple[Any, Any]:
        return None, self.ids


# One case a line, however long.
# ruff: noqa: E501
BAD = {
    "query is no tensor": ({"query": [[1.0]]}, TypeError, r"query must be a torch.Tensor or a numpy array of floats, got list"),
    "query rank": ({"query": torch.zeros(3)}, ValueError, r"query must have shape \(N, D\), got \(3,\)"),
    "integer gallery": ({"gallery": torch.zeros(5, 3).int()}, TypeError, r"gallery must be float32.*got int32"),
    "no features": ({"query": torch.zeros(2, 0), "gallery": torch.zeros(5, 0)}, ValueError, r"query must have columns"),
    "lengths": ({"gallery": torch.zeros(5, 4)}, ValueError, r"gallery must have features of query's length \(3\), got 4"),
    "dtypes": ({"gallery": torch.zeros(5, 3).double()}, TypeError, r"gallery must have the dtype of query \(float32\), got float64"),
    "devices": ({"gallery": torch.zeros(5, 3, device="meta")}, ValueError, r"gallery must be on the device of query \(cpu\), got meta"),
    "NaN": ({"gallery": with_value(float("nan"), 3)}, ValueError, r"gallery must be finite, got NaN or infinity in row 3"),
    "infinity": ({"query": with_value(float("inf"), 1)}, ValueError, r"query must be finite, got NaN or infinity in row 1"),
    "overflow": ({"gallery": with_value(1e15, 2)}, ValueError, r"squared lengths up to .* in row 4 of all"),
    "k1 zero": ({"k1": 0}, ValueError, r"k1 must be in \[1, 1048576\], got 0"),
    "k1 float": ({"k1": 20.0}, TypeError, r"k1 must be an int, got float"),
    "k2 zero": ({"k2": 0}, ValueError, r"k2 must be in \[1, 1048576\], got 0"),
    "k2 > k1": ({"k1": 5, "k2": 6}, ValueError, r"k2 must not exceed k1 \(5\), got 6"),
    "lambda negative": ({"lambda_value": -0.1}, ValueError, r"lambda_value must be in \[0, 1\], got -0.1"),
    "lambda above 1": ({"lambda_value": 1.5}, ValueError, r"lambda_value must be in \[0, 1\], got 1.5"),
    "lambda NaN": ({"lambda_value": float("nan")}, ValueError, r"lambda_value must be in \[0, 1\], got nan"),
    "lambda text": ({"lambda_value": "0.3"}, TypeError, r"lambda_value must be a number, got str"),
    "jaccard": ({"jaccard": "hard"}, ValueError, r"jaccard must be \"soft\" or \"set\", got 'hard'"),
    "topk zero": ({"topk": 0}, ValueError, r"topk must be in \[1, 5\], got 0"),
    "topk too long": ({"topk": 6}, ValueError, r"topk must be in \[1, 5\], got 6"),
    "preset": ({"preset": "zhang"}, ValueError, r"preset must be one of zhong, torchreid, spcl, fast-reid, got 'zhang'"),
    "power": ({"power": 3}, ValueError, r"power must be 2 or 4, got 3"),
    "blend": ({"blend": "sum"}, ValueError, r"blend must be one of encoded, raw, cosine, got 'sum'"),
    "normalize": ({"normalize": "no"}, TypeError, r"normalize must be a bool, got str"),
    "include_self": ({"include_self": 0}, TypeError, r"include_self must be a bool, got int"),
    "index": ({"index": 7}, TypeError, r"index must have a method search\(query, k\), got int"),
    "ids' shape": ({"index": Index(torch.zeros(7, 4).long())}, ValueError, r"ids of shape \(7, 5\), got int64 of shape \(7, 4\)"),
    "ids' dtype": ({"index": Index(torch.zeros(7, 5))}, ValueError, r"integer ids of shape \(7, 5\), got float32"),
    "ids' range": ({"index": Index(torch.full((7, 5), 5))}, ValueError, r"rows of gallery, in \[-1, 5\), got 5 to 5"),
    "neighbours' type": ({"neighbours": torch.zeros(7, 7).int()}, TypeError, r"neighbours must be a reid_ops.Neighbours, got Tensor"),
    "neighbours too few": ({"neighbours": reid_ops.Neighbours(torch.zeros(7, 2).int(), torch.ones(7))}, ValueError, r"must hold 7 neighbours an item, got 2"),
    "neighbours' shape": ({"neighbours": reid_ops.Neighbours(torch.zeros(6, 7).int(), torch.ones(6))}, ValueError, r"int32 of shape \(7, K\), got int32 of shape \(6, 7\)"),
    "neighbours beyond": ({"neighbours": reid_ops.Neighbours(torch.full((7, 7), 7).int(), torch.ones(7))}, ValueError, r"neighbours.indices must be in \[-1, 7\), got 7 to 7"),
    "neighbours below": ({"neighbours": reid_ops.Neighbours(torch.full((7, 7), -2).int(), torch.ones(7))}, ValueError, r"neighbours.indices must be in \[-1, 7\), got -2 to -2"),
    "largest missing": ({"neighbours": reid_ops.Neighbours(torch.zeros(7, 7).int(), None)}, ValueError, r"neighbours.largest must be \(7,\)"),
    "both": ({"index": Index(None), "neighbours": reid_ops.Neighbours(torch.zeros(7, 7).int(), None)}, ValueError, r"exclude each other"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    change, error, message = BAD[name]
    with pytest.raises(error, match=message):
        reid_ops.k_reciprocal_rerank(**{**good(), **change})


def test_bad_distances() -> None:
    q_g, q_q, g_g = torch.rand(2, 5), torch.rand(2, 2), torch.rand(5, 5)
    rerank = reid_ops.k_reciprocal_rerank_from_distance
    with pytest.raises(
        ValueError, match=r"g_g must have shape \(5, 5\) to go with q_g \(2, 5\), got \(4, 4\)"
    ):
        rerank(q_g, q_q, g_g[:4, :4])
    with pytest.raises(ValueError, match=r"q_q must be finite, got NaN or infinity in row 1"):
        rerank(q_g, torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), g_g)
    with pytest.raises(ValueError, match="power must be 1, 2 or 4, got 3"):
        rerank(q_g, q_q, g_g, power=3)
    with pytest.raises(ValueError, match="blend must be one of encoded, raw, got 'cosine'"):
        rerank(q_g, q_q, g_g, blend="cosine")
    with pytest.raises(ValueError, match="k2 must not exceed k1"):
        reid_ops.jaccard_distance(g_g, k1=2, k2=3)
    with pytest.raises(ValueError, match="features must have columns"):
        reid_ops.jaccard_distance(torch.zeros(3, 0))


@pytest.mark.parametrize(("queries", "gallery"), [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_rank(backend: Backend, queries: int, gallery: int) -> None:
    q, g = torch.rand(queries, 4, device=backend.device), torch.rand(gallery, 4, device=backend.device)
    assert reid_ops.k_reciprocal_rerank(q, g).shape == (queries, gallery)
    values, indices = reid_ops.k_reciprocal_rerank(q, g, topk=4)
    assert values.shape == indices.shape == (queries, min(4, gallery))
    assert indices.dtype == torch.int64
    matrices = (torch.cdist(*pair) for pair in ((q, g), (q, q), (g, g)))
    assert reid_ops.k_reciprocal_rerank_from_distance(*matrices).shape == (queries, gallery)


def test_no_items_have_no_distances(backend: Backend) -> None:
    nobody = torch.zeros(0, 3, device=backend.device)
    assert reid_ops.jaccard_distance(nobody).shape == (0, 0)
    assert reid_ops.jaccard_distance(nobody, sparse=True).to_dense().shape == (0, 0)


OPERATOR_ERRORS = {
    "neighbours": (lambda ops: ops.k_reciprocal_reverse_ranks(torch.zeros(3, 2).long()), "neighbours has the wrong dtype"),
    "reverse": (lambda ops: ops.k_reciprocal_sets(torch.zeros(3, 2).int(), torch.zeros(2, 2).int(), None, 0, 2, 1), "reverse has the wrong shape"),
    "list": (lambda ops: ops.k_reciprocal_sets(torch.zeros(3, 2).int(), torch.zeros(3, 2).int(), None, 0, 0, 1), "list and half must be at least 1"),
    "features": (lambda ops: ops.k_reciprocal_pair_distances(torch.zeros(3, 2).half(), torch.zeros(4).long(), torch.zeros(0).int()), "features must be float32 or float64"),
    "offsets": (lambda ops: ops.k_reciprocal_encode(torch.zeros(3), torch.zeros(2), torch.zeros(4).long()), "offsets has the wrong shape"),
    "terms": (lambda ops: ops.k_reciprocal_nearest(torch.zeros(2, 2), None, None, 2, 0, False, 0, 0, torch.zeros(2, 1), torch.zeros(2, 1).int(), torch.zeros(2)), "needs row_terms and column_terms"),
    "measure": (lambda ops: ops.k_reciprocal_nearest(torch.zeros(2, 2), None, None, 9, 0, False, 0, 0, torch.zeros(2, 1), torch.zeros(2, 1).int(), torch.zeros(2)), "measure must be in"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATOR_ERRORS)
def test_operators_check_too(backend: Backend, name: str) -> None:
    """A call that bypasses the Python function raises as well, instead of reading out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    call, message = OPERATOR_ERRORS[name]
    with pytest.raises(RuntimeError, match=message):
        call(getattr(torch.ops, backend.library))
