"""Right calls of ``torch.ops.reid_ops.*``, which everyone can reach past the Python functions' checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import raw_k_reciprocal
from .call import Call
from .chance import DTYPES, FLOATS, Chance

Arguments = list[Any]


def _correlation(chance: Chance) -> tuple[Tensor, Tensor, Tensor | None, int]:
    rows, part_rows, channels = chance.randint(0, 3), chance.randint(1, 3), chance.size(6)
    pairs = None
    if chance.maybe() and rows > 0:
        pairs = torch.tensor(
            [[chance.randrange(rows), chance.randrange(part_rows)] for _ in range(chance.size(6))]
        )
    dtype = chance.choice(FLOATS)
    signal = torch.randn(rows, channels, chance.size(9), chance.size(9)).to(dtype)
    parts = torch.randn(
        rows if pairs is None else part_rows, chance.size(5), channels, chance.size(6), chance.size(6)
    )
    return signal, parts.to(dtype), pairs, chance.choice([1, 1, 2, 3])


def part_correlation(chance: Chance) -> Arguments:
    return [*_correlation(chance), chance.maybe()]


def part_correlation_backward(chance: Chance) -> Arguments:
    signal, parts, pairs, pool = _correlation(chance)
    grad, argmax = torch.ops.reid_ops.part_correlation(signal, parts, pairs, pool, True)
    orders = [None if pairs is None else torch.argsort(pairs[:, k], stable=True) for k in (0, 1)]
    mask = [chance.random() < 0.7, chance.random() < 0.7]
    return [grad, argmax if pool > 1 else None, signal, parts, pairs, *orders, pool, mask]


def _rule(chance: Chance, shapes: list[int]) -> list[int]:
    shape = chance.choice(shapes)
    placement = chance.choice([2, 3] if shape == 2 else [0, 1])
    fill = chance.randrange(3)
    return [
        2**32,
        2**27,
        2**30,
        2**23,
        2**24,
        chance.randint(3, 256),
        shape,
        placement,
        fill,
        chance.choice([1, 100]),
    ]


def _seed(chance: Chance) -> tuple[Tensor | None, int, int]:
    tensor = torch.tensor([chance.getrandbits(62)] * chance.randint(1, 2)) if chance.maybe() else None
    return tensor, chance.getrandbits(62), chance.choice([0, 5])


def polygon_erase(chance: Chance) -> Arguments:
    shape = chance.randint(0, 3), chance.size(4), chance.size(20), chance.size(20)
    images = torch.rand(shape).to(chance.choice(DTYPES[:5]))
    return [images, *_seed(chance), _rule(chance, [0, 1, 2]), [0.0, 1.0], chance.maybe()]


def augment(chance: Chance) -> Arguments:
    count, channels, height, width = chance.randint(0, 3), chance.size(4), chance.size(20), chance.size(20)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)
    sizes = torch.tensor([[height, width]] * count, dtype=torch.int64).view(-1, 2) if chance.maybe() else None
    rectangle = _rule(chance, [2]) if chance.maybe() else []
    polygon = _rule(chance, [0, 1]) if chance.maybe() else []
    dtype = chance.choice([torch.float32, torch.float16, torch.bfloat16])
    return [
        images, sizes, *_seed(chance), chance.size(20), chance.size(20), chance.randint(0, 5),
        chance.choice([0, 2**31]), [0.5] * channels, [0.2] * channels,
        rectangle, [0.0, 255.0] if rectangle else [], polygon, [0.0, 255.0] if polygon else [], dtype,
    ]  # fmt: skip


def _graph(chance: Chance) -> list[Any]:
    return [chance.choice([1, 2, 5]), chance.maybe(), chance.randrange(5)]


def similarity_graph(chance: Chance) -> Arguments:
    batch, height, width = chance.randint(0, 4), chance.size(6), chance.size(6)
    precise = chance.choice(DTYPES[:2])
    theta = (
        torch.rand(chance.choice([1, batch or 1]), height, width, dtype=precise) if chance.maybe() else None
    )
    values = torch.randn(batch, height, width, dtype=precise)
    return [values, theta, *_graph(chance), chance.maybe()]


def similarity_graph_backward(chance: Chance) -> Arguments:
    values, theta, *graph, _ = similarity_graph(chance)
    return [torch.randn_like(values), values, theta, *graph]


class _Module:
    """One module's sizes and the tensors between its passes, by the names of csrc/library.cpp."""

    def __init__(self, chance: Chance) -> None:
        ops = torch.ops.reid_ops
        images, channels, height, width = (
            chance.randint(0, 3),
            chance.size(6),
            chance.randint(4, 8),
            chance.randint(2, 8),
        )
        dtype = chance.choice(FLOATS)
        self.precise = torch.float64 if dtype == torch.float64 else torch.float32
        self.rows, self.columns = chance.choice([([1, 2, 4], [1, 1, 1]), ([1], [1]), ([1, 2], [1, 2])])
        maps = sum(r * c for r, c in zip(self.rows, self.columns, strict=True))
        levels, self.scales = len(self.rows), chance.choice([[1, 2, 3], [2]])
        self.graph = [self.scales, chance.randrange(6), *_graph(chance)]
        self.sizes = [height, width, self.rows, self.columns]
        self.x = torch.randn(images, channels, height, width).to(dtype)
        if chance.maybe():
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.theta = torch.rand(levels, len(self.scales), height, width, dtype=self.precise)
        self.delta, self.weight, self.bias = torch.rand(3, maps, channels, dtype=self.precise).unbind()
        self.mean_table, self.inverse = torch.rand(2, maps, channels, dtype=torch.float64).unbind()
        self.squeezed, self.channel = ops.similarity_graph_squeeze(self.x, self.rows, self.columns)
        self.centred, self.mean, self.spread, self.pooled, _ = ops.similarity_graph_nodes(
            self.squeezed, self.theta, self.rows, self.columns, *self.graph
        )
        self.scale, self.shift = torch.randn(2, images, maps, channels, dtype=self.precise).unbind()
        self.offset, self.slope = torch.randn(2, images, maps, dtype=self.precise).unbind()

    @property
    def maps(self) -> list[list[int]]:
        return [self.rows, self.columns]

    def calls(self, chance: Chance) -> dict[str, Arguments]:
        tables = [self.channel, self.mean]
        fixed = [self.mean_table, self.inverse]
        some, other = chance.maybe(), chance.maybe()
        return {
            "squeeze": [self.x, *self.maps],
            "nodes": [self.squeezed, self.theta, *self.maps, *self.graph],
            "nodes_backward": [
                self.centred, self.centred, self.offset, self.slope, self.pooled, self.theta, *self.maps,
                *self.graph,
            ],
            "statistics": [*tables, self.spread, *self.sizes],
            "affine": [*tables, self.weight, self.bias, *fixed, *self.sizes],
            "affine_sums": [self.scale, self.shift, *tables, self.weight, *fixed, *self.sizes],
            "affine_backward": [
                self.scale, self.shift, *tables, self.spread, self.weight, *fixed, *fixed, *self.sizes,
            ],
            "excite": [self.x, self.centred, self.scale, self.shift, *self.maps, 3.0, 1.0, 0.2],
            "sums": [self.x, self.centred, self.scale, self.shift, *self.maps, 1.0, 0.2],
            "input": [
                self.x, self.centred if some else None, self.scale if other else None, *self.maps, 3.0,
            ],
            "evaluate": [
                self.x, self.theta if some else None, self.delta if other else None, self.weight,
                self.bias, *fixed, *self.maps, *self.graph[:3], 1, *self.graph[3:], 1, 3.0, 1.0, 0.2,
            ],
        }  # fmt: skip


