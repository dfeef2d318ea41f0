"""The benchmark harness: its arithmetic, and its checks of what is timed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import reid_ops
import reid_ops.reference
from benchmarks import __main__ as command
from benchmarks.harness.check import CheckFailed, check_ours, ours_outcome, refusal
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import LoadWatch
from benchmarks.harness.model import Case, Formulation, Mode, Work
from benchmarks.harness.runner import Settings, run_benchmark
from benchmarks.part_correlation import BENCHMARK, FORMULATIONS, MODES, _sizes, make_inputs, work
from tests.benchmark_support import skip_measuring_the_machine

CPU = torch.device("cpu")
BY_REFERENCE = dataclasses.replace(BENCHMARK, ours=reid_ops.reference.part_correlation)
SMALL = {
    "odd": _sizes(2, 3, 7, 5, 3),
    "even": _sizes(2, 3, 6, 5, (4, 2), parts=2),
    "1x1": _sizes(3, 2, 4, 4, 1),
    "filter larger than the map": _sizes(1, 2, 3, 2, 6),
    "query's parts": _sizes(4, 3, 6, 5, 3, signals=4, part_sets=1),
    "query's signal": _sizes(4, 3, 6, 5, 4, signals=1, part_sets=4),
    "all pairs": _sizes(6, 2, 6, 5, 3, signals=3, part_sets=2),
}


@pytest.fixture
def quick_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round figures in place of measured rates, for one test."""
    skip_measuring_the_machine(monkeypatch)


# ------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize(
    ("level", "mflop", "mflop_in_bounds", "signals", "filters", "outputs", "pooled"),
    [
        ("L2", 69.12, 54.00, 460_800, 230_400, 1_382_400, 368_640),
        ("L3", 4.61, 3.68, 122_880, 57_600, 368_640, 92_160),
        ("L4", 0.41, 0.32, 30_720, 20_736, 92_160, 23_040),
    ],
)
def test_work_is_that_of_the_paper(
    level: str, mflop: float, mflop_in_bounds: float, signals: int, filters: int, outputs: int, pooled: int
) -> None:
    # a pair of images is two directions, hence two rows of a batch
    pair = Case(level, {**BENCHMARK.case(f"{level} N=16").sizes, "batch": 2})
    forward, with_pool, backward, _ = (work(pair, mode, 4) for mode in MODES)
    assert round(forward.flops / 1e6, 2) == mflop
    assert round(forward.flops_in_bounds / 1e6, 2) == mflop_in_bounds
    assert (forward.bytes_read, forward.bytes_written) == (signals + filters, outputs)
    assert (with_pool.bytes_read, with_pool.bytes_written) == (signals + filters, pooled)
    assert with_pool.flops == forward.flops
    assert backward.flops == 3 * forward.flops
    assert backward.bytes_read == 2 * (signals + filters) + outputs
    assert backward.bytes_written == outputs + signals + filters


def test_batch_totals_are_those_of_the_paper() -> None:
    # 64 pairs of images
    total = work(Case("L2", {**BENCHMARK.case("L2 N=64").sizes, "batch": 128}), MODES[0], 4)
    assert round(total.flops / 1e9, 2) == 4.42
    assert round((total.bytes_read + total.bytes_written) / 1e6, 1) == 132.7


@pytest.mark.parametrize("name", SMALL)
def test_taps_in_bounds_are_counted_right(name: str) -> None:
    sizes = SMALL[name]
    case = Case(name, {**sizes, "batch": 1, "channels": 1, "parts": 1})
    ones = torch.ones(1, 1, sizes["height"], sizes["width"])
    taps = reid_ops.reference.part_correlation(
        ones, torch.ones(1, 1, 1, sizes["kernel_height"], sizes["kernel_width"])
    )
    assert work(case, MODES[0], 4).flops_in_bounds == 2 * int(taps.sum())


def test_a_pairs_list_reads_shared_rows_once() -> None:
    case = Case("retrieval", SMALL["query's parts"])
    inputs = make_inputs(case, torch.float32, CPU, 0)
    assert work(case, MODES[0], 4).bytes_read == inputs.bytes()


def test_floor_is_the_larger_of_the_two(quick_floors: None) -> None:
    memory_bound = Floors("cpu").floor(Work(10, 10, 10**10, 10**10), torch.float32)
    compute_bound = Floors("cpu").floor(Work(10**12, 10**11, 10, 10), torch.float32)
    assert (memory_bound.bound, memory_bound.seconds) == ("memory", 1.0)
    assert (compute_bound.bound, compute_bound.seconds) == ("compute", 1.0)


# ------------------------------------------------------------------------------------------ contenders


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", SMALL)
def test_formulations_equal_the_reference(name: str, mode: Mode) -> None:
    case = Case(name, SMALL[name])
    inputs = make_inputs(case, torch.float64, CPU, 0)
    check_ours(BY_REFERENCE, case, mode, inputs)
    expected, gradient = ours_outcome(BY_REFERENCE, mode, inputs)
    applicable = [entry for entry in FORMULATIONS if entry.applies(case, mode, torch.float64)]
    assert len(applicable) >= 5
    for entry in applicable:
        assert refusal(BENCHMARK, entry.function, mode, inputs, expected, gradient) is None, entry.name


def test_every_formulation_is_tried_here() -> None:
    cases = [Case(name, sizes) for name, sizes in SMALL.items()]
    for entry in FORMULATIONS:
        assert any(entry.applies(case, mode, torch.float32) for case in cases for mode in MODES), entry.name


