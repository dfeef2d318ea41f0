"""Evidence in the small: means over seeds, the file, and experiments cut down to seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples.evidence import experiments, hcn, henet
from examples.evidence.experiments import over_seeds, print_rows, run_rows, write_result
from reid_models.data import ReidDataset, read_dataset
from reid_models.recipes.registry import merged
from reid_models.runs.models import Trained


def test_means_and_deviations() -> None:
    found = over_seeds([{"mAP": 0.25}, {"mAP": 0.75}])
    assert found == {"mAP": {"mean": 0.5, "deviation": 0.25, "values": [0.25, 0.75]}}
    console = Console(record=True, width=60)
    print_rows(console, "rows", {"HCN": found}, ["mAP"])
    assert "50.0 ± 25.0" in console.export_text()


def test_the_file_says_how_it_is_made(tmp_path: Path) -> None:
    write_result(tmp_path / "hcn.json", "hcn", {"rows": {"HCN": 1}}, 12.34)
    content = json.loads((tmp_path / "hcn.json").read_text())
    assert content["command"] == "python -m examples.evidence hcn"
    assert content["rows"] == {"HCN": 1} and content["seconds"] == 12.3 and content["machine"]


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> ReidDataset:
    """A small one in the place of the built-in images, to train on as well."""
    options = {"identities": 8, "cameras": 2, "images_per_camera": 2, "size": [32, 32]}
    small = read_dataset("synthetic", **options)
    for module in (hcn, henet):
        monkeypatch.setattr(module, "read_dataset", lambda name: small)
    data = {"dataset": "synthetic", "dataset_options": options, "image_size": [32, 32]}
    monkeypatch.setattr(experiments, "BASE", merged(experiments.BASE, {"data": data}))
    return small


def test_every_network_is_trained_with_every_seed(
    dataset: ReidDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which networks, seeds and steps, and what becomes of the measures; no network is trained."""
    asked: list[tuple[Any, ...]] = []

    def train_small(folder: Path, name: str, settings: Any, *, steps: int, seed: int) -> Any:
        asked.append((folder, name, settings["width"], steps, seed))
        return settings["width"] + seed

    def measure(trained: Any, tested: ReidDataset) -> dict[str, dict[str, float]]:
        assert tested is dataset
        return {"clean": {"mAP": trained / 10}, "re:0.1": {"mAP": trained / 100}}

    monkeypatch.setattr(experiments, "train_small", train_small)
    networks = {"a": {"width": 1}, "b": {"width": 4}}
    console = Console(record=True, width=80)
    found = run_rows(tmp_path, console, dataset, networks, measure, seeds=(0, 2), steps=7)
    assert asked == [
        (tmp_path, name, settings["width"], 7, seed) for name, settings in networks.items() for seed in (0, 2)
    ]
    assert list(found) == ["a, clean", "a, re:0.1", "b, clean", "b, re:0.1"]
    assert found["b, clean"]["mAP"]["values"] == [0.4, 0.6] and found["b, clean"]["mAP"]["mean"] == 0.5
    assert "b, seed 2: " in console.export_text()


def test_hcns_experiment(dataset: ReidDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SEEDS": (0,), "STEPS": 1, "BATCH": 4}.items():
        monkeypatch.setattr(hcn, name, value)
    found = hcn.run(tmp_path, Console(quiet=True))
    assert list(found["rows"]) == [
        f"{network}, {metric}, {ranking}"
        for network in ("resnet", "hcn")
        for metric in ("euclidean", "xqda")
        for ranking in ("plain", "reranked")
    ]
    assert 0 < found["rows"]["hcn, xqda, reranked"]["mAP"]["mean"] <= 1
    assert found["queries"] == len(dataset.draws[0].query) and found["seeds"] == [0]
    assert {path.name for path in tmp_path.iterdir()} == {"resnet_0", "hcn_0"}


def test_henets_experiment(dataset: ReidDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained in one way, tested in all: the grid's other rows are the same code with other settings."""
    trained = {"RE+RPE": henet.TRAINED["RE+RPE"]}
    changes = {"SEEDS": (0,), "STEPS": 1, "IDENTITIES": 2, "TRAINED": trained, "LEVELS": (0.2, 0.6)}
    for name, value in changes.items():
        monkeypatch.setattr(henet, name, value)
    seen: list[Trained] = []
    measure = henet.measure

    def measured(trained: Trained, tested: ReidDataset) -> dict[str, dict[str, float]]:
        seen.append(trained)
        return measure(trained, tested)

    monkeypatch.setattr(henet, "measure", measured)
    found = henet.run(tmp_path, Console(quiet=True))
    tests = ["clean", *(f"{kind}:{level}" for kind in ("re", "rpe", "re+rpe") for level in (0.2, 0.6))]
    assert list(found["rows"]) == [f"RE+RPE, {test}" for test in tests]
    assert all(0 < row["mAP"]["mean"] <= 1 for row in found["rows"].values())
    assert seen[0].data["augmentation"]["polygon"] == 0.5 and seen[0].model.options["branches"] == [1, 2]