def _of_module(name: str) -> Callable[[Chance], Arguments]:
    return lambda chance: _Module(chance).calls(chance)[name]


def _of_reranking(name: str) -> Callable[[Chance], Arguments]:
    return lambda chance: raw_k_reciprocal.drawn(name, chance)


_PASSES = _Module(Chance(0, 0)).calls(Chance(0, 0))


def stripe_pool(chance: Chance) -> Arguments:
    stripes = chance.size(6)
    x = torch.randn(chance.randint(0, 3), chance.size(40), stripes * chance.size(4), chance.size(9)).to(
        chance.choice(FLOATS)
    )
    if chance.maybe():
        x = x.contiguous(memory_format=torch.channels_last)
    return [x, stripes, chance.maybe()]


def stripe_pool_backward(chance: Chance) -> Arguments:
    x, stripes, _ = stripe_pool(chance)
    output, argmax = torch.ops.reid_ops.stripe_pool(x, stripes, True)
    return [torch.randn_like(output), argmax, stripes, *x.shape[2:], chance.maybe()]


CALLS: dict[str, Callable[[Chance], Arguments]] = {
    "part_correlation": part_correlation,
    "part_correlation_backward": part_correlation_backward,
    "polygon_erase": polygon_erase,
    "polygon_erase_": polygon_erase,
    "augment": augment,
    "similarity_graph": similarity_graph,
    "similarity_graph_backward": similarity_graph_backward,
    "stripe_pool": stripe_pool,
    "stripe_pool_backward": stripe_pool_backward,
    **{f"similarity_graph_{name}": _of_module(name) for name in _PASSES},
    **{f"k_reciprocal_{name}": _of_reranking(name) for name in raw_k_reciprocal.NAMES},
}


def make(chance: Chance, library: str) -> Call:
    """A call of one of the operators: right, or with some arguments wrong, or by its schema alone.

    Of a device's library without re-ranking's, which look at what index tensors hold on the CPU alone.
    """
    on_host = library == "reid_ops"
    name = chance.choice([name for name in sorted(CALLS) if on_host or not name.startswith("k_reciprocal_")])
    operator = getattr(getattr(torch.ops, library), name).default
    if chance.maybe(0.1):
        sizes = [chance.size(4) for _ in range(6)]
        given = [chance.of_type(str(each.type), sizes) for each in operator._schema.arguments]
        return Call(name, operator, given)
    arguments = CALLS[name](chance)
    wrong = chance.choice([0, 1, 1, 1, 2, 3])
    for place in chance.sample(range(len(arguments)), min(wrong, len(arguments))):
        arguments[place] = chance.other(arguments[place])
    # Means of nothing are NaN.
    filled = all(each.numel() for each in arguments if isinstance(each, Tensor))
    return Call(name, operator, arguments, right=wrong == 0, finite=wrong == 0 and filled)
