"""Random calls of ``torch.ops.reid_ops.*``, which everyone can reach past the Python functions' checks.

A call starts from one that is right, then some of its arguments are made wrong. Whatever they say, an
operator returns or raises; it ends in no signal, and does not hang. A longer campaign than the tests':

    python -m tests.robustness.raw_operators --calls 100000
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import random
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import reid_ops

Arguments = list[Any]

INTEGERS = [-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 5, 7, 64, 1000, 2**15, 2**31, 2**32, 2**62, 2**63 - 1]
NUMBERS = [-math.inf, -1e308, -1.0, 0.0, 0.5, 1.0, 255.0, 1e308, math.inf, math.nan]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int16, torch.int32]
DTYPES += [torch.int64, torch.bool]
REFUSALS = (RuntimeError, TypeError, ValueError)  # NotImplementedError is a RuntimeError
SECONDS_A_CALL = 20
BYTES = 6 * 2**30  # beyond what the process starts with: a call for more gets an error


# ------------------------------------------------------------------ calls that are right


def _size(rng: random.Random, most: int = 6) -> int:
    return rng.randint(1, most)


def _float(rng: random.Random) -> torch.dtype:
    return rng.choice(DTYPES[:4])


def _correlation(rng: random.Random) -> tuple[Tensor, Tensor, Tensor | None, int]:
    rows, part_rows, channels = rng.randint(0, 3), rng.randint(1, 3), _size(rng)
    pairs = None
    if rng.random() < 0.5 and rows > 0:
        pairs = torch.tensor([[rng.randrange(rows), rng.randrange(part_rows)] for _ in range(_size(rng))])
    dtype = _float(rng)
    signal = torch.randn(rows, channels, _size(rng, 9), _size(rng, 9)).to(dtype)
    parts = torch.randn(rows if pairs is None else part_rows, _size(rng, 5), channels, _size(rng), _size(rng))
    return signal, parts.to(dtype), pairs, rng.choice([1, 1, 2, 3])


def part_correlation(rng: random.Random) -> Arguments:
    return [*_correlation(rng), rng.random() < 0.5]


def part_correlation_backward(rng: random.Random) -> Arguments:
    signal, parts, pairs, pool = _correlation(rng)
    grad, argmax = torch.ops.reid_ops.part_correlation(signal, parts, pairs, pool, True)
    orders = [None if pairs is None else torch.argsort(pairs[:, k], stable=True) for k in (0, 1)]
    mask = [rng.random() < 0.7, rng.random() < 0.7]
    return [grad, argmax if pool > 1 else None, signal, parts, pairs, *orders, pool, mask]


def _rule(rng: random.Random, shapes: list[int]) -> list[int]:
    shape = rng.choice(shapes)
    placement = rng.choice([2, 3] if shape == 2 else [0, 1])
    fill = rng.randrange(3)
    return [
        2**32,
        2**27,
        2**30,
        2**23,
        2**24,
        rng.randint(3, 256),
        shape,
        placement,
        fill,
        rng.choice([1, 100]),
    ]


def _seed(rng: random.Random) -> tuple[Tensor | None, int, int]:
    tensor = torch.tensor([rng.getrandbits(62)] * rng.randint(1, 2)) if rng.random() < 0.5 else None
    return tensor, rng.getrandbits(62), rng.choice([0, 5])


def polygon_erase(rng: random.Random) -> Arguments:
    shape = rng.randint(0, 3), _size(rng, 4), _size(rng, 20), _size(rng, 20)
    images = torch.rand(shape).to(rng.choice(DTYPES[:5]))
    return [images, *_seed(rng), _rule(rng, [0, 1, 2]), [0.0, 1.0], rng.random() < 0.5]


def augment(rng: random.Random) -> Arguments:
    count, channels, height, width = rng.randint(0, 3), _size(rng, 4), _size(rng, 20), _size(rng, 20)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)
    sizes = (
        torch.tensor([[height, width]] * count, dtype=torch.int64).view(-1, 2) if rng.random() < 0.5 else None
    )
    rectangle = _rule(rng, [2]) if rng.random() < 0.5 else []
    polygon = _rule(rng, [0, 1]) if rng.random() < 0.5 else []
    return [
        images, sizes, *_seed(rng), _size(rng, 20), _size(rng, 20), rng.randint(0, 5), rng.choice([0, 2**31]),
        [0.5] * channels, [0.2] * channels, rectangle, [0.0, 255.0] if rectangle else [],
        polygon, [0.0, 255.0] if polygon else [], rng.choice([torch.float32, torch.float16, torch.bfloat16]),
    ]  # fmt: skip


def _graph(rng: random.Random) -> list[Any]:
    return [rng.choice([1, 2, 5]), rng.random() < 0.5, rng.randrange(5)]


def similarity_graph(rng: random.Random) -> Arguments:
    batch, height, width = rng.randint(0, 4), _size(rng), _size(rng)
    precise = rng.choice(DTYPES[:2])
    theta = (
        torch.rand(rng.choice([1, batch or 1]), height, width, dtype=precise) if rng.random() < 0.5 else None
    )
    values = torch.randn(batch, height, width, dtype=precise)
    return [values, theta, *_graph(rng), rng.random() < 0.5]


def similarity_graph_backward(rng: random.Random) -> Arguments:
    values, theta, *graph, _ = similarity_graph(rng)
    return [torch.randn_like(values), values, theta, *graph]


class _Module:
    """One module's sizes and the tensors between its passes, by the names of csrc/library.cpp."""

    def __init__(self, rng: random.Random) -> None:
        ops = torch.ops.reid_ops
        images, channels, height, width = rng.randint(0, 3), _size(rng), rng.randint(4, 8), rng.randint(2, 8)
        dtype = _float(rng)
        self.precise = torch.float64 if dtype == torch.float64 else torch.float32
        self.rows, self.columns = rng.choice([([1, 2, 4], [1, 1, 1]), ([1], [1]), ([1, 2], [1, 2])])
        maps = sum(r * c for r, c in zip(self.rows, self.columns, strict=True))
        levels, self.scales = len(self.rows), rng.choice([[1, 2, 3], [2]])
        self.graph = [self.scales, rng.randrange(6), *_graph(rng)]
        self.sizes = [height, width, self.rows, self.columns]
        self.x = torch.randn(images, channels, height, width).to(dtype)
        if rng.random() < 0.5:
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

    def calls(self, rng: random.Random) -> dict[str, Arguments]:
        tables = [self.channel, self.mean]
        fixed = [self.mean_table, self.inverse]
        some, other = rng.random() < 0.5, rng.random() < 0.5
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


