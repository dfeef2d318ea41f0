"""HCN from recipe to tables and figures through the command line, on made-up images; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from reid_models.cli import main
from reid_models.recipes import load_recipe
from tests.models.papers.test_hcn_recipes import small


def reid(*words: object) -> int:
    return main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], message: str, *words: object) -> None:
    """One line, and exit status 2."""
    capsys.readouterr()
    assert reid(*words) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of Table 3 with a small trunk: a run of ResNet and one of HCN."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("hcn_market1501_resnet50", "hcn_market1501"):
        settings = small(folder)
        options, losses = (load_recipe(name).config["model"][key] for key in ("options", "losses"))
        settings["model"]["options"] |= {key: options[key] for key in ("heads",) if key in options}
        settings["model"]["losses"] = losses
        settings["name"] = name
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        assert reid("train", file) == 0
    return folder


@pytest.mark.parametrize("metric", ["euclidean", "xqda"])
def test_both_rankings_by_both_metrics(
    metric: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """{Euclidean, XQDA} x {plain, re-ranked}; XQDA says that it has reduced 512 dimensions."""
    output = tmp_path / "evaluation.json"
    capsys.readouterr()
    assert (
        reid("evaluate", runs / "hcn_market1501", "--metric", metric, "--workers", 0, "--output", output) == 0
    )
    shown = capsys.readouterr().out
    assert ("xqda: features of 512 dimensions were reduced to the" in shown) == (metric == "xqda")
    content = json.loads(output.read_text())
    assert content["settings"]["metric"] == metric
    assert all(0 < content[ranking]["mAP"] <= 1 for ranking in ("plain", "reranked"))
    assert not (runs / "hcn_market1501" / "evaluation.json").exists()


def test_rows_of_tables_3_and_4(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/hcn.md says: the row's metric into the run's file; seconds of training are there already."""
    name = "hcn_market1501_resnet50"
    file = runs / name / "evaluation.json"
    assert reid("evaluate", runs / name, "--metric", "euclidean", "--workers", 0, "--output", file) == 0
    capsys.readouterr()
    assert reid("recipes", "--table", "--runs", runs) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(file.read_text())["reranked"]
    row = next(line.split() for line in lines if line.startswith(f"{name} "))
    assert row[1:] == ["81.44", f"{100 * found['rank1']:.2f}", "70.39", f"{100 * found['mAP']:.2f}"]
    seconds = json.loads((runs / name / "training.json").read_text())["seconds"]
    assert any(line.split()[-2:] == ["86400", f"{seconds:.2f}"] for line in lines)
    file.unlink()


def test_figures_3_to_5(runs: Path, tmp_path: Path) -> None:
    pair = (f"HCN={runs / 'hcn_market1501'}", f"ResNet-50={runs / 'hcn_market1501_resnet50'}")
    for words in (
        ("head_losses", *pair, "--window", 2),
        ("average_precision",),
        ("ranks", *pair, "--choose", "improved", "--count", 2, "--top", 3, "--workers", 0),
    ):
        output = tmp_path / f"{words[0]}.png"
        assert reid("visualize", *words, "--output", output) == 0
        assert output.read_bytes().startswith(b"\x89PNG")


def test_labels_that_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = {"name": "synthetic", "options": {"identities": 8}}
    datasets = [part, {**part, "first_label": 3}]
    words = ("datasets", "combined", "--options.datasets", json.dumps(datasets))
    refused(capsys, "combined: labels overlap: synthetic's end at 3, synthetic's begin at 3", *words)
    settings: dict[str, Any] = {**small(tmp_path / "runs"), "name": "combined"}
    settings["data"] |= {"dataset": "combined", "dataset_options": {"datasets": datasets}}
    file = tmp_path / "combined.yaml"
    file.write_text(yaml.safe_dump(settings))
    refused(capsys, "combined: labels overlap", "train", file)
    assert not (tmp_path / "runs").exists()


def test_cuhk03_that_is_not_as_its_protocol_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A protocol file of another version, then an image that it names and that is missing."""
    pytest.importorskip("h5py")
    from scipy.io import savemat

    from reid_models.data.datasets import cuhk03
    from tests.models.data.person_support import protocol, write_mat

    root, output = tmp_path / "cuhk03", tmp_path / "runs"
    write_mat(root / "cuhk03_release" / "cuhk-03.mat")
    file = root / cuhk03.FILES["labelled"]
    words = ("train", "hcn_cuhk03_labelled", "--data.root", root, "--model.options.pretrained", "false")
    given = protocol()
    savemat(file, {key: value for key, value in given.items() if key != "query_idx"})
    refused(capsys, "no query_idx, got", *words, "--runs", output)
    savemat(file, given)
    assert reid("datasets", "cuhk03", "--root", root) == 2  # read, and not whole beside what is published
    assert "train_identities must be 767, got 7" in capsys.readouterr().err
    (root / "cuhk03_release" / "images_labeled" / "1_003_2_07.png").unlink()
    refused(capsys, "1_003_2_07.png is in", *words, "--runs", output)
    assert not output.exists()
