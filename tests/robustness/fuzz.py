"""Random calls of the public functions and of the raw operators: an answer or an error, never a signal.

    python -m tests.robustness.fuzz public --calls 100000
    python -m tests.robustness.fuzz raw --calls 100000 --seed 7

A call follows from the seed and its number alone, so that one that fails can be made again: `--first N
--calls 1`. Calls are made in a process of their own, which has a limit of memory, and which is watched:
a call of more than 20 seconds is a hang. An answer may have no NaN where nothing of what was given has one;
errors are ValueError, TypeError, RuntimeError or MemoryError, with a text.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import math
import os
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
MEMORY = 6 << 30  # bytes of address space beyond what the libraries take
HANG = 20.0  # seconds
MODULE = "tests.robustness.fuzz"
EXPECTED = (ValueError, TypeError, RuntimeError, MemoryError)
DTYPES = (torch.float32,) * 4 + (
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int64,
    torch.int32,
)
ODD = (
    None,
    -1,
    0,
    1,
    2,
    7,
    2**31,
    2**63 - 1,
    -(2**63),
    2**70,
    0.0,
    -0.5,
    0.5,
    1e30,
    math.nan,
    math.inf,
    "x",
    "",
    [],
    (),
    [1, 2],
    {},
    True,
    b"a",
)

Call = tuple[str, Callable[..., Any], list[Any], dict[str, Any]]


class Chance:
    """Everything that is drawn for one call."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = np.random.default_rng((seed, number))
        self.finite = True  # all that was drawn so far

    def pick(self, values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def size(self, least: int = 1, most: int = 9) -> int:
        return int(self.random.integers(least, most + 1))

    def tensor(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Mostly ordinary numbers, at times such as people wish they never had; in any layout."""
        dtype = self.pick(DTYPES) if dtype is None else dtype
        kind = self.pick(("normal",) * 9 + ("zero", "nan", "infinite", "huge", "tiny", "same"))
        values = self.random.standard_normal(shape)
        if not dtype.is_floating_point:
            values = self.random.integers(-1 if dtype != torch.uint8 else 0, 9, shape).astype(np.float64)
        elif kind in ("nan", "infinite"):
            self.finite = False
            values = np.where(
                self.random.random(shape) < 0.3, math.nan if kind == "nan" else math.inf, values
            )
        elif kind in ("huge", "tiny"):
            self.finite = False  # they overflow, or their differences do
            values = values * (1e38 if kind == "huge" else 1e-40)
        if kind in ("zero", "same"):
            values = values * 0 + (kind == "same")
        tensor = torch.from_numpy(np.asarray(values)).to(dtype)
        layout = self.pick(("plain",) * 6 + ("channels_last", "turned", "every other"))
        if layout == "channels_last" and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        if layout == "turned" and tensor.dim() >= 2:
            return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
        if layout == "every other" and tensor.dim():
            return torch.repeat_interleave(tensor, 2, dim=-1)[..., ::2]
        return tensor

    def any_tensor(self) -> Tensor:
        return self.tensor(*(self.size(0, 5) for _ in range(self.size(0, 5))))

    def odd(self) -> Any:
        return self.any_tensor() if self.random.random() < 0.4 else self.pick(ODD)


def public(chance: Chance) -> Call:
    """A call that is right, or was before one or two of its arguments were replaced."""
    import reid_ops

    name, make = chance.pick(list(PUBLIC.items()))
    arguments, options = make(chance)
    for _ in range(chance.pick((0, 0, 1, 1, 2))):
        chance.finite = False  # what a wrong argument means is not known here
        place = chance.size(0, len(arguments) + len(options) - 1)
        if place < len(arguments):
            arguments[place] = chance.odd()
        else:
            options[list(options)[place - len(arguments)]] = chance.odd()
    function: Any = reid_ops
    for part in name.split("."):
        function = getattr(function, part)
    return name, function, arguments, options


def raw(chance: Chance) -> Call:
    """A call of an operator: a public function's, with arguments spoilt, or one by its schema alone."""
    import reid_ops  # noqa: F401  (registers them)

    chance.finite = False
    if chance.random.random() < 0.8:
        recorded = _recorded(chance)
        if recorded:
            operator, arguments = chance.pick(recorded)
            arguments = list(arguments)
            for _ in range(chance.pick((1, 1, 2))):
                place = chance.size(0, len(arguments) - 1)
                arguments[place] = _spoilt(chance, arguments[place])
            return operator._schema.name, operator, arguments, {}
    everything = (name for name in torch._C._dispatch_get_all_op_names() if name.startswith("reid_ops::"))
    names = sorted({name.split("::")[1].split(".")[0] for name in everything})
    operator = getattr(torch.ops.reid_ops, chance.pick(names)).default
    sizes = [chance.size(0, 4) for _ in range(6)]
    arguments = [_of_type(chance, str(argument.type), sizes) for argument in operator._schema.arguments]
    return operator._schema.name, operator, arguments, {}


class _Recorder(TorchDispatchMode):
    """Keeps the operators' calls, with copies of what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "reid_ops":
            self.calls.append((func, tuple(a.clone() if isinstance(a, Tensor) else a for a in args)))
        return func(*args, **(kwargs or {}))


def _recorded(chance: Chance) -> list[tuple[Any, tuple[Any, ...]]]:
    """The operators' calls that a right call of a public function or of HSGM makes, forward and backward."""
    import reid_ops

    with _Recorder() as recorder, contextlib.suppress(*EXPECTED):
        if chance.random.random() < 0.3:
            shape = (chance.size(1, 3), chance.size(1, 5), 4 * chance.size(1, 2), chance.size(1, 6))
            module = reid_ops.HSGM(*shape[1:]).train(chance.random.random() < 0.6)
            module(torch.randn(shape, requires_grad=True)).sum().backward()
        else:
            name, make = chance.pick(list(PUBLIC.items()))
            arguments, options = make(chance)
            for argument in arguments:
                if (
                    isinstance(argument, Tensor)
                    and argument.is_floating_point()
                    and not options.get("inplace")
                ):
                    argument.requires_grad_()
            function: Any = reid_ops
            for part in name.split("."):
                function = getattr(function, part)
            for answer in numbers(function(*arguments, **options)):
                if answer.requires_grad:
                    answer.sum().backward(retain_graph=True)
    return recorder.calls


def _spoilt(chance: Chance, value: Any) -> Any:
    """Another value of the same type: the wrong size, the wrong numbers, at times the wrong type."""
    if isinstance(value, Tensor) and chance.random.random() < 0.9:
        kind = chance.pick(("shorter", "longer", "numbers", "numbers", "empty", "dtype", "turned"))
        if kind == "numbers" and not value.is_floating_point():
            wrong = torch.from_numpy(
                chance.random.choice([-(2**31), -1, 0, 1, 5, 2**20, 2**31 - 1], value.shape)
            )
            some = torch.from_numpy(chance.random.random(value.shape) < 0.4)
            return torch.where(some, wrong.to(value.dtype), value)
        if kind == "numbers":
            return torch.full_like(value, chance.pick((math.nan, math.inf, -1.0, 6e4, 0.0)))
        if kind == "dtype":
            return value.to(chance.pick(DTYPES))
        if kind == "turned" and value.dim() >= 2:
            return value.transpose(0, -1)
        if value.dim():
            axis = chance.size(0, value.dim() - 1)
            length = {"shorter": max(value.shape[axis] - 1, 0), "empty": 0}.get(kind)
            return torch.cat([value, value], axis) if length is None else value.narrow(axis, 0, length)
        return value[None]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)) and chance.random.random() < 0.9:
        return _of_type(chance, type(value).__name__, [])
    if isinstance(value, (list, tuple)) and value and chance.random.random() < 0.9:
        inner = list(value)
        inner[chance.size(0, len(inner) - 1)] = _spoilt(chance, inner[0])
        return inner
    return chance.odd()


