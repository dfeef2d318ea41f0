"""Figures of reports, by what is in them."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from reid_models.data import ImageRecord, make_synthetic
from reid_models.report import (
    MetricsLog,
    RankedList,
    choose_queries,
    plot_cmc,
    plot_montage,
    plot_ranked_lists,
    plot_training,
    ranked_lists,
    save_figure,
)
from reid_models.report.pictures import load_picture
from reid_models.report.style import PROBE, RIGHT, WRONG
from reid_ops.metrics import RankingReport, evaluate_ranking

from .report_support import record

HOSTILE = "_$\\frac{a$ <b>&"


def frame(axes: Axes) -> str:
    (color,) = {to_hex(spine.get_edgecolor()) for spine in axes.spines.values()}
    return color.upper()


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]


@pytest.fixture
def query() -> list[ImageRecord]:
    return [record(10, 1), record(20, 1), record(30, 2)]


@pytest.fixture
def gallery() -> list[ImageRecord]:
    """For query 0: junk, its own camera, right, wrong, right."""
    junk = ImageRecord("junk.png", -1, 3, record(1, 3).content)
    return [junk, record(10, 1, color=9), record(10, 2), record(20, 2), record(10, 3)]


def report(distance: np.ndarray, query: list[ImageRecord], gallery: list[ImageRecord]) -> RankingReport:
    labels = [
        np.array([getattr(r, name) for r in records])
        for name in ("identity", "camera")
        for records in (query, gallery)
    ]
    return evaluate_ranking(distance, *labels)


# Ranked lists


def test_lists_leave_out_what_evaluation_leaves_out(
    query: list[ImageRecord], gallery: list[ImageRecord]
) -> None:
    distance = np.array([[0.0, 0.1, 0.4, 0.2, 0.3]] * 3)
    found = report(distance, query, gallery)
    (listed,) = ranked_lists([0], query, gallery, distance=distance, report=found)
    assert [item.path for item in listed.items] == [gallery[i].path for i in (3, 4, 2)]
    assert listed.correct == (False, True, True)
    # The list tells the same AP as the report.
    hits = np.flatnonzero(listed.correct) + 1
    assert listed.average_precision == pytest.approx(np.mean(np.arange(1, 3) / hits))
    (kept,) = ranked_lists([0], query, gallery, distance=distance, same_camera_is_junk=False, top=2)
    assert [item.path for item in kept.items] == [gallery[i].path for i in (1, 3)]
    assert kept.average_precision is None


def test_lists_from_top_k_are_those_of_distances(
    query: list[ImageRecord], gallery: list[ImageRecord]
) -> None:
    distance = torch.rand(3, 5).to(torch.bfloat16)
    order = distance.float().argsort(dim=1, stable=True)
    order[0, -1] = -1
    from_distance = ranked_lists([2, 1], query, gallery, distance=distance)
    assert ranked_lists([2, 1], query, gallery, indices=order) == from_distance
    assert len(ranked_lists([0], query, gallery, indices=order[:, :1])[0].items) <= 1


def test_equal_distances_are_ranked_by_row(query: list[ImageRecord], gallery: list[ImageRecord]) -> None:
    (listed,) = ranked_lists([1], query, gallery, distance=np.zeros((3, 5)))
    assert [item.path for item in listed.items] == [gallery[i].path for i in (1, 2, 3, 4)]


def test_choice_of_queries() -> None:
    labels = np.array([1, 2, 3, 4, 9]), np.array([1, 2, 3, 4])
    far = 1.0 - np.eye(5, 4)
    worse = far.copy()
    worse[2] = [0, 0, 1, 0]  # AP 1/4
    worse[1] = [0, 1, 0.5, 2]  # AP 1/3
    reports = [evaluate_ranking(worse, *labels), evaluate_ranking(far, *labels)]
    assert choose_queries(reports, 2, how="improved") == [2, 1]
    assert choose_queries(reports[:1], 3, how="worst") == [2, 1, 0]
    assert choose_queries(reports[:1], 3, how="best") == [0, 3, 1]
    assert choose_queries(reports, 9, how="first") == [0, 1, 2, 3]  # the fifth has no positive
    drawn = choose_queries(reports, 2, how="random", seed=5)
    assert drawn == choose_queries(reports, 2, how="random", seed=5) and drawn == sorted(drawn)
    assert len({tuple(choose_queries(reports, 2, how="random", seed=seed)) for seed in range(9)}) > 1


def test_ranked_list_figure(query: list[ImageRecord], gallery: list[ImageRecord]) -> None:
    before = [RankedList(query[0], (gallery[3], gallery[2]), 0.5), RankedList(query[1], (gallery[3],), 1.0)]
    after = [RankedList(query[0], (gallery[4], gallery[3]), 0.75), RankedList(query[1], (gallery[2],), None)]
    figure = plot_ranked_lists({"baseline": before, HOSTILE: after}, title="$Title")
    axes = figure.axes
    assert len(axes) == 2 + 3 + 3  # probes, and what each method lists
    headings = [a.get_title() for a in axes]
    assert headings == ["probe", "1 ✗", "2 ✓", "1 ✓", "2 ✗", "probe", "1 ✓", "1 ✗"]
    color = {"✓": RIGHT, "✗": WRONG, "e": PROBE}
    assert [frame(a) for a in axes] == [color[heading[-1]] for heading in headings]
    dashed = [a.spines["left"].get_linestyle() not in ("-", "solid") for a in axes]
    assert dashed == [heading.endswith("✗") for heading in headings]
    shown = [a.images[0].get_array()[0, 0, 0] for a in axes]  # red is the identity
    assert shown == [10, 20, 10, 10, 20, 20, 20, 10]
    assert axes[0].get_xlabel() == "id 10, cam 1"
    assert texts(figure) == [
        "$Title",
        "baseline\nAP 50.0 %",
        f"{HOSTILE}\nAP 75.0 %",
        "baseline\nAP 100.0 %",
        HOSTILE,
    ]
    assert matplotlib.colors.to_rgba(RIGHT)[:3] == pytest.approx(_painted_frame(figure, axes[3]), abs=0.02)


def _painted_frame(figure: Figure, axes: Axes) -> list[float]:
    """The colour on the left edge of axes, as it is drawn."""
    canvas = pixels(figure)
    box = axes.get_window_extent()
    return list(canvas[canvas.shape[0] - round((box.y0 + box.y1) / 2), round(box.x0), :3] / 255)


def test_long_names_take_two_lines(query: list[ImageRecord], gallery: list[ImageRecord]) -> None:
    listed = [RankedList(query[0], (gallery[2],), 0.5)]
    figure = plot_ranked_lists({"the baseline, re-ranked": listed, "x" * 90 + ", re-ranked": listed})
    first, second = texts(figure)
    assert "re-ranked\n" in second  # the end tells the plain ranking from this one
    assert first == "the baseline,\nre-ranked\nAP 50.0 %"
    assert second.count("\n") == 2 and second.split("\n")[1].startswith("…")
    pixels(figure)
    right = max(text.get_window_extent().x1 for text in figure.texts)
    assert right < min(axes.get_window_extent().x0 for axes in figure.axes)


def test_bad_lists(query: list[ImageRecord], gallery: list[ImageRecord]) -> None:
    one = RankedList(query[0], (gallery[2],))
    other = RankedList(query[1], (gallery[2],))
    with pytest.raises(ValueError, match="at least one list"):
        plot_ranked_lists({})
    with pytest.raises(ValueError, match="'b' must be of the same queries as 'a'"):
        plot_ranked_lists({"a": [one], "b": [other]})
    with pytest.raises(ValueError, match="exactly one of distance and indices"):
        ranked_lists([0], query, gallery)
    with pytest.raises(ValueError, match=r"distance must have shape \(3, 5\), got \(3, 4\)"):
        ranked_lists([0], query, gallery, distance=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"chosen must be rows in \[0, 3\), got 3"):
        ranked_lists([3], query, gallery, distance=np.zeros((3, 5)))
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        ranked_lists([0], query, gallery, distance=np.zeros((3, 5)), top=0)
    found = evaluate_ranking(np.zeros((1, 1)), [1], [1])
    with pytest.raises(ValueError, match='did you mean "worst"'):
        choose_queries([found], 1, how="wurst")
    with pytest.raises(ValueError, match="two methods"):
        choose_queries([found], 1, how="improved")
    with pytest.raises(ValueError, match="count must be at least 1"):
        choose_queries([found], 0)
    with pytest.raises(ValueError, match="the same queries"):
        choose_queries([found, evaluate_ranking(np.zeros((2, 1)), [1, 1], [1])], 1)


# Montage


def test_montage() -> None:
    records = [record(i, c, color=n) for i in range(1, 5) for c in range(1, 4) for n in (1, 2)]
    records = [r for r in records if (r.identity, r.camera) != (2, 3)]
    records.append(ImageRecord("junk", -1, 7, records[0].content))
    figure = plot_montage(records, identities=9, cameras=9, title="All")
    assert len(figure.axes) == 11  # a cell of twelve is empty
    assert texts(figure) == ["All", "id 1", "id 2", "id 3", "id 4", "camera 1", "camera 2", "camera 3"]
    shown = [tuple(axes.images[0].get_array()[0, 0, :2]) for axes in figure.axes]
    assert shown == [(i, c) for i in range(1, 5) for c in range(1, 4) if (i, c) != (2, 3)]
    left = {shown[n][1]: axes.get_position().x0 for n, axes in enumerate(figure.axes)}
    assert left[1] < left[2] < left[3]
    few = plot_montage(records, identities=2, cameras=1, seed=1)
    assert len(few.axes) == 2
    assert texts(few) == texts(plot_montage(records, identities=2, cameras=1, seed=1))
    rows = {tuple(texts(plot_montage(records, identities=2, cameras=1, seed=s))) for s in range(8)}
    assert len(rows) > 1


def test_bad_montage() -> None:
    with pytest.raises(ValueError, match="not junk"):
        plot_montage([ImageRecord("junk", -1, 0, b"")])
    with pytest.raises(ValueError, match="identities must be at least 1, got 0"):
        plot_montage([record(1, 1)], identities=0)
    with pytest.raises(ValueError, match=r"broken\.png is damaged"):
        plot_montage([ImageRecord("broken.png", 1, 1, b"no image")])


def test_pictures_keep_their_shape() -> None:
    assert load_picture(record(1, 1, shape=(400, 100))).shape == (224, 56, 3)
    assert load_picture(record(1, 1)).shape == (40, 20, 3)
    assert load_picture(record(1, 1), (8, 4)).shape == (8, 4, 3)


# Curves


def test_cmc_figure() -> None:
    distance = np.array([[0.0, 1.0], [0.0, 1.0]])
    found = evaluate_ranking(distance, [1, 2], [1, 2])
    figure = plot_cmc({HOSTILE: found, "curve": [0.25, 0.5, 1.0]}, length=4)
    (axes,) = figure.axes
    measured, given = axes.lines
    assert measured.get_ydata() == pytest.approx([50, 100, 100, 100])
    assert list(given.get_xdata()) == [1, 2, 3]
    assert given.get_ydata() == pytest.approx([25, 50, 100])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"{HOSTILE} (rank-1 50.0, mAP 75.0)",
        "curve (rank-1 25.0)",
    ]
    assert measured.get_color() != given.get_color() and measured.get_linestyle() != given.get_linestyle()
    pixels(figure)  # no text is taken for mathematics


def test_bad_cmc() -> None:
    for curve in ([], [0.5, 1.2], [[0.5]]):
        with pytest.raises(ValueError, match="curve of 'a' must be numbers"):
            plot_cmc({"a": curve})
    with pytest.raises(ValueError, match="at least one method"):
        plot_cmc({})
    with pytest.raises(ValueError, match="length must be at least 2"):
        plot_cmc({"a": [1.0]}, length=1)


def log(shift: float = 0.0, *, validated: bool = True) -> MetricsLog:
    nan = np.nan
    values = {
        "epoch": [0, 1, 1, 2],
        "step": [9, 19, 19, 29],
        "train/total": [3 + shift, 2 + shift, nan, 1 + shift],
        "train/identity": [2, 1, nan, 0.5],
        "lr": [1e-4, 3e-4, nan, 3e-4],
    }
    if validated:
        values |= {"val/mAP": [nan, nan, 0.25, nan], "val/rank1": [nan, nan, 0.5, nan]}
    return MetricsLog({name: np.array(column, float) for name, column in values.items()})


def test_training_figure_of_one_run() -> None:
    figure = plot_training({"run": log()}, title="$x")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Training loss",
        "Validation",
        "Learning rate",
    ]
    loss, validation, rate = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[3, 2, 1], [2, 1, 0.5]]
    assert list(loss.lines[0].get_xdata()) == [0, 1, 2] and loss.get_xlabel() == "epoch"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["total", "identity"]
    assert [line.get_ydata().tolist() for line in validation.lines] == [[25.0], [50.0]]
    assert list(rate.lines[0].get_ydata()) == [1e-4, 3e-4, 3e-4]
    pixels(figure)


def test_training_figure_of_two_runs() -> None:
    figure = plot_training({"a": log(), "_b$": log(1.0, validated=False)})
    loss, validation, rate = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[3, 2, 1], [4, 3, 2]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["a", "_b$"]
    assert [text.get_text() for text in validation.get_legend().get_texts()] == ["a: mAP", "a: rank-1"]
    assert len({line.get_color() for line in validation.lines}) == 1
    assert len({line.get_linestyle() for line in validation.lines}) == 2
    assert len({line.get_marker() for line in validation.lines}) == 2  # dashes of one point can't be seen
    assert validation.get_xlim() == loss.get_xlim() == rate.get_xlim()
    assert len(rate.lines) == 2
    pixels(figure)


def test_bad_training_figure() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        plot_training({})
    with pytest.raises(ValueError, match="must have columns step/"):
        plot_training({"a": log(validated=False)}, against="step")
    with pytest.raises(ValueError, match="against must be"):
        plot_training({"a": log()}, against="hours")


# Files


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "PNG"])
def test_files_are_whole_and_the_same_again(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"figure.{suffix}"
    save_figure(plot_cmc({"a": [0.5, 1.0]}), file)
    content = file.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix.lower()]
    assert content.startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # no unfinished file
    if suffix != "svg":  # whose ids matplotlib draws at random
        save_figure(plot_cmc({"a": [0.5, 1.0]}), file)
        assert file.read_bytes() == content
    if suffix == "png":
        assert Image.open(file).size == (930, 600)


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = plot_cmc({"a": [0.5, 1.0]})
    with pytest.raises(ValueError, match=r"unknown figure format '\.jpg'"):
        save_figure(figure, tmp_path / "figure.jpg")
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        save_figure(figure, tmp_path / "none" / "figure.png")
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_figure(figure, old)
    assert old.read_bytes() == b"old"


def test_matplotlib_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    backend = matplotlib.get_backend()
    dataset = make_synthetic(identities=4, cameras=2, images_per_camera=1, size=(16, 16))
    pixels(plot_montage(dataset.train))
    pixels(plot_training({"run": log()}))
    assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == backend
