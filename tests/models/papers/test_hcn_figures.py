"""HCN's figures: what they show, read back from the drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_models.cli import main
from reid_models.papers.hcn.drawing import FIGURE_4, measure_list, plot_average_precision, plot_head_losses
from reid_models.report.style import save_figure
from reid_models.runs.metrics_log import MetricsLog


def test_average_precisions_of_figure_4() -> None:
    found = [measure_list(hits) for hits in FIGURE_4.values()]
    assert [first for first, _ in found] == [1.0, 1.0, 1.0]
    assert [precision for _, precision in found] == pytest.approx([1.0, 1.0, 5 / 6])
    assert measure_list([False, True]) == (0.0, 0.5)
    with pytest.raises(ValueError, match=r"hits must have a right image, got \[False\]"):
        measure_list([False])


def test_figure_4(tmp_path: Path) -> None:
    figure = plot_average_precision(title="CMC and AP")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if "AP" in text] == [
        "rank-1 1, AP 1.00",
        "rank-1 1, AP 1.00",
        "rank-1 1, AP 0.83",
    ]
    assert texts.count("✓") == 5 and texts.count("✗") == 10 and len(figure.axes[0].patches) == 15
    save_figure(figure, tmp_path / "fig4.png")
    assert (tmp_path / "fig4.png").stat().st_size > 2000
    with pytest.raises(ValueError, match="lists must hold at least one"):
        plot_average_precision({})


def log(head: str, values: list[float]) -> MetricsLog:
    steps = np.arange(len(values)) * 20.0
    return MetricsLog({"epoch": steps * 0, "step": steps, f"step/cross_entropy({head})": np.array(values)})


def test_figure_3(tmp_path: Path) -> None:
    runs = {"HCN": log("r5", [4.0, 2.0, 1.0]), "ResNet-50": log("r5", [4.0, 3.0, 2.0])}
    figure = plot_head_losses({"CUHK03": runs, "Market-1501": {"HCN": runs["HCN"]}}, window=2)
    left, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[4.0, 3.0, 1.5], [4.0, 3.5, 2.5]]
    assert left.lines[0].get_xdata().tolist() == [0, 20, 40] and len(right.lines) == 1
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["HCN", "ResNet-50"]
    assert (left.get_title(loc="left"), left.get_ylabel()) == ("CUHK03", "loss of R5")
    save_figure(figure, tmp_path / "fig3.svg")


def test_bad_figures() -> None:
    runs = {"HCN": log("r5", [1.0])}
    with pytest.raises(ValueError, match=r"HCN must have logged step/cross_entropy\(c1\), got step/cross"):
        plot_head_losses({"a": runs}, head="c1")
    with pytest.raises(ValueError, match=r"head must be one of r5, c1, c2, got 'r4'"):
        plot_head_losses({"a": runs}, head="r4")
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        plot_head_losses({"a": runs}, window=0)
    with pytest.raises(ValueError, match="panels must hold at least one"):
        plot_head_losses({})


def test_kinds_of_visualize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("hcn", "resnet"):
        (tmp_path / name).mkdir()
        rows = ["epoch,step,step/cross_entropy(r5)", *(f"0,{20 * i},{4 - i}" for i in range(4))]
        (tmp_path / name / "metrics.csv").write_text("\n".join(rows) + "\n")
    runs = [f"HCN={tmp_path / 'hcn'}", f"ResNet-50={tmp_path / 'resnet'}"]
    output = tmp_path / "figure.svg"
    assert main(["visualize", "head_losses", *runs, "--window", "2", "--output", str(output)]) == 0
    assert output.stat().st_size > 2000
    assert main(["visualize", "average_precision", "--output", str(tmp_path / "figure.png")]) == 0
    assert main(["visualize", "head_losses", *runs, "--head", "c1", "--output", str(output)]) == 2
    assert "must have logged step/cross_entropy(c1)" in capsys.readouterr().err
