"""HSGNet's Figs. 6 and 7, by what is in them, and from runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes

from reid_models.papers.hsgnet.stages import plot_stages, reported_stages, stage_scores
from reid_models.runs.folders import read_runs
from tests.models.report.report_support import write_run


def bars(axes: Axes) -> list[float]:
    """Heights that the bars reach."""
    return [round(patch.get_y() + patch.get_height(), 6) for patch in axes.patches]


def test_stage_bars_leave_out_what_was_not_run() -> None:
    measured = {"baseline": {"rank1": 93.1}, "S3": {"rank1": 95.25, "mAP": 81.0}, "S1": {}}
    figure = plot_stages(measured, reported_stages("market1501"), title="Market")
    rank1, mean_ap = figure.axes
    assert [label.get_text() for label in rank1.get_xticklabels()] == ["baseline", "S1", "S2", "S3", "S4"]
    assert bars(rank1) == [93.8, 94.6, 94.7, 95.0, 94.8, 93.1, 95.25]
    assert [text.get_text().strip() for text in rank1.texts].count("not run") == 3
    assert bars(mean_ap) == [84.5, 86.6, 81.0]
    assert [text.get_text().strip() for text in mean_ap.texts].count("not run") == 4
    levels = [line.get_ydata()[0] for line in rank1.lines]
    assert levels == [93.8, 93.1]  # the baselines, dashed
    bottom = rank1.get_ylim()[0]
    assert f"axis from {bottom:g}" in rank1.get_ylabel() and bottom < 93.1
    assert all(patch.get_y() == bottom for patch in rank1.patches)
    figure.draw_without_rendering()


def test_stage_bars_without_the_paper() -> None:
    (axes,) = plot_stages({"S3": {"mAP": 40.0}, "S4": {}}, metrics=("mAP",)).axes
    assert bars(axes) == [40.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["measured"]


def test_reported_stages_are_those_of_the_text() -> None:
    gains = {"S1": 0.8, "S2": 0.9, "S3": 1.2, "S4": 1.0}  # of rank-1 on Market-1501, over 93.8
    reported = reported_stages("market1501")
    assert {place: values["rank1"] for place, values in reported.items()} == pytest.approx(
        {"baseline": 93.8} | {place: 93.8 + gain for place, gain in gains.items()}
    )
    assert "mAP" not in reported["S1"] and reported_stages("veri776")["S2"] == {"mAP": 80.1}


def test_bad_stage_bars() -> None:
    with pytest.raises(ValueError, match='did you mean "veri776"'):
        reported_stages("veri")
    with pytest.raises(ValueError, match="must name a place"):
        plot_stages({})
    with pytest.raises(ValueError, match="must have a value of rank1, mAP"):
        plot_stages({"S1": {}})
    with pytest.raises(ValueError, match=r"percentages in \[0, 100\]"):
        plot_stages({"S1": {"mAP": 101.0}})


def test_stages_of_runs(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", "hsgnet", stage=2)]
    scores = stage_scores(read_runs(runs))
    assert list(scores) == ["baseline", "S2"]
    assert scores["S2"]["rank1"] == pytest.approx(52.0)
    write_run(tmp_path / "again", "hsgnet", stage=2, weights=False)
    with pytest.raises(ValueError, match="S2 comes twice"):
        stage_scores(read_runs([runs[1], tmp_path / "again"]))
    with pytest.raises(ValueError, match="must be a run on veri776, got synthetic"):
        stage_scores(read_runs(runs), "veri776")
    (tmp_path / "again" / "evaluation.json").unlink()
    with pytest.raises(ValueError, match="again is not evaluated: `reid evaluate"):
        stage_scores(read_runs([tmp_path / "again"]))
    recipe = runs[1] / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("dataset: synthetic", "dataset: omniglot"))
    with pytest.raises(ValueError, match="two must be a run on synthetic, got omniglot"):
        stage_scores(read_runs(runs))
    (runs[0] / "recipe.yaml").write_text("model: {network: csn}")
    with pytest.raises(ValueError, match="must be a run of baseline or hsgnet, got 'csn'"):
        stage_scores(read_runs(runs[:1]))