def _of_module(name: str) -> Callable[[random.Random], Arguments]:
    return lambda rng: _Module(rng).calls(rng)[name]


_PASSES = _Module(random.Random(0)).calls(random.Random(0))


def stripe_pool(rng: random.Random) -> Arguments:
    stripes = _size(rng)
    x = torch.randn(rng.randint(0, 3), _size(rng, 40), stripes * _size(rng, 4), _size(rng, 9)).to(_float(rng))
    if rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    return [x, stripes, rng.random() < 0.5]


def stripe_pool_backward(rng: random.Random) -> Arguments:
    x, stripes, _ = stripe_pool(rng)
    output, argmax = torch.ops.reid_ops.stripe_pool(x, stripes, True)
    return [torch.randn_like(output), argmax, stripes, *x.shape[2:], rng.random() < 0.5]


CALLS: dict[str, Callable[[random.Random], Arguments]] = {
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
}


# ------------------------------------------------------------------ and wrong


def _other_tensor(rng: random.Random, tensor: Tensor) -> Any:
    """Another shape, type, layout or other values; or nothing."""
    shape = list(tensor.shape)
    kind = rng.randrange(8)
    if kind == 0 and rng.random() < 0.1:  # torch takes a tenth of a second to say no
        return None
    if kind == 1:
        return torch.zeros([rng.randint(0, 4) for _ in range(rng.randint(0, 5))], dtype=tensor.dtype)
    if kind == 2 and shape:
        shape[rng.randrange(len(shape))] = rng.choice([0, 1, 2, 3, 9])
        return torch.ones(shape, dtype=tensor.dtype)
    if kind == 3:
        return tensor.to(rng.choice(DTYPES))
    if kind == 4:
        return torch.zeros((), dtype=tensor.dtype).expand(shape)  # all elements are one
    if kind == 5 and tensor.dim() >= 2:
        return tensor.transpose(*rng.sample(range(tensor.dim()), 2))
    if kind == 6 and tensor.dtype == torch.int64:
        return torch.tensor([rng.choice(INTEGERS) for _ in range(tensor.numel())]).view(shape)
    if kind == 7 and tensor.is_floating_point():
        return torch.full(shape, rng.choice(NUMBERS), dtype=torch.float64).to(tensor.dtype)
    return tensor.unsqueeze(0) if rng.random() < 0.5 else tensor.flatten()


