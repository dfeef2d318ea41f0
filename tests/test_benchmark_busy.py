"""Benchmarks on a busy machine: loops that surely end, what is reported, and the kept table."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.__main__ as command
import reid_ops
import reid_ops.reference
from benchmarks.harness import busy, pages, report
from benchmarks.harness.timing import Samples
from tests.benchmark_support import skip_measuring_the_machine

ROOT = Path(__file__).resolve().parent.parent
ROW = ["part_correlation", "--size", "L4 N=16", "--mode", "forward"]


def running(process: int) -> bool:
    """Whether there is such a process, other than a dead one that nobody has waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(map(running, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(running, processes))


def test_loops_last_as_long_as_the_block() -> None:
    with busy.busy_loops(2) as loops:
        assert len(loops) == 2 and all(loop.poll() is None for loop in loops)
    assert all(loop.returncode is not None for loop in loops)


def test_loops_end_when_the_block_raises() -> None:
    with pytest.raises(KeyboardInterrupt), busy.busy_loops(1) as loops:
        raise KeyboardInterrupt
    assert loops[0].returncode is not None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_loops_end_when_the_harness_is_killed() -> None:
    program = (
        "import os, signal\n"
        "from benchmarks.harness.busy import busy_loops\n"
        "with busy_loops(2) as loops:\n"
        "    print(*(loop.pid for loop in loops), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    loops = [int(each) for each in ran.stdout.split()]
    assert len(loops) == 2 and ran.returncode < 0, ran.stderr
    assert wait_until_gone(loops)


def test_slow_down_is_of_medians() -> None:
    found = busy.Slowdown(Samples((1.0, 1.0, 9.0), 1), Samples((2.0, 3.0, 30.0), 1))
    assert found.factor == 3.0


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A short run through the command line, read back from its file; ours is the reference."""
    path = tmp_path_factory.mktemp("run") / "busy.json"
    with pytest.MonkeyPatch.context() as patch:
        skip_measuring_the_machine(patch)
        patch.setattr(reid_ops, "part_correlation", reid_ops.reference.part_correlation)
        patch.setattr(command, "MINIMUM_SECONDS", 0.002)
        before = torch.get_num_threads()
        assert command.main([*ROW, "--busy", "1", "--threads", "1", "--quick", "--json", str(path)]) == 0
        assert torch.get_num_threads() == before
    return report.read(path)


def test_report_has_both_and_their_ratio(document: dict[str, Any]) -> None:
    (record,) = document["records"]
    assert (record["case"], record["mode"], record["threads"]) == ("L4 N=16", "forward", 1)
    assert document["arguments"]["busy"] == record["loops"] == 1
    ours, other = record["ours"], record["formulation"]
    for side in (ours, other):
        assert side["slow_down"] == side["busy"] / side["idle"] > 0
        assert len(side["idle_rounds"]) == 8 and len(side["busy_rounds"]) == 7
    assert record["ratio"] == pytest.approx(ours["slow_down"] / other["slow_down"])
    assert other["name"] != "ours" and other["name"]


def test_text(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = document["records"]
    record = {**record, "busy": True, "others": 1.5, "ratio": 1.31}
    busy.print_busy({**document, "records": [record]}, report.console())
    shown = capsys.readouterr().out
    assert "part_correlation under 1 busy loop" in shown and "1.31" in shown
    assert f"above 1.2: 1.31 (L4 N=16, forward, against {record['formulation']['name']})" in shown
    assert "WARNING: others used 1.50 cores" in shown


def test_page(document: dict[str, Any], tmp_path: Path) -> None:
    assert pages.render_busy(tmp_path) == pages.NOT_MEASURED
    quiet = document | {"busy": False, "others": 0.0}
    name = report.kept_path(quiet).name
    assert name.startswith("part_correlation-busy1-cpu-")
    report.write(quiet, tmp_path / name)
    block = pages.render_busy(tmp_path)
    assert block.startswith("1 busy loop; ours") and "Provisional" not in block
    opponent = document["records"][0]["formulation"]["name"]
    assert f"| part_correlation | L4 N=16, forward | {opponent} | " in block
    assert block.splitlines()[-1].endswith(f" | {document['records'][0]['ratio']:.2f} |")
    page = tmp_path / "measured.md"
    page.write_text("a\n\n<!-- benchmark:busy:begin -->\n<!-- benchmark:busy:end -->\n")
    assert pages.update_busy_page(page, tmp_path) and not pages.update_busy_page(page, tmp_path)
    assert pages.block_in(page.read_text(), pages.BUSY) == block


def test_page_shows_the_kept_results() -> None:
    text = pages.MEASURED.read_text(encoding="utf-8")
    assert pages.block_in(text, pages.BUSY) == pages.render_busy(), "run: python -m benchmarks --update-pages"


def test_a_formulation_of_as_many_threads_can_be_named() -> None:
    for benchmark in command.discover().values():
        names = [formulation.name for formulation in benchmark.formulations]
        assert benchmark.busy_with in (None, *names), benchmark.name
    benchmark = command.discover()["evaluate_ranking"]
    cell = busy.Cell(benchmark.case("tiny"), benchmark.mode("evaluate"), torch.float32, 1)
    settings = command.settings_from(command.parser().parse_args(["--quick", "--threads", "1"]))
    runs, opponent = busy._opponents(benchmark, cell, settings)
    assert opponent == "torch_sort" and list(runs) == ["ours", "torch_sort"]


def test_one_row_an_operator_unless_others_are_named() -> None:
    benchmark = command.discover()["part_correlation"]
    options = command.parser().parse_args(["--headline"])
    cases, modes = command.select(benchmark, options)
    assert [case.name for case in cases] == ["L2 N=16"] and [mode.name for mode in modes] == [
        benchmark.headline
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--busy", "0"], "--busy must be at least 1, got 0"),
        (["--busy", "1", "--sweep"], "--busy is for the CPU, one dtype and no sweep"),
        (["--busy", "1", "--dtype", "float32", "float64"], "--busy is for the CPU, one dtype and no sweep"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err
