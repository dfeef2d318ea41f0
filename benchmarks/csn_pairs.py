"""CSN at work: all pairs of 100 x 100 images, and a training step of 64 triples.

    python -m benchmarks.csn_pairs --quick
    python -m benchmarks.csn_pairs --keep          # idle machine

What is compared, with one set of weights and after their scores and losses are seen to agree:

- ``match``: every image encoded once, all pairs in blocks;
- ``pair by pair``: the network called on two images at a time, as the paper describes testing;
- ``PyTorch``: as ``match``, the correlation by the fastest formulation that ``benchmarks.part_correlation``
  has for its size here, found first;
- ``training step``: forward, the losses of Eqs. 3 to 6, backward and Adam for 64 anchors with a positive and
  two negatives each (256 images, 192 pairs), against ``impl="reference"``.

The slow contenders are timed on some of the pairs, and their rate is what is compared. The paper's 781 pairs
a second are a Titan X's (1250 pairs in 1.6 s). Peak memory of scoring is measured in processes of its own.
Needs the extra ``models``.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reid_ops
from benchmarks import part_correlation
from benchmarks.harness import memory, report
from benchmarks.harness.check import CheckFailed
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch, available_cores, why_not_kept

NAME = "csn_pairs"
PAPER = 1250 / 1.6  # pairs a second
IMAGES, TRIPLES = 100, 64
SOME = {"pair by pair": 40, "PyTorch": 1000}
_ROOT = Path(__file__).resolve().parents[1]
_MEMORY = (100, 400)  # gallery images
_LONG = 15.0  # seconds: such a step is not done again


class Replaced(nn.Module):
    """A correlation of the network's signature by a formulation in PyTorch."""

    def __init__(self, formulation: Callable[..., Tensor], pool: int) -> None:
        super().__init__()
        self.formulation, self.pool = formulation, pool

    def forward(self, signal: Tensor, parts: Tensor, pairs: Tensor) -> Tensor:
        """As :class:`reid_ops.PartCorrelation`."""
        return self.formulation(signal, parts, pool=self.pool, pairs=pairs)


def make_network(impl: str = "fused") -> Any:
    """CSN (L2, L3) with batch statistics that keep its scores apart."""
    from reid_models.papers.csn.network import CSN

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = CSN(2, impl=impl)
        model.train()
        with torch.no_grad():
            for _ in range(20):
                model(
                    torch.randn(8, 3, *model.image_size), pairs=torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
                )
    return model.eval()


