"""Occluded test sets: by the operator, image by image; how `reid evaluate` takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reid_ops
from reid_models.cli import main
from reid_models.data import ImageDataset, make_synthetic
from reid_models.data.occlusion import KINDS, Occlusion
from reid_models.networks import create_model, save_model
from reid_models.retrieval.evaluation import evaluate_dataset
from reid_models.retrieval.extraction import extract_features

DATASET = make_synthetic(identities=8, cameras=2, images_per_camera=2, size=(32, 32))


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("kind", [*KINDS, "both"])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_features_are_of_occluded_images(kind: str, batch_size: int) -> None:
    records = DATASET.draws[0].gallery
    images = ImageDataset(records, size=(32, 32))
    bytes_ = torch.stack([images[i].image for i in range(len(records))])
    expected = reid_ops.occlude(bytes_, 0.3, KINDS.get(kind, kind), seed=2)
    from reid_models.data.augmentation import Augmentation

    found = extract_features(
        Pixels(), records, image_size=(32, 32), batch_size=batch_size, workers=0,
        occlusion=Occlusion(kind, 0.3, seed=2),
    )  # fmt: skip
    torch.testing.assert_close(found.features, Augmentation().evaluation(expected).flatten(1))


def test_level_zero_is_the_clean_set_and_higher_levels_are_worse() -> None:
    options: dict[str, Any] = {"image_size": (32, 32), "workers": 0}
    clean = evaluate_dataset(Pixels(), DATASET, **options)
    nothing = evaluate_dataset(Pixels(), DATASET, occlusion=Occlusion("re", 0.0), **options)
    much = evaluate_dataset(Pixels(), DATASET, occlusion=Occlusion("re", 0.6), **options)
    assert nothing.plain == clean.plain and much.plain["mAP"] < clean.plain["mAP"]
    assert much.settings["occlusion"] == {"kind": "re", "level": 0.6, "seed": 0}


def test_the_command_measures_occluded_images_and_leaves_the_runs_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(create_model("baseline", 4, backbone="resnet10t", image_size=(32, 32)), path)
    words = ["evaluate", str(path), "--dataset", "synthetic", "--workers", "0", "--no-rerank", "--json"]
    assert main([*words, "--occlude", "RE+RPE:0.4"]) == 0
    assert '"level": 0.4' in capsys.readouterr().out


def test_a_run_keeps_what_was_measured_of_each_occlusion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save_model(
        create_model("baseline", 4, backbone="resnet10t", image_size=(32, 32)), run / "best.safetensors"
    )
    data = {"dataset": "synthetic", "dataset_options": {"identities": 8, "size": [32, 32]}}
    (run / "recipe.yaml").write_text(json.dumps({"data": data}))
    words = ["evaluate", str(run), "--workers", "0"]
    for occlusion in ("re:0.1", "RE+RPE:0.3"):
        assert main([*words, "--occlude", occlusion]) == 0
    folder = run / "occluded"
    assert sorted(file.name for file in folder.iterdir()) == ["re+rpe_0.3.json", "re_0.1.json"]
    assert f"written: {folder / 're+rpe_0.3.json'}" in capsys.readouterr().out
    kept = json.loads((folder / "re_0.1.json").read_text())
    assert kept["settings"]["occlusion"] == {"kind": "re", "level": 0.1, "seed": 0}
    # Whole images have a file of their own; what is measured otherwise has none.
    assert not (run / "evaluation.json").exists()
    assert main([*words, "--occlude", "re:0.2", "--metric", "euclidean"]) == 0
    assert "not written:" in capsys.readouterr().out and len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rpe:1.0", r"level must be in \[0, 1\), got 1.0"),
        ("rpe:-0.1", r"level must be in \[0, 1\), got -0.1"),
        ("rpe:nan", "level must be in"),
        ("rpe", "must be KIND:LEVEL, such as rpe:0.3, got 'rpe'"),
        ("rpe:much", "must be KIND:LEVEL"),
        ("rep:0.2", "unknown kind of occlusion 'rep'; did you mean"),
    ],
)
def test_bad_occlusions_are_refused(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=message):
        Occlusion.parse(text)
    assert main(["evaluate", "none.safetensors", "--occlude", text]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_occlusion_is_for_models(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--query", "q.safetensors", "--gallery", "g.safetensors", "--occlude", "re:0.1"]
    assert main(words) == 2
    assert "--occlude must come with RUN" in capsys.readouterr().err
