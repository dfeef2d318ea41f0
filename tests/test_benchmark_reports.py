"""The benchmarks' command line, what it writes, and its tables."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import reid_ops
import reid_ops.reference
from benchmarks import __main__ as command
from benchmarks.harness import pages, report
from benchmarks.harness.machine import slug
from benchmarks.harness.registry import discover
from benchmarks.part_correlation import BENCHMARK, MODES, SWEEP
from tests.benchmark_support import skip_measuring_the_machine


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


def test_pages(document: dict[str, Any], tmp_path: Path) -> None:
    document |= {"busy": False, "others": 0.0}
    results, page, readme = tmp_path / "results", tmp_path / "measured.md", tmp_path / "README.md"
    assert pages.render_block(BENCHMARK, results) == "CPU: not yet measured\n\nGPU: not yet measured"
    report.write(document, results / "part_correlation-cpu-here.json")
    report.write(document, results / "part_correlation-cpu-here-sweep.json")
    block = pages.render_block(BENCHMARK, results)
    table = pages.render_table(document, BENCHMARK)
    assert block == table + "\n\nGPU: not yet measured"
    rows = [line for line in table.splitlines() if line.startswith("| L4 N=16")]
    assert [row.split(" | ")[1] for row in rows] == list(BENCHMARK.table_modes)
    assert "Provisional" not in table
    assert "Provisional: other processes used 0.50" in pages.render_table(
        document | {"busy": True, "others": 0.5}, BENCHMARK
    )

    begin, end = pages.markers("part_correlation")
    page.write_text(f"# Title\n\n{begin}\nold\n{end}\n\nafter\n")
    readme.write_text("| part_correlation | **9.9×**<!--part_correlation--> | **1×**<!--other--> |\n")
    assert pages.update_pages(BENCHMARK, page, readme, results)
    assert not pages.update_pages(BENCHMARK, page, readme, results)
    shown = pages.headlines_in(readme.read_text())
    assert shown == {"part_correlation": pages.NOT_MEASURED, "other": "1×"}  # no document has that row
    assert pages.block_in(page.read_text(), "part_correlation") == block
    assert page.read_text().startswith("# Title\n") and page.read_text().endswith(f"\n{end}\n\nafter\n")
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="expected the lines <!-- benchmark:part_correlation:begin -->"):
        pages.update_pages(BENCHMARK, page, readme, results)


@pytest.mark.parametrize("name", discover())
def test_page_shows_the_kept_results(name: str) -> None:
    text = pages.MEASURED.read_text(encoding="utf-8")
    assert pages.block_in(text, name) == pages.render_block(discover()[name]), (
        "run: python -m benchmarks --update-pages"
    )


def test_readme_has_the_headline_ratios_of_the_kept_results() -> None:
    shown = pages.headlines_in(pages.README.read_text(encoding="utf-8"))
    kept = {name: pages.headline(benchmark) for name, benchmark in discover().items()}
    assert shown == kept, "run: python -m benchmarks --update-pages"


def test_headline_is_the_newest_documents_row_with_the_most_threads(
    document: dict[str, Any], tmp_path: Path
) -> None:
    assert pages.headline(BENCHMARK, tmp_path) == pages.NOT_MEASURED
    row = next(each for each in document["records"] if each["mode"] == BENCHMARK.headline)
    row["case"] = BENCHMARK.table_cases["cpu"][0]
    row["contenders"][row["fastest"]["eager"]]["ratio_of_medians"] = 2.34
    slower = copy.deepcopy(row) | {"threads": row["threads"] + 1}
    slower["contenders"][row["fastest"]["eager"]]["ratio_of_medians"] = 1.5
    report.write(document | {"date": "2026-01-01"}, tmp_path / "part_correlation-cpu-old.json")
    assert pages.headline(BENCHMARK, tmp_path) == "2.3×"
    newer = document | {"date": "2026-01-02", "records": [row, slower]}
    report.write(newer, tmp_path / "part_correlation-cpu-new.json")
    assert pages.headline(BENCHMARK, tmp_path) == "1.5×"
    text = "**9×**<!--part_correlation--> and **8×**<!--other-->"
    assert pages.with_headline(text, "part_correlation", "1.5×") == (
        "**1.5×**<!--part_correlation--> and **8×**<!--other-->"
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
        assert all(benchmark.mode(name) for name in (*benchmark.sweep_modes, *benchmark.table_modes))
        assert benchmark.headline in benchmark.table_modes
        for device, names in benchmark.table_cases.items():
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
