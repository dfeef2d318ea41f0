"""k_reciprocal as a citizen of torch: tracing, errors, sizes, memory, determinism, instruction sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import reid_ops
from reid_ops.k_reciprocal import candidates, doubts
from reid_ops.k_reciprocal import encoding as encodings
from reid_ops.k_reciprocal import neighbours as searching
from tests.conftest import Backend
from tests.cuda_support import on_another_stream
from tests.instruction_set_support import INSTRUCTION_SETS, run_with
from tests.k_reciprocal.test_rerank import clustered, result


def test_opcheck(backend: Backend) -> None:
    ops = getattr(torch.ops, backend.library)
    check = torch.library.opcheck
    q, g = clustered(5, 20, 6, backend.device)
    features = torch.cat([q, g]).float()
    norms = candidates.norms_of(features)
    products = features @ features.t()
    state = candidates.State(25, 7, features)
    arguments = (products, norms, norms, 2, 0, False, 0, 0, state.distances, state.indices, state.largest)
    check(ops.k_reciprocal_nearest.default, arguments)
    ops.k_reciprocal_nearest(*arguments)
    neighbours = state.indices
    check(ops.k_reciprocal_reverse_ranks.default, (neighbours,))
    reverse = ops.k_reciprocal_reverse_ranks(neighbours)
    check(ops.k_reciprocal_sets.default, (neighbours, reverse, None, 0, 7, 4))
    sizes = ops.k_reciprocal_sets(neighbours, reverse, None, 0, 7, 4)
    offsets, entries = encodings.offsets_of(sizes)
    check(ops.k_reciprocal_sets.default, (neighbours, reverse, offsets, entries, 7, 4))
    columns = ops.k_reciprocal_sets(neighbours, reverse, offsets, entries, 7, 4)
    check(ops.k_reciprocal_pair_distances.default, (features, offsets, columns))
    distances = ops.k_reciprocal_pair_distances(features, offsets, columns)
    check(ops.k_reciprocal_encode.default, (distances, 1 / state.largest, offsets))
    weights = ops.k_reciprocal_encode(distances, 1 / state.largest, offsets)
    check(ops.k_reciprocal_expand.default, (neighbours, offsets, columns, None, 3, None, 0))
    sizes, _ = ops.k_reciprocal_expand(neighbours, offsets, columns, None, 3, None, 0)
    wide, entries = encodings.offsets_of(sizes)
    check(ops.k_reciprocal_expand.default, (neighbours, offsets, columns, weights, 3, wide, entries))
    columns, weights = ops.k_reciprocal_expand(neighbours, offsets, columns, weights, 3, wide, entries)
    check(ops.k_reciprocal_invert.default, (wide, columns, None, 5, None, 0))
    lists, entries = encodings.offsets_of(ops.k_reciprocal_invert(wide, columns, None, 5, None, 0)[0])
    if backend.name == "cpu":  # elsewhere the order within a list is open
        check(ops.k_reciprocal_invert.default, (wide, columns, weights, 5, lists, entries))
    inverse = ops.k_reciprocal_invert(wide, columns, weights, 5, lists, entries)
    block = (features[:5] @ features[5:].t()).contiguous()
    sparse = (wide, columns, weights, 0, lists, *inverse)
    check(
        ops.k_reciprocal_blend.default,
        (block, norms[:5], norms[5:], 2, 0, None, *sparse, None, None, 0.3),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_widened(backend: Backend, dtype: torch.dtype) -> None:
    q, g = (x.to(dtype) for x in clustered(6, 30, 8, backend.device))
    distances = result(q, g)
    assert distances.dtype == torch.float32
    assert torch.equal(distances, result(q.float(), g.float()))


def test_layouts_and_gradients(backend: Backend) -> None:
    """Any strides; features that require gradients give plain distances; inputs stay as they were."""
    q, g = clustered(6, 30, 8, backend.device)
    before = q.clone(), g.clone()
    expected = result(q, g)
    other = result(q.t().contiguous().t().requires_grad_(), torch.cat([g, g], 1)[:, :8])
    assert torch.equal(other, expected) and not other.requires_grad
    assert torch.equal(q, before[0]) and torch.equal(g, before[1])


def test_deterministic_whatever_the_threads(backend: Backend) -> None:
    q, g = (x.float() for x in clustered(20, 80 if backend.is_emulated else 2500, 16, backend.device))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            found = reid_ops.rerank_neighbours(q, g)
            results.append(result(q, g, neighbours=found))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, results[0]) for each in results)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor any operator returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        for each in outcome if isinstance(outcome, (tuple, list)) else [outcome]:
            if isinstance(each, Tensor) and not each.is_sparse_csr:
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return outcome


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(searching, "_BLOCK", (16, 40))
    monkeypatch.setattr(encodings, "_BLOCK_BYTES", 4 * 600)
    yield


def test_many_small_blocks(backend: Backend, small_blocks: None) -> None:
    """The borders of blocks, of queries and gallery, and of the triangle."""
    q, g = clustered(50, 130, 6, backend.device)
    found = reid_ops.rerank_neighbours(q, g, k1=8)
    features = torch.cat([q, g])
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    assert torch.equal(found.indices.long(), distance.argsort(dim=1, stable=True)[:, :9])
    assert found.largest is not None
    torch.testing.assert_close(found.largest, distance.amax(1))
    dense = result(q, g, k1=8)
    values, indices = reid_ops.k_reciprocal_rerank(q, g, k1=8, topk=9)
    torch.testing.assert_close(values, dense.sort(dim=1).values[:, :9], rtol=0, atol=1e-14)
    torch.testing.assert_close(dense.gather(1, indices), values, rtol=0, atol=1e-14)


def test_nothing_is_quadratic(backend: Backend, small_blocks: None) -> None:
    """With topk, no tensor is as large as Q x G, let alone N x N."""
    queries, gallery = (60, 200) if backend.is_emulated else (400, 1600)
    q, g = clustered(queries, gallery, 4, backend.device)
    with LargestTensor() as largest:
        reid_ops.k_reciprocal_rerank(q, g, k1=4, k2=2, topk=5)
        reid_ops.jaccard_distance(g, k1=4, k2=2, sparse=True)
    assert 0 < largest.elements < queries * gallery / (1 if backend.is_emulated else 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("items", [1, 63, 64, 65, 300, 1100])
@pytest.mark.parametrize("dimension", [1, 5, 128, 131])
def test_search_in_one_go(items: int, dimension: int, dtype: torch.dtype) -> None:
    """Borders of groups, tiles and blocks; whole numbers, so that products are exact and many are equal."""
    features = torch.randint(-2, 3, (items, dimension)).to(dtype)
    queries = items // 3
    state = candidates.State(items, min(9, items), features)
    products = features.new_full((queries, items - queries), float("nan"))
    torch.ops.reid_ops.k_reciprocal_search(features, products, state.distances, state.indices, state.largest)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    expected = distance.round().sort(dim=1, stable=True)
    assert torch.equal(state.indices.long(), expected.indices[:, :9])
    assert torch.equal(state.distances, expected.values[:, :9])
    assert torch.equal(state.largest, expected.values[:, -1])
    assert torch.equal(products, features[:queries] @ features[queries:].t())


def test_search_rounds_no_more_than_its_doubts_allow() -> None:
    """Products are summed in parts; by how much they may be off decides what is searched again."""
    features = torch.rand(700, 2048) + 1  # all products of one sign: errors are largest
    state = candidates.State(700, 700, features)
    torch.ops.reid_ops.k_reciprocal_search(features, None, state.distances, state.indices, state.largest)
    exact = torch.cdist(features.double(), features.double()).square().gather(1, state.indices.long())
    margin = doubts._margin(features, candidates.norms_of(features), state.distances[:, 0])
    assert bool(((state.distances - exact).abs() < margin[:, None] / 4).all())


def test_both_matrix_products_agree() -> None:
    """oneDNN's, where torch has it, and torch.mm's: the search does without either."""
    q, g = (x.float() for x in clustered(300, 3000, 64))
    found = []
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled):
            found.append(reid_ops.rerank_neighbours(q, g))
            distances = result(q, g, neighbours=found[0])
            torch.testing.assert_close(distances, result(q, g, neighbours=found[-1]), rtol=0, atol=1e-5)
    assert torch.equal(found[0].indices, found[1].indices)
    assert torch.equal(found[0].distances, found[1].distances)


def test_more_items_than_32_bits_square(backend: Backend) -> None:
    """N = 46,500: N * N is beyond 2**31. Neighbours are given: pairs (2i, 2i + 1), the last one far out."""
    items = 46_500
    partner = torch.arange(items, dtype=torch.int32) ^ 1
    indices = torch.stack([torch.arange(items, dtype=torch.int32), partner], 1).to(backend.device)
    features = (torch.arange(items) // 2).double()[:, None] + 0.1 * (torch.arange(items) % 2)[:, None]
    features = features.to(backend.device)
    found = reid_ops.Neighbours(
        indices, torch.full((items,), float(items) ** 2, device=backend.device).double()
    )
    queries = 3
    values, ranked = reid_ops.k_reciprocal_rerank(
        features[-queries:].flip(0),
        features[:-queries],
        k1=1,
        k2=1,
        lambda_value=0.5,
        topk=2,
        neighbours=reordered(found, queries),
    )
    # The last gallery item (number items - queries - 1) is the partner of the third query.
    assert ranked[2, 0] == items - queries - 1
    assert ranked[:, 0].tolist() == [items - queries - 1] * 3
    d = (0.1 / items) ** 2
    # Rows of V are (a, b) and (b, a) with a = 1 / (1 + exp(-d)): the sum of minima is 2 b.
    shared = 2 * (1 - 1 / (1 + torch.exp(torch.tensor(-d)).item()))
    assert abs(values[2, 0].item() - (0.5 * (1 - shared / (2 - shared)) + 0.5 * d)) < 1e-9
    assert values[0, 0].item() > 0.49  # no partner in the gallery


def reordered(found: reid_ops.Neighbours, queries: int) -> reid_ops.Neighbours:
    """The same lists with the last items first, in reverse: as queries."""
    items = len(found.indices)
    order = torch.cat([torch.arange(items - 1, items - queries - 1, -1), torch.arange(items - queries)])
    order = order.to(found.indices.device)
    number = torch.empty_like(order)
    number[order] = torch.arange(items, device=order.device)
    assert found.largest is not None
    return reid_ops.Neighbours(number[found.indices[order].long()].int(), found.largest)


@pytest.mark.slow
def test_offsets_beyond_32_bits(backend: Backend, tmp_path: Path) -> None:
    """A block whose second row begins past element 2**31."""
    q, g = clustered(2, 40, 6, backend.device)
    stride = 2**31 + 64
    if backend.device == "cpu":  # a file with a hole: Linux refuses a machine of 16 GB as much memory
        file = tmp_path / "storage"
        storage = torch.from_file(str(file), shared=True, size=stride + 40, dtype=torch.float64)
        file.unlink()
    else:
        storage = torch.empty(stride + 40, dtype=torch.float64, device=backend.device)
    block = storage.as_strided((2, 40), (stride, 1))
    features = torch.cat([q, g])
    found = reid_ops.rerank_neighbours(q, g, k1=5)
    encoding = encodings.Encoding(
        found.indices, 3, 2, first_row=2, soft=False, scale=torch.ones_like(features[:, 0]),
        distances=lambda offsets, columns: columns,
    )  # fmt: skip
    encoding.blend(encodings.Measured(block), 0, 0.0)
    assert torch.equal(block, result(q, g, k1=5, k2=2, jaccard="set", lambda_value=0.0))


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


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_every_instruction_set(instruction_set: str) -> None:
    """The wheel's older code paths, in a process of their own: the choice is made once."""
    code = (
        "import reid_ops, torch\n"
        "from tests.k_reciprocal import test_rerank as t\n"
        "from tests.conftest import Backend\n"
        "backend = Backend('cpu', 'cpu', 'reid_ops')\n"
        "for name in t.SIZES:\n"
        "    for jaccard in ('soft', 'set'):\n"
        "        torch.manual_seed(0)\n"
        "        t.test_matches_reference(backend, name, jaccard)\n"
    )
    run_with(instruction_set, code)


@pytest.mark.cuda
class TestCuda:
    """What only a real device can show."""

    def test_other_stream(self) -> None:
        q, g = (x.float() for x in clustered(40, 3000, 64, "cuda"))
        expected = result(q, g)
        actual = on_another_stream(lambda: result(q * 1.0, g * 1.0))
        assert torch.equal(actual, expected)

    def test_same_lists_as_the_cpu(self) -> None:
        q, g = (x.float() for x in clustered(100, 5000, 64))
        here, there = reid_ops.rerank_neighbours(q, g), reid_ops.rerank_neighbours(q.cuda(), g.cuda())
        assert (here.indices == there.indices.cpu()).float().mean() > 0.999  # but for near-ties
        torch.testing.assert_close(
            result(q.cuda(), g.cuda(), neighbours=there).cpu(),
            result(q, g, neighbours=reid_ops.Neighbours(there.indices.cpu(), here.largest)),
            rtol=0,
            atol=1e-5,
        )

    def test_second_device(self) -> None:
        if torch.cuda.device_count() < 2:
            pytest.skip("one CUDA device only")
        q, g = clustered(10, 60, 8)
        torch.testing.assert_close(result(q.to("cuda:1"), g.to("cuda:1")).cpu(), result(q, g))
