"""HENet's figures, by what is in them, and their kinds of `reid visualize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from reid_models import create_model
from reid_models.cli import main
from reid_models.data import make_synthetic
from reid_models.networks import save_model
from reid_models.papers.henet.plots import (
    plot_branches,
    plot_erasing,
    plot_occlusion,
    plot_probability,
    read_occluded_runs,
    read_occlusion,
    read_probability,
)

DATASET = make_synthetic(identities=8, cameras=2, images_per_camera=2, size=(32, 32))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def evidence(path: Path) -> Path:
    tests = ["clean", "re:0.1", "re:0.3", "rpe:0.1", "rpe:0.3"]
    rows = {
        f"{training}, {test}": {
            "rank1": {"mean": 0.9 - 0.1 * n - 0.05 * i}, "mAP": {"mean": 0.7 - 0.1 * n - 0.05 * i}
        }
        for i, training in enumerate(("none", "RE+RPE"))
        for n, test in enumerate(tests)
    }  # fmt: skip
    path.write_text(json.dumps({"rows": rows}))
    return path


def test_branches_have_a_row_each() -> None:
    model = create_model("henet", 4, branches=(1, 2), backbone="resnet10t", image_size=(64, 32))
    figure = plot_branches(model, DATASET.train[:2], title="P(1, 2) + R")
    assert [text for text in texts(figure) if text] == [
        "P(1, 2) + R",
        "image",
        "branch1",
        "branch2",
        "recovery",
    ]
    assert len(figure.axes) == 8
    with pytest.raises(ValueError, match="must have branches, got baseline"):
        plot_branches(create_model("baseline", 4, backbone="resnet10t"), DATASET.train[:1])
    with pytest.raises(ValueError, match="at least one image"):
        plot_branches(model, [])


def test_the_erasing_sheet_is_the_operators() -> None:
    pictures = [np.full((24, 16, 3), value, np.uint8) for value in (200, 90)]
    figure = plot_erasing(pictures, points=(10, 40), seed=3)
    assert texts(figure) == ["image", "RE", "RPE, n = 10", "RPE, n = 40"]
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(shown) == 8 and (shown[4] == 90).all()
    counts = [int((picture != 200).any(axis=2).sum()) for picture in shown[:4]]
    # Ten points are the first of the forty, in one box.
    assert counts[0] == 0 and counts[1] > 0 and 0 < counts[2] <= counts[3]
    with pytest.raises(ValueError, match="at least one image"):
        plot_erasing([])


def test_probability_has_a_panel_for_each_measure() -> None:
    points = {p: {"rank1": 0.5 + p / 10, "mAP": 0.3 + p / 10} for p in (0.5, 0.1)}
    figure = plot_probability({"RE": points, "RPE(20)": {0.1: points[0.1]}})
    lines = [
        [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] for axes in figure.axes
    ]
    assert lines[0][0] == ([0.1, 0.5], pytest.approx([51.0, 55.0]))
    assert lines[1][1] == ([0.1], pytest.approx([31.0]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["rank-1", "mAP"]
    with pytest.raises(ValueError, match="at least one point"):
        plot_probability({})


def test_occlusion_has_a_panel_for_each_kind(tmp_path: Path) -> None:
    results = read_occlusion(evidence(tmp_path / "henet.json"))
    assert list(results) == ["re", "rpe"] and list(results["re"]["none"]) == [0.1, 0.3, 0.0]
    figure = plot_occlusion(results)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["tested with re", "tested with rpe"]
    line = figure.axes[1].lines[3]  # RE+RPE, mAP
    assert list(line.get_xdata()) == [0.0, 0.1, 0.3]
    assert list(line.get_ydata()) == pytest.approx([65.0, 35.0, 25.0])


def write_run(folder: Path, occluded: dict[str, float]) -> Path:
    """A run that was evaluated, also with occlusions "KIND:LEVEL"; mAPs as given, 0.6 of whole images."""
    (folder / "occluded").mkdir(parents=True)
    whole = {"plain": {"rank1": 0.8, "mAP": 0.6}, "settings": {}}
    (folder / "evaluation.json").write_text(json.dumps(whole))
    for test, value in occluded.items():
        kind, level = test.split(":")
        settings = {"occlusion": {"kind": kind, "level": float(level), "seed": 0}}
        content = {"plain": {"rank1": value, "mAP": value}, "settings": settings}
        (folder / "occluded" / f"{kind}_{level}.json").write_text(json.dumps(content))
    return folder


def test_occluded_runs_make_figure_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = write_run(tmp_path / "p14", {"re:0.1": 0.5, "rpe:0.1": 0.4, "re:0.3": 0.2})
    both = write_run(tmp_path / "re_rpe", {"re:0.1": 0.55, "both:0.1": 0.45})
    results = read_occluded_runs({"none": none, "RE+RPE": both})
    assert list(results) == ["re", "rpe", "re+rpe"]
    assert {level: row["mAP"] for level, row in results["re"]["none"].items()} == {
        0.0: 0.6,
        0.1: 0.5,
        0.3: 0.2,
    }
    assert results["re+rpe"] == {
        "RE+RPE": {0.1: {"rank1": 0.45, "mAP": 0.45}, 0.0: {"rank1": 0.8, "mAP": 0.6}}
    }
    output = tmp_path / "figure.png"
    words = ["visualize", "occlusion", f"none={none}", f"RE+RPE={both}", "--output", str(output)]
    assert main(words) == 0 and output.exists()
    output.unlink()
    damaged = none / "occluded" / "re_0.1.json"
    damaged.write_text("{")
    assert main(words) == 2
    assert f"{damaged} is damaged or not an evaluation" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for extra, message in (
        ([str(tmp_path / "empty")], "must be a run that was evaluated on occluded images: reid evaluate"),
        (["a.json", "b.json"], "occlusion takes one evidence file, or runs, got 2 INPUT"),
    ):
        assert main(["visualize", "occlusion", *extra, "--output", str(output)]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1 and not output.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": {"none, re:much": {}}}', '{"rows": {"a, b": 3}}'])
def test_damaged_evidence_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json must have rows as HENet's evidence"):
        read_occlusion(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError, match="must be a file"):
        read_occlusion(tmp_path / "none.json")


def test_runs_of_figure_4_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have evaluated runs of Fig\. 4's recipes"):
        read_probability(tmp_path)
    folder = tmp_path / "market1501_henet_rpe20_p05"
    folder.mkdir()
    plain = {"rank1": 0.9, "rank5": 0.95, "rank10": 0.97, "mAP": 0.7, "mINP": 0.3}
    (folder / "evaluation.json").write_text(json.dumps({"plain": plain, "settings": {"metric": "cosine"}}))
    found = read_probability(tmp_path)
    assert list(found) == ["RPE(20)"] and found["RPE(20)"][0.5]["mAP"] == 0.7


def test_branches_of_a_model_by_the_command(tmp_path: Path, capsys: Any) -> None:
    path, output = tmp_path / "henet.safetensors", tmp_path / "branches.png"
    save_model(create_model("henet", 4, branches=(1, 2), backbone="resnet10t", image_size=(64, 32)), path)
    words = ["visualize", "branches", str(path), "--dataset", "synthetic", "--count", "2"]
    assert main([*words, "--output", str(output)]) == 0 and output.exists()
    assert main([*words[:3], f"again={path}", *words[3:], "--output", str(tmp_path / "two.png")]) == 2
    assert "branches takes 1 INPUT, got 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["erasing", "--dataset", "synthetic", "--count", "2"], True),
        (["occlusion", "evidence.json"], True),
        (["occlusion", "none.json"], False),
        (["erasing"], False),
        (["erasing", "--dataset", "synthetic", "--count", "0"], False),
        (["probability", "."], False),
        (["probability", "runs"], True),
    ],
)
def test_kinds_of_visualize(
    words: list[str], made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    evidence(tmp_path / "evidence.json")
    for name in ("re_p05", "re_p07", "re_rpe20_p05"):
        write_run(tmp_path / "runs" / f"market1501_henet_{name}", {})
    assert main(["visualize", *words, "--output", "figure.png"]) == (0 if made else 2)
    assert (tmp_path / "figure.png").exists() == made
    if not made:
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
