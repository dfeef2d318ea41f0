"""The efficiency scatter, by what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reid_models.cli import main
from reid_models.networks import create_model, save_model
from reid_models.papers.henet.efficiency import volume
from reid_models.papers.henet.scatter import measure_runs, plot_efficiency, read_measurements
from reid_models.runs.models import load_trained

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


def write_run(folder: Path) -> Path:
    """A run folder as far as the figure needs it."""
    folder.mkdir()
    model = create_model("henet", 4, branches=(1, 2), backbone="resnet10t", image_size=(64, 32))
    save_model(model, folder / "best.safetensors")
    plain = {"rank1": 0.9, "rank5": 0.95, "rank10": 0.97, "mAP": 0.8, "mINP": 0.4}
    (folder / "evaluation.json").write_text(json.dumps({"plain": plain}))
    return folder


def test_runs_are_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    trained = load_trained(run)
    (row,) = measure_runs({"mine": (run, trained)}, batch_size=2, repeats=1).values()
    assert (row["rank1"], row["mean_ap"], row["feature_dim"]) == (90.0, 80.0, trained.model.feature_length)
    assert row["volume"] == volume(trained.model) and row["speed"] > 0


def test_the_command_draws_files_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, run, output = tmp_path / "models.csv", write_run(tmp_path / "mine"), tmp_path / "a.svg"
    table.write_text(MODELS)
    words = ["visualize", "efficiency", str(table), str(run), "--batch-size", "2", "--repeats", "1"]
    assert main([*words, "--output", str(output)]) == 0
    assert output.read_text().startswith("<?xml")
    output.unlink()
    (run / "evaluation.json").unlink()
    for extra, message in (
        ([], "mine must be a run that was evaluated: reid evaluate"),
        ([f"HPM={run}"], "every model must have a name of its own, but 'HPM' comes twice"),
        ([str(tmp_path / "none.csv")], "path must be a CSV file"),
    ):
        assert main([*words[:3], *(extra or words[3:4]), "--output", str(output)]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1 and not output.exists()
