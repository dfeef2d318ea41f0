"""Legends hide no data, however many and long the names are, and names in any script have a font."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from reid_models.report import MetricsLog, fonts, legends, plot_cmc, plot_training
from reid_models.report.style import figure_png, new_figure


def check_legends(figure: Figure) -> None:
    """After drawing: every legend is whole on the canvas and covers no line of its axes."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        made = axes.get_legend()
        if made is not None:
            box = made.get_window_extent()
            assert not legends.covers_line(axes, box)
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert axes.get_window_extent().width > 0.5 * figure.bbox.width / len(figure.axes)


@pytest.mark.parametrize("name", ["method", "a_very_long_name_of_a_run_" * 6])
@pytest.mark.parametrize(("count", "height"), [(2, 0.9), (8, 0.1), (20, 0.5)])
def test_cmc(name: str, count: int, height: float) -> None:
    curve = np.linspace(height / 2, height, 20)
    check_legends(plot_cmc({f"{n} {name} {n}": list(curve * n / count) for n in range(1, count + 1)}))


@pytest.mark.parametrize("name", ["run", "a_very_long_name_of_a_run_" * 6])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_training(name: str, count: int) -> None:
    epochs = np.arange(30.0)
    values = {"epoch": epochs, "step": epochs, "train/total": 9 - 0.3 * epochs, "lr": np.sin(epochs / 3) + 1}
    values |= {"train/identity": 9 * np.cos(epochs), "val/mAP": epochs / 30, "val/rank1": 1 - epochs / 30}
    check_legends(plot_training({f"{n} {name} {n}": MetricsLog(values) for n in range(count)}))


def test_a_single_epoch_has_no_fractions() -> None:
    log = MetricsLog({"epoch": np.array([4.0]), "step": np.array([9.0]), "train/total": np.array([2.0])})
    figure = plot_training({"run": log})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [4.0]


def test_short_axes_keep_the_legend_inside() -> None:
    """Where there is room, the figure is as large as it was and the legend within the axes."""
    figure = plot_cmc({"a": [0.8] * 20, "b": [0.1, *[0.9] * 19]})
    assert figure.get_figheight() == 4.0
    figure.draw_without_rendering()
    (axes,) = figure.axes
    box, room = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1


def test_many_methods_look_different() -> None:
    (axes,) = plot_cmc({str(number): [0.5, 0.6] for number in range(40)}).axes
    looks = {(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in axes.lines}
    assert len(looks) == 40


def test_shortened_names_keep_both_ends() -> None:
    assert legends.shorten("hsgnet_market1501_seed_7", 15) == "hsgnet_…_seed_7"
    assert legends.shorten("hsgnet", 6) == "hsgnet"
    for length in range(3, 12):
        short = legends.shorten("0123456789abcdef", length)
        assert len(short) == length and short[0] == "0" and short[-1] == "f"


def test_fonts_for_other_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "FALLBACKS", ("not installed", "STIXGeneral"))
    # Comes with matplotlib, but its list of fonts is kept in the user's folder and may be of another time.
    font_manager.fontManager.addfont(Path(matplotlib.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf"))
    monkeypatch.setattr(fonts, "_installed", lambda: frozenset({"STIXGeneral"}))
    figure = new_figure(2, 2)
    # A character of mathematics that STIX has and the usual font has not.
    usual, lacking = figure.text(0, 0, "Größe Модель"), figure.text(0, 0.5, "size \U0001d49f")
    before = usual.get_fontfamily()
    with pytest.warns(UserWarning, match="missing from font"):
        figure.draw_without_rendering()
    figure_png(figure)  # warns no more
    assert usual.get_fontfamily() == before
    assert lacking.get_fontfamily() == [*before, "STIXGeneral"]
