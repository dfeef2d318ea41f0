"""The benchmark harness: its arithmetic, its checks, its timing, and the README's table."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import reid_ops
import reid_ops.reference
from benchmarks import __main__ as command
from benchmarks.harness import memory, readme, report
from benchmarks.harness.check import CheckFailed, check_ours, ours_outcome, refusal
from benchmarks.harness.floors import Floors
from benchmarks.harness.machine import BUSY_SHARE, LoadWatch, slug
from benchmarks.harness.model import Case, Formulation, Mode, Work
from benchmarks.harness.registry import discover
from benchmarks.harness.runner import Settings, run_benchmark
from benchmarks.harness.timing import Samples, calibrate, interleave
from benchmarks.part_correlation import BENCHMARK, FORMULATIONS, MODES, SWEEP, _sizes, make_inputs, work

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


def skip_measuring_the_machine(patch: pytest.MonkeyPatch) -> None:
    """Round figures in place of measured rates."""
    patch.setattr(Floors, "bandwidth", lambda self: 2e10)
    patch.setattr(Floors, "matmul", lambda self, dtype: 5e10)
    patch.setattr(Floors, "convolution", lambda self, dtype: 1e11)
    patch.setattr(LoadWatch, "settle", lambda self: None)


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


# ---------------------------------------------------------------------------------------------- timing


def test_timing_interleaves() -> None:
    order: list[str] = []

    def contender(name: str, seconds: float) -> Any:
        def run(repetitions: int) -> float:
            order.append(name)
            return seconds * repetitions

        return run

    runs = {name: contender(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 0.5))}
    samples = interleave(runs, dict.fromkeys(runs, 1), rounds=7)
    assert order == ["a", "b", "c"] * 7
    assert samples["b"].median_round_ratio(samples["a"]) == 2.0
    order.clear()
    samples = interleave(runs, {"a": 1, "b": 1, "c": 4}, rounds=2)
    assert order == ["a", "b", "c", "c"] * 2  # the first "c" of a round is not counted
    assert samples["c"].seconds == (0.5, 0.5)


def test_statistics() -> None:
    samples = Samples((4.0, 1.0, 2.0, 3.0, 100.0), 1)
    assert (samples.median, samples.minimum, samples.interquartile_range) == (3.0, 1.0, 2.0)


def test_calibration_reaches_the_wanted_length() -> None:
    repetitions, seconds = calibrate(lambda count: 1e-3 * count, 0.02)
    assert repetitions >= 20 and seconds == pytest.approx(1e-3)
    assert calibrate(lambda count: 0.5 * count, 0.02)[0] == 1


def _watch(tmp_path: Path, other_ticks: int) -> LoadWatch:
    """A watch over ten seconds in which we use five and others ``other_ticks`` hundredths."""
    stat = tmp_path / "stat"
    own = itertools.cycle([0.0, 5.0])
    clock = itertools.cycle([0.0, 10.0])

    def own_seconds() -> float:
        return next(own)

    def now() -> float:
        value = next(clock)
        ticks = 700 + (500 + other_ticks if value else 0)
        stat.write_text(f"cpu  {ticks} 0 10 5000 30 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
        return value

    return LoadWatch(stat, own_seconds, now)


@pytest.mark.parametrize(("other_ticks", "busy"), [(0, False), (60, False), (150, True), (1000, True)])
def test_busy_machine_is_noticed(tmp_path: Path, other_ticks: int, busy: bool) -> None:
    watch = _watch(tmp_path, other_ticks)
    with watch.window() as window:
        pass
    assert window.others == pytest.approx(other_ticks / 1000)
    assert window.busy is watch.busy is busy
    assert busy is (other_ticks / 1000 > BUSY_SHARE)
    assert watch.worst == pytest.approx(other_ticks / 1000)


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    watch = LoadWatch(tmp_path / "none")
    with watch.window() as window:
        pass
    assert window.others is None and watch.worst is None and not watch.busy


def test_peak_memory_of_a_process_of_its_own() -> None:
    case, mode = BENCHMARK.case("L2 N=16"), BENCHMARK.mode("forward")
    peak = memory.cpu_peak(BENCHMARK, case, mode, torch.float32, "grouped")
    assert peak is not None
    output = work(case, mode, 4).bytes_written
    assert output <= peak < 20 * output


# --------------------------------------------------------------------------------- command and reports


@pytest.fixture(scope="module")
def kept_document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small run through the command line, read back from its file."""
    path = tmp_path_factory.mktemp("run") / "out" / "result.json"
    arguments = ["part_correlation", "--size", "L4 N=16", "--quick", "--threads", "1", "--json", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        skip_measuring_the_machine(patch)
        patch.setattr(reid_ops, "part_correlation", reid_ops.reference.part_correlation)
        assert command.main(arguments) == 0
    return report.read(path)


@pytest.fixture
def document(kept_document: dict[str, Any]) -> dict[str, Any]:
    """A copy that a test may change."""
    return copy.deepcopy(kept_document)


def test_json_has_what_it_takes_to_judge_it(document: dict[str, Any], tmp_path: Path) -> None:
    assert document["machine"]["cpu"] and document["machine"]["cores"] >= 1
    assert {"torch", "cuda", "build", "commit", "dirty", "date", "arguments", "floors", "busy"} <= set(
        document
    )
    assert [record["mode"] for record in document["records"]] == [mode.name for mode in MODES]
    for record in document["records"]:
        timed = [entry for entry in record["contenders"].values() if "median" in entry]
        assert len(timed) >= 2 and all(len(entry["rounds"]) >= 7 for entry in timed)
        assert record["contenders"]["ours"]["ratio_of_medians"] == 1.0
        assert record["fastest"]["eager"] in record["contenders"]
        assert ("handwritten" in record["contenders"]) is record["backward"]
    again = tmp_path / "again.json"
    report.write(document, again)
    assert report.read(again) == document == json.loads(json.dumps(document))


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("before")
    with pytest.raises(ValueError):
        report.write({"schema": 1, "value": float("nan")}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"] and path.read_text() == "before"
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match=r"result\.json: expected schema 1, got 0"):
        report.read(path)


def test_names_of_kept_results(document: dict[str, Any]) -> None:
    document["machine"] |= {"cpu": "Some CPU (TM) 7", "cores": 8, "gpu": None}
    assert report.kept_path(document).name == "part_correlation-cpu-some-cpu-tm-7-8-cores.json"
    document["arguments"]["sweep"] = True
    assert report.kept_path(document).name.endswith("-8-cores-sweep.json")
    assert slug({"gpu": {"name": "Fast GPU 9"}}) == "fast-gpu-9"


def test_readme_table(document: dict[str, Any], tmp_path: Path) -> None:
    document |= {"busy": False, "others": 0.0}
    results, page = tmp_path / "results", tmp_path / "README.md"
    assert readme.render_block(BENCHMARK, results) == "CPU: not yet measured\n\nGPU: not yet measured"
    report.write(document, results / "part_correlation-cpu-here.json")
    report.write(document, results / "part_correlation-cpu-here-sweep.json")
    block = readme.render_block(BENCHMARK, results)
    table = readme.render_readme_table(document, BENCHMARK)
    assert block == table + "\n\nGPU: not yet measured"
    rows = [line for line in table.splitlines() if line.startswith("| L4 N=16")]
    assert [row.split(" | ")[1] for row in rows] == list(BENCHMARK.readme_modes)
    assert "Provisional" not in table
    assert "Provisional: other processes used 0.50" in readme.render_readme_table(
        document | {"busy": True, "others": 0.5}, BENCHMARK
    )

    begin, end = readme.markers("part_correlation")
    page.write_text(f"# Title\n\n{begin}\nold\n{end}\n\nafter\n")
    assert readme.update_readme(BENCHMARK, page, results)
    assert not readme.update_readme(BENCHMARK, page, results)
    assert readme.block_in(page.read_text(), "part_correlation") == block
    assert page.read_text().startswith("# Title\n") and page.read_text().endswith(f"\n{end}\n\nafter\n")
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="expected the lines <!-- benchmark:part_correlation:begin -->"):
        readme.update_readme(BENCHMARK, page, results)


