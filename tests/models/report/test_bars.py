"""Insertion-stage bars and the efficiency scatter, by what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes

from reid_models.report import plot_efficiency, plot_stages, read_measurements, reported_stages


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


MODELS = """\
name,rank1,mean_ap,feature_dim,volume,speed
HPM,94.2,82.7,3840,356,82
AlignedReID,91.8,79.3,2048,100,207
"""


def test_efficiency_scatter(tmp_path: Path) -> None:
    file = tmp_path / "models.csv"
    file.write_text(MODELS)
    models = read_measurements(file)
    assert models["HPM"] == {"rank1": 94.2, "mean_ap": 82.7, "feature_dim": 3840, "volume": 356, "speed": 82}
    (axes,) = plot_efficiency(models).axes
    large, small = axes.collections
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[94.2, 82.7]], [[91.8, 79.3]]]
    assert large.get_offsets().tolist() == [[94.2, 82.7]]
    assert small.get_sizes()[0] / large.get_sizes()[0] == pytest.approx(100 / 356)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "1  HPM: 82 frames/s, 356 MB, ES 1.00",
        "2  AlignedReID: 207 frames/s, 100 MB, ES 2.55",  # as HENet's Table 1 prints it
    ]


def test_numbers_of_models_at_one_place_are_apart() -> None:
    values = {"rank1": 95.0, "mean_ap": 88.0, "feature_dim": 512.0, "volume": 90.0, "speed": 50.0}
    figure = plot_efficiency({name: values for name in "abcd"})
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,rank1\n", "no mean_ap, feature_dim, volume, speed"),
        (MODELS + "HPM,1,1,1,1,1\n", "line 4 .*name must be new and not empty, got 'HPM'"),
        (MODELS + "X,1,1,1,big,1\n", "line 4 .*must have numbers"),
        (MODELS + "X,1,1\n", "line 4 .*must have numbers"),
    ],
)
def test_bad_measurements(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "models.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_measurements(file)
    with pytest.raises(FileNotFoundError, match="must be a CSV file"):
        read_measurements(tmp_path / "none.csv")