def make_images(count: int, seed: int) -> Tensor:
    """Normal images of the paper's size."""
    return torch.randn(count, 3, 160, 60, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def fastest_formulations(model: Any, codes: Tensor, pairs: int) -> dict[str, str]:
    """Level -> the name of the quickest formulation for a block of pairs, of those that agree."""
    rows = torch.stack([torch.arange(pairs) % len(codes), torch.arange(pairs) // 3 % len(codes)], dim=1)
    known = {f.name: f for f in part_correlation.FORMULATIONS}
    found, given = {}, model.layout.split(codes)
    for level, correlate in model.correlations.items():
        signal, parts = given.maps[int(level)], given.parts[int(level)]
        expected = correlate(signal, parts, rows)
        seconds = {}
        for name in _names(signal, parts, pairs):
            call = functools.partial(known[name].function, signal, parts, pool=correlate.pool, pairs=rows)
            _agree(name, call(), expected)
            seconds[name] = _quickest(call, 2)
        found[level] = min(seconds, key=seconds.__getitem__)
    return found


def _names(signal: Tensor, parts: Tensor, pairs: int) -> Iterator[str]:
    """Formulations for any rows; patches as columns only where they fit memory."""
    for name in ("grouped", "per_part", "repeated"):
        yield from (name, f"{name}, maxima")
    yield "fourier"
    if pairs * signal[0].numel() * parts.shape[-1] ** 2 <= 1 << 26:
        yield "unfold"


def by_pytorch(model: Any, names: dict[str, str]) -> Any:
    """The same network, its correlations by those formulations."""
    known = {f.name: f for f in part_correlation.FORMULATIONS}
    other = make_network()
    other.load_state_dict(model.state_dict())
    for level, name in names.items():
        other.correlations[level] = Replaced(known[name].function, model.correlations[level].pool)
    return other


@torch.no_grad()
def measure_pairs(images: int, some: dict[str, int]) -> dict[str, Any]:
    """Seconds and pairs a second of the three ways to score; CheckFailed unless their scores agree."""
    model = make_network()
    left, right = make_images(images, 1), make_images(images, 2)
    codes = model.encode(left), model.encode(right)
    names = fastest_formulations(model, codes[0][:16], 16)
    other = by_pytorch(model, names)
    listed = torch.randint(0, images, (max(some.values()), 2), generator=torch.Generator().manual_seed(3))
    scores = model.match(*codes)
    expected = scores[listed[:, 0], listed[:, 1]]

    def one_by_one() -> Tensor:
        found = []
        for a, b in listed[: some["pair by pair"]].tolist():
            found.append(model.match(model.encode(left[a : a + 1]), model.encode(right[b : b + 1]))[0, 0])
        return torch.stack(found)

    def pytorch() -> Tensor:
        return other.match_pairs(*codes, listed[: some["PyTorch"]])

    for name, call in (("pair by pair", one_by_one), ("PyTorch", pytorch)):
        _agree(name, call(), expected[: some[name]])
    encoding = _quickest(lambda: (model.encode(left), model.encode(right)), 3)
    matching = _quickest(lambda: model.match(*codes), 2)
    apart = _quickest(one_by_one, 2) / some["pair by pair"] * images**2
    torch_matching = _quickest(pytorch, 2) / some["PyTorch"] * images**2
    ours, theirs = encoding + matching, encoding + torch_matching
    return {
        "what": "all pairs", "images": images, "pairs": images**2, "formulations": names,
        "encoding": encoding, "matching": matching, "seconds": ours,
        "pair by pair": apart, "PyTorch": theirs,
        "pairs a second": images**2 / ours, "paper, pairs a second": PAPER,
        "over pair by pair": apart / ours, "over PyTorch": theirs / ours,
    }  # fmt: skip


def measure_training(triples: int, rounds: int) -> dict[str, Any]:
    """Seconds of a training step, fused and by the reference; CheckFailed unless the losses agree."""
    anchors = torch.arange(triples) * 4
    pairs = torch.stack([torch.stack([anchors, anchors + i], dim=1) for i in (1, 2, 3)], dim=1).flatten(0, 1)
    images, same = make_images(4 * triples, 5), torch.tensor([1, 0, 0]).repeat(triples)
    seconds: dict[str, float] = {}
    losses: dict[str, Tensor] = {}
    for impl in ("fused", "reference"):
        step = _step(make_network(impl).train(), images, pairs, same)
        begin = time.perf_counter()
        losses[impl] = step()
        first = time.perf_counter() - begin
        seconds[impl] = first if first > _LONG else min(first, _quickest(step, rounds))
    _agree("reference", losses["reference"], losses["fused"])
    return {
        "what": "training step", "triples": triples, "images": 4 * triples, "pairs": len(pairs),
        "seconds": seconds["fused"], "reference": seconds["reference"],
        "over reference": seconds["reference"] / seconds["fused"],
    }  # fmt: skip


def _step(model: Any, images: Tensor, pairs: Tensor, same: Tensor) -> Callable[[], Tensor]:
    """A step whose learning rate is 0: it does all its work, and every one has the same losses."""
    from reid_models.losses import ContrastiveLoss
    from reid_models.papers.csn.losses import TransformPriors

    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, weight_decay=5e-4)
    decide, rank, hold = nn.CrossEntropyLoss(), ContrastiveLoss(1.0), TransformPriors()

    def step() -> Tensor:
        optimizer.zero_grad()
        outputs = model(images, pairs=pairs)
        priors = torch.stack([hold(found) for found in outputs["transforms"]]).mean()
        loss = decide(outputs["logits"], same) + rank(outputs["embeddings"], same) + priors
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def measure_memory(gallery: int) -> dict[str, Any]:
    """Growth of the peak by scoring 10 queries against a gallery, beyond the codes and the scores."""
    model = make_network()
    codes = model.encode(make_images(10, 1)).detach(), torch.empty(gallery, model.feature_length)
    for rows in torch.arange(gallery).split(20):
        codes[1][rows] = model.encode(make_images(len(rows), 2)).detach()
    model.match(codes[0][:1], codes[1][:10])  # loads code and libraries
    return {"memory": memory.growth(lambda: model.match(*codes))}


def _agree(name: str, found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    error = float((found - expected).abs().max())
    if not error <= 1e-3 * scale:  # so that NaN fails
        raise CheckFailed(f"{NAME}: {name} differs by {error:.3g} of {scale:.3g}")


def _quickest(call: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.csn_pairs", description=__doc__.splitlines()[0]
    )
    add = options.add_argument
    add("--quick", action="store_true", help="12 x 12 images, 4 triples, no memory: a first look")
    add("--threads", type=int, default=available_cores(), help="default: %(default)s")
    add("--json", type=Path, metavar="PATH", help="write the results")
    add("--keep", action="store_true", help="write them to benchmarks/results/ under their proper name")
    add("--child", type=int, help=argparse.SUPPRESS)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 0, or 1 if a check failed, or 2 on bad arguments."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(measure_memory(options.child)))
        return 0
    reason = why_not_kept(reid_ops.build_info()["commit"]) if options.keep else None
    if reason:
        print(f"python -m benchmarks.csn_pairs: --keep: {reason}", file=sys.stderr)
        return 2
    try:
        _run(options)
    except CheckFailed as failure:
        print(f"failed, nothing written: {failure}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    watch = LoadWatch()
    watch.settle()
    quick = options.quick
    with watch.window():
        records = [
            measure_pairs(12, {"pair by pair": 6, "PyTorch": 48}) if quick else measure_pairs(IMAGES, SOME),
            measure_training(4 if quick else TRIPLES, 2),
        ]
    for gallery in () if quick else _MEMORY:
        command = [sys.executable, "-m", "benchmarks.csn_pairs", "--threads", str(options.threads)]
        ran = subprocess.run(
            [*command, "--child", str(gallery)], cwd=_ROOT, capture_output=True, text=True, check=True,
            env=memory.ENVIRONMENT,
        )  # fmt: skip
        records.append({"what": "memory", "gallery": gallery, **json.loads(ran.stdout.splitlines()[-1])})
    for record in records:
        print(record, flush=True)
    given = {"quick": quick, "threads": options.threads}
    found = report.document(NAME, "cpu", given, records, Floors("cpu"), watch)
    if found["busy"]:
        print(f"WARNING: other processes used {found['others']:.2f} cores: these figures are no results")
    for path in filter(None, (options.json, report.kept_path(found) if options.keep else None)):
        report.write(found, path)
        print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