@pytest.mark.parametrize("name", discover())
def test_readme_shows_the_kept_results(name: str) -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.block_in(text, name) == readme.render_block(discover()[name]), (
        "run: python -m benchmarks --update-readme"
    )


def test_table_says_that_the_machine_was_busy(document: dict[str, Any]) -> None:
    lines = report.footer(document | {"busy": True, "others": 1.25})
    assert lines[0].startswith("WARNING: other processes used 1.25 cores")
    assert not any(line.startswith("WARNING: other") for line in report.footer(document | {"busy": False}))
    assert sum(line.startswith("smallest ratio, ") for line in lines) == len(MODES)


def test_operators_are_discovered() -> None:
    assert discover()["part_correlation"] is BENCHMARK
    for benchmark in discover().values():
        for cases in (benchmark.cases, benchmark.sweep):
            assert len({case.name for case in cases}) == len(cases)
        assert all(benchmark.mode(name) for name in (*benchmark.sweep_modes, *benchmark.readme_modes))
        for device, names in benchmark.readme_cases.items():
            assert all(device in benchmark.case(name).devices for name in names)


def test_sweep_covers_what_it_should() -> None:
    assert len(SWEEP) >= 30
    sizes = [case.sizes for case in SWEEP]
    assert {size["parts"] for size in sizes} >= {1, 3, 4, 5, 6}
    assert any(size["batch"] * size["channels"] < 16 for size in sizes)
    assert {size["kernel_height"] for size in sizes} >= {1, 2, 3, 5, 10, 31}
    assert sum("signals" in size for size in sizes) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_op"], "unknown operator 'no_such_op'; known: "),
        (["--rounds", "3"], "--rounds must be at least 7, got 3"),
        (["--size", "L9"], "no case or mode of that name"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_bad_thread_count(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--threads", "0"])
    assert stop.value.code == 2 and 'expected "all" or a number' in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "part_correlation" in printed and "L2 N=256" in printed and "handwritten" in printed


def test_floor_is_the_larger_of_the_two(quick_floors: None) -> None:
    memory_bound = Floors("cpu").floor(Work(10, 10, 10**10, 10**10), torch.float32)
    compute_bound = Floors("cpu").floor(Work(10**12, 10**11, 10, 10), torch.float32)
    assert (memory_bound.bound, memory_bound.seconds) == ("memory", 1.0)
    assert (compute_bound.bound, compute_bound.seconds) == ("compute", 1.0)
