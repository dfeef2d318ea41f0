"""k_reciprocal as a citizen of torch: tracing, sizes, memory, determinism, instruction sets."""

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