def _of_type(chance: Chance, kind: str, sizes: list[int]) -> Any:
    if kind.startswith("Optional["):
        return None if chance.random.random() < 0.4 else _of_type(chance, kind[9:-1], sizes)
    if kind.startswith("List["):
        return [_of_type(chance, kind[5:-1], sizes) for _ in range(chance.size(0, 6))]
    if kind == "Tensor":
        shape = [chance.pick(sizes) for _ in range(chance.size(0, 5))]
        dtype = chance.pick(
            (torch.float32, torch.float32, torch.int64, torch.int32, torch.int16, torch.float64)
        )
        return chance.tensor(*shape, dtype=dtype)
    if kind == "int":
        return chance.pick((-1, 0, 1, 1, 2, 2, 3, 5, 8, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)))
    if kind in ("float", "number"):
        return chance.pick((0.0, 0.5, 1.0, -1.0, 1e300, math.nan, math.inf))
    if kind == "bool":
        return bool(chance.size(0, 1))
    return chance.pick((torch.float32, torch.float16)) if kind == "ScalarType" else chance.odd()


def _signal_and_parts(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    n, p, c, dtype = chance.size(0, 4), chance.size(1, 3), chance.size(1, 5), chance.pick(DTYPES[:7])
    signal = chance.tensor(n, c, chance.size(), chance.size(), dtype=dtype)
    return [signal, chance.tensor(n, p, c, chance.size(1, 5), chance.size(1, 5), dtype=dtype)], {
        "pool": chance.size(1, 3)
    }


def _graph(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    grid = chance.random.random() < 0.5
    shape = (chance.size(0, 3), chance.size(), chance.size()) if grid else (chance.size(0, 3), chance.size())
    dtype = chance.pick((torch.float32, torch.float64))
    return [chance.tensor(*shape, dtype=dtype), chance.tensor(*shape[1:], dtype=dtype)], {
        "include_self": bool(chance.size(0, 1)), "edges": chance.pick(("softmax", "product", "negdist")),
    }  # fmt: skip


def _images(chance: Chance) -> Tensor:
    dtype = chance.pick((torch.uint8, torch.float32, torch.float16))
    return chance.tensor(
        chance.size(0, 3), chance.size(1, 4), chance.size(1, 20), chance.size(1, 20), dtype=dtype
    )


def _erasing(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    return [_images(chance)], {
        "p": chance.pick((0.0, 0.5, 1.0)),
        "seed": chance.size(0, 99),
        "inplace": bool(chance.size(0, 1)),
    }


def _augment(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    images = chance.tensor(chance.size(0, 3), 3, chance.size(1, 20), chance.size(1, 20), dtype=torch.uint8)
    size = (images.shape[2], images.shape[3])
    return [images], {
        "size": size,
        "pad": chance.size(0, 4),
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
        "seed": 1,
        "erase": 0.5,
    }


def _features(chance: Chance, *counts: int) -> list[Any]:
    width, dtype = (
        chance.size(1, 9),
        chance.pick((torch.float32, torch.float32, torch.float64, torch.float16)),
    )
    return [chance.tensor(count, width, dtype=dtype) for count in counts]


def _rerank(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    k1 = chance.size(1, 6)
    return _features(chance, chance.size(1, 6), chance.size(1, 9)), {
        "k1": k1,
        "k2": chance.size(1, k1),
        "lambda_value": 0.3,
    }


def _distances(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    q, g = chance.size(1, 5), chance.size(1, 9)
    shapes = ((q, g), (q, q), (g, g))
    return [chance.tensor(*shape, dtype=torch.float32).abs() for shape in shapes], {
        "k1": chance.size(1, 5),
        "k2": 1,
    }


def _ranking(chance: Chance) -> tuple[list[Any], dict[str, Any]]:
    q, g = chance.size(1, 5), chance.size(1, 9)
    labels = [chance.random.integers(-1, 3, n) for n in (q, g, q, g)]
    return [chance.tensor(q, g, dtype=torch.float32), *labels], {"ranks": (1, 5)}


#: Right arguments of the public functions.
PUBLIC: dict[str, Callable[[Chance], tuple[list[Any], dict[str, Any]]]] = {
    "part_correlation": _signal_and_parts,
    "similarity_graph": _graph,
    "polygon_erase": _erasing,
    "random_erase": _erasing,
    "occlude": lambda chance: ([_images(chance)], {"kind": "polygon", "level": 0.3, "seed": 1}),
    "augment": _augment,
    "k_reciprocal_rerank": _rerank,
    "k_reciprocal_rerank_from_distance": _distances,
    "jaccard_distance": lambda chance: (
        _features(chance, chance.size(1, 9)),
        {"k1": chance.size(1, 5), "k2": 1},
    ),
    "pairwise_distance": lambda chance: (_features(chance, chance.size(0, 5), chance.size(0, 5)), {}),
    "expand_queries": lambda chance: (_features(chance, chance.size(1, 5), chance.size(1, 9)), {"k": 1}),
    "metrics.evaluate_ranking": _ranking,
    "metrics.single_shot_cmc": _ranking,
    "stripe_pool": lambda chance: (
        [chance.tensor(chance.size(0, 3), chance.size(0, 5), 6, chance.size())],
        {"stripes": 6},
    ),
}


def numbers(value: Any) -> Iterator[Tensor]:
    """The tensors of floating-point numbers of an answer."""
    if isinstance(value, (tuple, list)):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, np.ndarray):
        yield from numbers(torch.from_numpy(value))
    elif isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
        yield value


def judge(call: Call, chance: Chance) -> str:
    """What came of a call: "answer", an expected error's name, or what is wrong, starting with "!"."""
    _, function, arguments, options = call
    try:
        answer = function(*arguments, **options)
    except EXPECTED as error:
        return (
            type(error).__name__
            if str(error) or isinstance(error, MemoryError)
            else "! an error without a text"
        )
    except Exception as error:
        return f"! {type(error).__name__}: {error}"
    if chance.finite and any(bool(tensor.isnan().any()) for tensor in numbers(answer)):
        return "! NaN from finite numbers"
    return "answer"


def describe(call: Call) -> str:
    def shown(value: Any) -> str:
        return (
            f"{value.dtype}{tuple(value.shape)}" if isinstance(value, (Tensor, np.ndarray)) else repr(value)
        )

    name, _, arguments, options = call
    words = [*map(shown, arguments), *(f"{key}={shown(value)}" for key, value in options.items())]
    return f"{name}({', '.join(words)})"


def run_here(kind: str, seed: int, first: int, calls: int, progress: Path) -> int:
    """Makes the calls in this process; its last line is what came of them."""
    faulthandler.enable()
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    import reid_ops

    PUBLIC_HERE = [name for name in PUBLIC if hasattr(reid_ops, name.split(".")[0])]
    for name in [name for name in PUBLIC if name not in PUBLIC_HERE]:
        del PUBLIC[name]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    make = {"public": public, "raw": raw}[kind]
    outcomes: Counter[str] = Counter()
    with progress.open("wb", buffering=0) as file:
        for number in range(first, first + calls):
            os.pwrite(file.fileno(), f"{number:12d}".encode(), 0)
            chance = Chance(seed, number)
            call = make(chance)
            outcome = judge(call, chance)
            if outcome.startswith("!"):
                print(f"call {number}: {describe(call)}: {outcome[2:]}", flush=True)
                outcome = "wrong"
            outcomes[outcome] += 1
    print(f"{calls} calls: {dict(outcomes.most_common())}", flush=True)
    return 1 if outcomes["wrong"] else 0


def run(kind: str, seed: int, first: int, calls: int) -> tuple[list[str], int]:
    """Makes the calls in watched processes; a signal or a hang ends one, and the next goes on behind it.

    Returns:
        What was wrong, and how many calls were made.
    """
    wrong: list[str] = []
    end = first + calls
    with TemporaryDirectory() as folder:
        progress = Path(folder) / "progress"
        while first < end:
            progress.write_text("")
            words = [sys.executable, "-m", MODULE, kind, "--here", str(progress)]
            words += ["--seed", str(seed), "--first", str(first), "--calls", str(end - first)]
            with (Path(folder) / "output").open("w+") as output:
                with subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT) as child:
                    hangs = _watch(child, progress)
                output.seek(0)
                text = output.read()
            wrong += [line for line in text.splitlines() if line.startswith("call ")]
            if child.returncode in (0, 1) and f"{end - first} calls: " in text:
                break
            at = int(progress.read_text().strip() or first)
            what = "hangs" if hangs else f"ends the process ({child.returncode})"
            wrong.append(f"call {at}: {what}; {text[-600:]}")
            first = at + 1
    return wrong, calls


def _watch(child: subprocess.Popen[bytes], progress: Path) -> bool:
    """Waits for the process; kills it if one call takes too long."""
    last, since = "", time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        now = progress.read_text()
        if now != last:
            last, since = now, time.monotonic()
        # The first call comes after the libraries were imported, on a machine that may be busy.
        elif time.monotonic() - since > (HANG if last.strip() else 10 * HANG):
            child.kill()
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("public", "raw"))
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return run_here(options.kind, options.seed, options.first, options.calls, options.here)
    wrong, calls = run(options.kind, options.seed, options.first, options.calls)
    print("\n".join([*wrong, f"{options.kind}: {calls} calls, {len(wrong)} wrong"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
