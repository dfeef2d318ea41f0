"""Evidence in the small: means over seeds, the file, and HCN's experiment cut down to seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from examples.evidence import hcn
from examples.evidence.experiments import over_seeds, print_rows, write_result
from reid_models.data import ReidDataset, make_synthetic


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


@pytest.mark.slow
def test_hcns_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_synthetic(identities=12, size=(32, 32))

    def few(name: str) -> ReidDataset:
        return dataset

    monkeypatch.setattr(hcn, "read_dataset", few)
    for name, value in {"SEEDS": (0, 1), "STEPS": 2, "BATCH": 4}.items():
        monkeypatch.setattr(hcn, name, value)
    found = hcn.run(tmp_path, Console(quiet=True))
    assert list(found["rows"]) == [
        f"{network}, {metric}, {ranking}"
        for network in ("resnet", "hcn")
        for metric in ("euclidean", "xqda")
        for ranking in ("plain", "reranked")
    ]
    row = found["rows"]["hcn, xqda, reranked"]["mAP"]
    assert len(row["values"]) == 2 and 0 < row["mean"] <= 1