def _other(rng: random.Random, value: Any) -> Any:
    if isinstance(value, Tensor):
        return _other_tensor(rng, value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(INTEGERS)
    if isinstance(value, float):
        return rng.choice(NUMBERS)
    if isinstance(value, list):
        if not value or rng.random() < 0.3:
            return [rng.choice(INTEGERS) for _ in range(rng.randrange(12))]
        changed = list(value)
        changed[rng.randrange(len(changed))] = _other(rng, value[0])
        return changed
    if value is None:
        return rng.choice([torch.zeros(2, dtype=torch.int64), torch.rand(2, 3, 4, 4), torch.zeros(0)])
    return rng.choice(DTYPES)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}/{value.stride()}"
    return repr(value)


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [t for t in result if isinstance(t, Tensor)]


def campaign(library: str, calls: int, seed: int, names: list[str], log: str | None) -> Counter:
    """Counts of what the calls came to; the call under way is in the file ``log``."""
    counts: Counter = Counter()
    for number in range(calls):
        rng = random.Random(f"{seed} {number}")
        torch.manual_seed(number)
        name = rng.choice(names)
        arguments = CALLS[name](rng)
        wrong = rng.choice([0, 1, 1, 1, 2, 3])
        for place in rng.sample(range(len(arguments)), min(wrong, len(arguments))):
            arguments[place] = _other(rng, arguments[place])
        if log is not None:
            with open(log, "w") as file:
                file.write(f"call {number}: {name}({', '.join(map(_described, arguments))})\n")
        faulthandler.dump_traceback_later(SECONDS_A_CALL, exit=True)
        try:
            result = getattr(getattr(torch.ops, library), name)(*arguments)
        except REFUSALS as error:
            counts["refused"] += 1
            if wrong == 0:
                raise AssertionError(f"call {number} of {name} is right, but was refused") from error
            continue
        finally:
            faulthandler.cancel_dump_traceback_later()
        counts["answered"] += 1
        if wrong == 0 and all(tensor.numel() for tensor in _tensors(arguments)):  # means of nothing are NaN
            finite = all(t.isfinite().all() for t in _tensors(result) if t.is_floating_point())
            assert finite, f"call {number} of {name}: a result that is not finite"
    return counts


def main() -> None:
    """One campaign; a line of JSON says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", default="reid_ops")
    parser.add_argument("--load", help="a file with that library")
    parser.add_argument("--log", help="a file for the call under way, which a signal leaves behind")
    parser.add_argument("--operator", nargs="*", default=list(CALLS), choices=list(CALLS))
    options = parser.parse_args()
    faulthandler.enable()
    reid_ops._extension.require()
    if options.load:
        torch.ops.load_library(options.load)
        reid_ops._dispatch.add_library(options.library)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    print(json.dumps(campaign(options.library, options.calls, options.seed, options.operator, options.log)))


if __name__ == "__main__":
    main()
