"""The scale benchmark: what it measures, what it refuses, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import reid_ops
from benchmarks import scale
from benchmarks.harness import pages, report
from benchmarks.harness.check import CheckFailed

TINY = scale._case("tiny", 20, 300, 8, 30)


def record() -> dict[str, Any]:
    return {
        "case": "100k",
        "sizes": {"queries": 500, "gallery": 100_000, "dimension": 128, "identities": 5555},
        "threads": 2,
        "search": 10.9,
        "rest": 1.4,
        "rerank": 12.5,
        "blocked": 25.0,
        "features": 51_456_000,
        "memory": 390_000_000,
    }


def test_a_tiny_size_is_measured() -> None:
    times = scale.measure_times(TINY, "cpu")
    assert set(times) == {"search", "rest", "rerank", "blocked"} and all(
        value > 0 for value in times.values()
    )
    sizes = scale.measure_memory(TINY, "cpu")
    assert sizes["features"] == 320 * 8 * 4 and 0 <= sizes["memory"] < 1 << 26


def test_each_size_has_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that fails leaves no record."""
    commands: list[list[str]] = []

    class Finished:
        returncode, stdout, stderr = 0, json.dumps({"search": 1.0}), ""

    def run(command: list[str], **_: Any) -> Finished:
        commands.append(command)
        return Finished()

    monkeypatch.setattr(scale.subprocess, "run", run)
    assert scale.measure(TINY, "cpu", 2) == {
        "case": "tiny", "sizes": dict(TINY.sizes), "threads": 2, "search": 1.0,
    }  # fmt: skip
    assert [command[-1] for command in commands] == ["times", "memory"]
    Finished.returncode, Finished.stderr = 1, "Traceback\nMemoryError: too large"
    with pytest.raises(CheckFailed, match="tiny, times: MemoryError: too large"):
        scale.measure(TINY, "cpu", 2)


def test_wrong_lists_are_refused() -> None:
    query, gallery = scale.features_of(TINY, "cpu")
    found = reid_ops.rerank_neighbours(query, gallery, k1=20).indices
    scale.check(query, gallery, found)
    found[0, 20] = (query[0] @ torch.cat([query, gallery]).t()).argmin()
    with pytest.raises(CheckFailed, match="list of item 0"):
        scale.check(query, gallery, found)


def test_the_table() -> None:
    found = {
        "machine": {"cpu": "Some CPU", "cores": 2, "gpu": None},
        "torch": "2.15", "commit": "0123456789abcdef", "dirty": False, "date": "2026-11-20T00:00:00",
        "busy": False, "others": 0.0, "records": [record()],
    }  # fmt: skip
    text = scale._render(found)
    assert text.startswith("Some CPU, 2 cores, torch 2.15, commit 0123456789, 2026-11-20.\n\n| size |")
    assert text.splitlines()[-1] == (
        "| 100k | 500 × 100,000 × 128 | 10.9 | 1.4 | 12.5 | 25 | 0.50 | 0.051 | 0.39 | 40 |"
    )


def test_page_shows_the_kept_results(tmp_path: Path) -> None:
    text = pages.MEASURED.read_text(encoding="utf-8")
    assert pages.block_in(text, scale.NAME) == scale.render_block(), (
        "run: python -m benchmarks.scale --update-pages"
    )
    assert scale.render_block(tmp_path) == "CPU: not yet measured\n\nGPU: not yet measured"


@pytest.mark.parametrize("results", sorted(report.RESULTS.glob("scale-*.json")), ids=lambda path: path.stem)
def test_kept_results_are_within_bounds(results: Path) -> None:
    """What re-ranking promises at scale: no more than the search, and memory far from N x N."""
    for each in report.read(results)["records"]:
        items = each["sizes"]["queries"] + each["sizes"]["gallery"]
        assert each["memory"] < 4e9
        assert items < 20_000 or each["memory"] < 4 * items**2 / 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "1000k"], "no such size on cpu"),
        pytest.param(
            ["--device", "cuda"], "torch sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(arguments) == 2
    assert message in capsys.readouterr().err