def test_gradient_mask_leaves_out_ties_only() -> None:
    signal = torch.tensor([[[[1.0, 1.0, 3.0, 2.0], [0.0, 0.5, 0.0, 0.0]]]])
    inputs = dataclasses.replace(
        make_inputs(Case("tie", _sizes(1, 1, 2, 4, 1, parts=1)), torch.float32, CPU, 0),
        differentiable=(signal, torch.ones(1, 1, 1, 1, 1)),
    )
    mask = BENCHMARK.gradient_mask(inputs, BENCHMARK.mode("forward + backward + pool"))
    assert mask is not None and mask.flatten().tolist() == [0.0, 1.0]


def _unpadded_side(signal: torch.Tensor, parts: torch.Tensor, **options: Any) -> torch.Tensor:
    return reid_ops.reference.part_correlation(signal, parts.flip(-1), **options)


def _not_a_number(signal: torch.Tensor, parts: torch.Tensor, **options: Any) -> torch.Tensor:
    return reid_ops.reference.part_correlation(signal, parts, **options) * float("nan")


def _strided(signal: torch.Tensor, parts: torch.Tensor, **options: Any) -> torch.Tensor:
    output = reid_ops.reference.part_correlation(signal, parts, **options)
    return output.contiguous(memory_format=torch.channels_last)


def _wrong_gradient(signal: torch.Tensor, parts: torch.Tensor, **options: Any) -> torch.Tensor:
    return reid_ops.reference.part_correlation(signal, parts.detach() + 0 * parts, **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(_unpadded_side, "output: largest error"), (_not_a_number, "error nan"), (_strided, "not contiguous")],
)
def test_a_wrong_kernel_is_refused(
    wrong: Any,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    quick_floors: None,
) -> None:
    monkeypatch.setattr(reid_ops, "part_correlation", wrong)
    path = tmp_path / "result.json"
    assert command.main(["part_correlation", "--size", "L4", "--quick", "--json", str(path)]) == 1
    assert not path.exists()
    error = capsys.readouterr().err
    assert "check failed, nothing written" in error and "L4 N=16" in error and message in error


def test_a_wrong_gradient_is_refused() -> None:
    case = Case("odd", SMALL["odd"])
    wrong = dataclasses.replace(BENCHMARK, ours=_wrong_gradient)
    inputs = make_inputs(case, torch.float64, CPU, 0)
    check_ours(wrong, case, BENCHMARK.mode("forward"), inputs)
    with pytest.raises(CheckFailed, match="gradient 1"):
        check_ours(wrong, case, BENCHMARK.mode("forward + backward"), inputs)


def test_a_rival_that_computes_something_else_is_not_timed(quick_floors: None) -> None:
    rivals = (Formulation("strided", _strided), Formulation("flipped", _unpadded_side), FORMULATIONS[0])
    benchmark = dataclasses.replace(BY_REFERENCE, formulations=rivals)
    settings = Settings(rounds=7, minimum_seconds=1e-4, compile=False, memory=False)
    cases = (Case("odd", SMALL["odd"]),)
    records = run_benchmark(
        benchmark, cases, MODES[:1], (torch.float32,), settings, Floors("cpu"), LoadWatch()
    )
    (record,) = list(records)
    assert set(record["contenders"]) == {"ours", "grouped"}
    assert set(record["refused"]) == {"strided", "flipped"}
    assert record["fastest"] == {"eager": "grouped", "handwritten": None, "compiled": None}


def test_a_slow_rival_is_called_once(quick_floors: None) -> None:
    calls = 0

    def counted(*arguments: torch.Tensor, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return reid_ops.reference.part_correlation(*arguments, **options)

    benchmark = dataclasses.replace(
        BY_REFERENCE, formulations=(Formulation("slow", counted), FORMULATIONS[0])
    )
    settings = Settings(rounds=7, minimum_seconds=1e-4, compile=False, memory=False, slow=0.0, prune=1e9)
    cases = (Case("odd", SMALL["odd"]),)
    (record,) = run_benchmark(
        benchmark, cases, MODES[:1], (torch.float32,), settings, Floors("cpu"), LoadWatch()
    )
    assert calls == 1
    timed = record["contenders"]["slow"]
    assert len(timed["rounds"]) == 1 and timed["median"] > 0
    assert timed["median_of_round_ratios"] == timed["ratio_of_medians"]
    assert len(record["contenders"]["ours"]["rounds"]) == 7 and record["fastest"]["eager"]


def test_compiles_only_the_rows_named_and_once_for_all_threads(
    quick_floors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any] | None] = []

    def compiled(function: Any, *, dynamic: bool, options: dict[str, Any] | None) -> Any:
        made.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    benchmark = dataclasses.replace(
        BY_REFERENCE,
        formulations=FORMULATIONS[:1],
        compiles=lambda case, mode, device: case.name == "odd" and mode.name == "forward" and device == "cpu",
        compile_options={"cpp.dynamic_threads": True},
    )
    settings = Settings(threads=(1, 2), rounds=7, minimum_seconds=1e-4, memory=False)
    cases = tuple(Case(name, SMALL[name]) for name in ("odd", "even"))
    modes = tuple(benchmark.mode(name) for name in ("forward", "forward + backward"))
    records = list(
        run_benchmark(benchmark, cases, modes, (torch.float32,), settings, Floors("cpu"), LoadWatch())
    )
    assert made == [{"cpp.dynamic_threads": True}]
    compiled_rows = [
        (r["case"], r["mode"], r["threads"]) for r in records if "compiled grouped" in r["contenders"]
    ]
    assert compiled_rows == [("odd", "forward", 1), ("odd", "forward", 2)]
