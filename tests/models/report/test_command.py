"""``reid visualize``."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reid_models.cli import main

from .report_support import Page, write_run

QUICK = ["--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    return [str(write_run(folder / "baseline")), str(write_run(folder / "hsgnet", "hsgnet"))]


def size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


@pytest.mark.parametrize(
    "words",
    [
        ["ranks", "RUNS", "--choose", "improved", "--count", "2", "--top", "3", *QUICK],
        ["cam", "RUNS", "--count", "3", "--target", "class", "--layer", "stage3", *QUICK],
        ["curves", "RUNS"],
        ["curves", "RUNS", "--against", "step"],
        ["curves", "RUNS", "--curve", "cmc", "--length", "3"],
        ["stages", "RUNS"],
        ["stages", "--reported", "market1501"],
        ["montage", "--dataset", "synthetic", "--options.identities", "4", "--split", "gallery"],
    ],
    ids=lambda words: " ".join(words[:4]),
)
def test_figures(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    file = tmp_path / "figure.png"
    given = [part for word in words for part in (runs if word == "RUNS" else [word])]
    assert main(["visualize", *given, "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"written: {file}\n"
    assert min(size(file)) > 200
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_options_change_the_figure(runs: list[str], tmp_path: Path) -> None:
    sizes = []
    for extra in ([], ["--rerank", "--k1", "4", "--k2", "2"], ["--top", "2"], ["--count", "1"]):
        file = tmp_path / "figure.png"
        words = ["visualize", "ranks", runs[0], "--count", "2", "--top", "3", *extra, *QUICK]
        assert main([*words, "--output", str(file)]) == 0
        sizes.append(size(file))
    plain, reranked, narrow, short = sizes
    assert reranked[0] == plain[0] and reranked[1] > 1.5 * plain[1]  # a second row for each query
    assert narrow[0] < plain[0] and short[1] < plain[1]


def test_report(runs: list[str], tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    words = ["visualize", "report", runs[0], f"HSGNet={runs[1]}", "--count", "1", "--title", "<Both>", *QUICK]
    assert main([*words, "--output", str(file)]) == 0
    page = Page(file.read_text())
    page.check_alone()
    assert page.headings == [
        "Results", "What was run", "Training", "CMC", "Ranked lists", "Where the networks look", "Images",
        "Machine", "Recipes",
    ]  # fmt: skip
    assert [row[0] for row in page.tables[0]] == [
        "method", "baseline", "baseline, re-ranked", "HSGNet", "HSGNet, re-ranked",
    ]  # fmt: skip
    assert len(page.images) == 5 and "<Both>" in page.text
    assert main([*words, "--output", str(file), "--tables-only"]) == 0
    assert len(Page(file.read_text()).images) == 2


def test_report_of_a_run_without_weights(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "pixels", weights=False)
    file = tmp_path / "report.html"
    assert main(["visualize", "report", str(folder), "--output", str(file), *QUICK]) == 0
    assert "Ranked lists" not in Page(file.read_text()).headings


def test_report_of_runs_with_an_equals_sign(tmp_path: Path) -> None:
    """A folder's name, which is not NAME=RUN."""
    for name in ("lr=0.1", "lr=0.2"):
        write_run(tmp_path / "runs" / name)
    file = tmp_path / "report.html"
    folders = [str(folder) for folder in sorted((tmp_path / "runs").iterdir())]
    words = ["visualize", "report", *folders, "--count", "1", *QUICK, "--output", str(file)]
    assert main(words) == 0
    page = Page(file.read_text())
    assert "Ranked lists" in page.headings and {"lr=0.1", "lr=0.2"} <= set(page.text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rank", "RUN"], "unknown kind of figure 'rank'; did you mean \"ranks\"?"),
        (["similaritie", "RUN"], "unknown kind of figure 'similaritie'"),
        (["ranks"], "ranks takes 1 or more INPUT, got 0"),
        (["montage", "RUN"], "montage takes no INPUT, got 1"),
        (["cam", "RUN", "--top", "3"], "--top is not an option of cam"),
        (["curves", "RUN", "--tables-only"], "--tables-only is not an option of curves"),
        (["curves", "RUN", "--curve", "roc"], "unknown curve 'roc'"),
        (["curves", "RUN", "--length", "5"], "--length is an option of --curve cmc"),
        (
            ["curves", "RUN", "--curve", "cmc", "--against", "step"],
            "--against is an option of --curve training",
        ),
        (["ranks", "RUN", "--choose", "improved"], "--choose improved needs two INPUT"),
        (["ranks", "RUN", "--choose", "wrst"], 'did you mean "worst"?'),
        (
            ["ranks", "none"],
            "model must be a run folder or a file of a model, or timm:NAME or onnx:FILE, got none",
        ),
        (["ranks", "RUN", "--root", "x"], "--root and --options must come with --dataset"),
        (["montage"], "--dataset must be given"),
        (["montage", "--dataset", "synthetic", "--split", "all"], "unknown split 'all'"),
        (["stages"], "stages takes INPUT or --reported"),
        (["stages", "RUN", "--reported", "veri776"], "must be a run on veri776, got synthetic"),
        (["stages", "--reported", "veri"], 'did you mean "veri776"?'),
        (["curves", "none"], "must be a metrics.csv or a run folder with one, got none"),
    ],
)
def test_bad_input(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    file = tmp_path / "figure.png"
    given = [runs[0] if word == "RUN" else word for word in words]
    assert main(["visualize", *given, "--output", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("reid visualize: ") and message in captured.err
    assert captured.err.count("\n") == 1 and not file.exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [("a.jpg", "unknown figure format '.jpg'"), ("no/a.png", "--output must be in a folder that exists")],
)
def test_bad_output(
    runs: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    message: str,
) -> None:
    """Known before the networks run."""
    monkeypatch.setattr("reid_models.runs.models.load_trained", lambda *_: 1 / 0)
    assert main(["visualize", "ranks", runs[0], "--output", str(tmp_path / output)]) == 2
    assert message in capsys.readouterr().err
    assert main(["visualize", "report", runs[0], "--output", str(tmp_path / "a.pdf")]) == 2
    assert "--output of a report must end in .html" in capsys.readouterr().err


def test_a_network_without_a_recipe(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes((Path(runs[0]) / "best.safetensors").read_bytes())
    words = [
        "visualize",
        "ranks",
        str(file),
        "--count",
        "1",
        "--top",
        "2",
        "--output",
        str(tmp_path / "a.png"),
    ]
    assert main([*words, *QUICK]) == 2
    assert "--dataset must be given: no INPUT has a recipe" in capsys.readouterr().err
    assert main([*words, *QUICK, "--dataset", "synthetic", "--options.identities", "4"]) == 0


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualize", "--help"]) == 0
    text = capsys.readouterr().out
    assert "reid visualize ranks runs/baseline" in text and "montage" in text
