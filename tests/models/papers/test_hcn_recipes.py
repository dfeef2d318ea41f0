"""HCN's recipes: the authors' solver, every row of Tables 2 and 3, how rows are measured, times of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_models.data.augmentation import Augmentation
from reid_models.networks import create_model, save_model
from reid_models.recipes import list_recipes, load_recipe, paper_table, read_results
from reid_models.runs.models import load_trained
from reid_models.training.configuration import make_parser, read_configuration
from reid_models.training.schedule import make_optimizer
from reid_models.training.train import train

RECIPES = [name for name in list_recipes() if name.startswith("hcn_")]


def test_the_rows_are_the_papers() -> None:
    assert len(RECIPES) == 11
    targets = {
        name: (recipe.targets["rank1"], recipe.targets["mAP"])
        for name in RECIPES
        if (recipe := load_recipe(name))
    }
    assert targets["hcn_combined_cuhk03_detected"] == (43.7, 45.3)
    assert targets["hcn_cuhk03_labelled"] == (43.4, 46.0)
    assert targets["hcn_market1501_resnet50"] == (81.44, 70.39)
    for name in RECIPES:
        recipe = load_recipe(name)
        assert recipe.measure["metric"] == ("euclidean" if "market1501" in name else "xqda")
        assert recipe.config["model"]["network"] == "hcn"
        heads = recipe.config["model"]["options"].get("heads", ["r5", "c1", "c2"])
        assert heads == [term["output"] for term in recipe.config["model"]["losses"]]


@pytest.mark.parametrize(
    "name", ["hcn_market1501", "hcn_combined_cuhk03_labelled", "hcn_cuhk03_detected_resnet50"]
)
def test_the_solver_is_the_authors(name: str) -> None:
    settings = read_configuration(
        make_parser(), load_recipe(name).config, ["--model.options.pretrained", "false"]
    )
    longer = name != "hcn_market1501"
    assert settings.trainer.max_steps == (75_000 if longer else 50_000) and settings.trainer.max_epochs == -1
    assert settings.trainer.val_check_interval == settings.trainer.max_steps
    assert settings.model.schedule["every"] == (15_000 if longer else 20_000)
    assert settings.data.sampler == {"name": "shuffled", "batch_size": 16}
    options = {**settings.model.options, "backbone": "resnet18", "image_size": (64, 64)}
    network = create_model("hcn", 5, **options)
    rest, biases = make_optimizer(network, settings.model.optimizer).param_groups
    assert (rest["lr"], rest["momentum"], rest["weight_decay"]) == (0.001, 0.9, 5e-4)
    assert (biases["lr"], biases["weight_decay"]) == (0.002, 0.0)
    assert len(biases["params"]) == len(network.heads)
    augmentation = Augmentation.from_mapping(settings.data.augmentation)
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    found = augmentation.evaluation(pixel).flatten()
    torch.testing.assert_close(found, torch.tensor([30.0 - 104, 20.0 - 117, 10.0 - 124]), rtol=0, atol=1e-3)


def test_a_row_is_measured_as_it_says(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "settings": {"metric": "xqda"},
        "plain": {"rank1": 0.25, "mAP": 0.5},
        "reranked": {"rank1": 0.5, "mAP": 0.75},
    }
    names = ("hcn_cuhk03_detected_resnet50", "hcn_cuhk03_detected", "hcn_market1501")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content))
    (tmp_path / names[0] / "training.json").write_text('{"seconds": 64800.5, "steps": 75000}')
    found = read_results(tmp_path)
    assert found == {
        names[0]: {"rank1": 0.25, "mAP": 0.5, "seconds": 64800.5},
        names[1]: {"rank1": 0.5, "mAP": 0.75},
    }  # Market-1501's row is by the Euclidean distance
    lines = paper_table(found).splitlines()
    assert any(line.split()[-2:] == ["129600", "64800.50"] for line in lines if "CUHK03 detected" in line)
    (tmp_path / names[0] / "training.json").write_text("{}")
    with pytest.raises(ValueError, match=r"training\.json is damaged"):
        read_results(tmp_path)


def small(runs: Path, **trainer: Any) -> dict[str, Any]:
    """The recipe with a small trunk, on made-up images, for a few steps."""
    config = load_recipe("hcn_market1501").config
    config["model"]["options"] |= {"backbone": "resnet10t", "pretrained": False}
    config["data"] |= {
        "dataset": "synthetic",
        "dataset_options": {"identities": 12, "size": [32, 32]},
        "image_size": [32, 32],
        "sampler": {"name": "shuffled", "batch_size": 4},
        "workers": 0,
    }
    config["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    config["trainer"] |= {"max_steps": 10, "val_check_interval": 10, "log_every_n_steps": 1, **trainer}
    return {**config, "runs": str(runs), "name": "hcn", "checkpoint_every_n_steps": 1}


def test_the_recipe_trains_and_its_time_is_kept(tmp_path: Path) -> None:
    """10 steps of 9 an epoch; stopped after 4 and gone on with."""
    train(small(tmp_path, max_steps=4))
    first = json.loads((tmp_path / "hcn" / "training.json").read_text())
    folder = train({**small(tmp_path), "resume": True})
    whole = json.loads((folder / "training.json").read_text())
    assert first["steps"] == 4 and whole["steps"] == 10 and whole["seconds"] > first["seconds"] > 0
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert all(f"step/cross_entropy({head})" in header for head in ("r5", "c1", "c2"))
    trained = load_trained(folder)
    assert trained.extraction["augmentation"].channels == "bgr"
    assert trained.model.options["input"] == "caffe"


def test_files_of_hcn(tmp_path: Path) -> None:
    """Options come back, and the first convolution is not turned round twice."""
    torch.manual_seed(0)
    model = create_model(
        "hcn", 4, backbone="resnet10t", image_size=(32, 32), input="caffe", test_feature="all"
    )
    save_model(model, tmp_path / "hcn.safetensors")
    loaded = load_trained(tmp_path / "hcn.safetensors").model
    assert loaded.options == model.options
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.eval()(images), model.eval()(images))
