"""HENet's efficiency: sizes of the paper's models, Table 1's scores, measuring."""

from __future__ import annotations

import pytest
import torch

from reid_models import create_model, list_recipes, load_recipe
from reid_models.papers.henet.efficiency import TABLE_1, measure_efficiency, score, volume


def test_table_1_scores_are_those_of_its_columns() -> None:
    printed = (2.55, 3.45, 1.00, 2.42, 2.76, 3.08, 3.41, 3.52)
    assert tuple(round(found.total, 2) for found in score(TABLE_1).values()) == printed


def test_a_model_is_scored_against_the_papers_references() -> None:
    row = TABLE_1["HENet(+Both)"]
    (found,) = score({"mine": row}).values()
    assert found.total == pytest.approx(score(TABLE_1)["HENet(+Both)"].total)
    with pytest.raises(ValueError, match="volume"):
        score({"mine": {**row, "volume": 0.0}})


@pytest.mark.parametrize(("recovery", "bare", "whole"), [(None, 162.8, 168.7), ((16, 16), 223.9, 231.2)])
def test_volumes_of_the_papers_models(recovery: tuple[int, int] | None, bare: float, whole: float) -> None:
    with torch.device("cpu"):
        model = create_model("henet", 751, recovery=recovery)
    assert round(volume(model), 1) == bare
    assert round(volume(model, classifiers=True), 1) == whole


@pytest.mark.parametrize(
    "name", [name for name in list_recipes() if load_recipe(name).computed and "henet" in name]
)
def test_what_recipes_say_is_computed(name: str) -> None:
    """Tables 1 to 3, on networks without memory."""
    recipe = load_recipe(name)
    options = {**recipe.config["model"]["options"], "pretrained": False}
    with torch.device("meta"):
        model = create_model("henet", 751, **options)
    expected = {"feature_length": model.feature_length, "megabytes": round(volume(model), 1)}
    assert recipe.computed == {measure: expected[measure] for measure in recipe.computed}
    assert recipe.computed["feature_length"] == recipe.targets["feature_length"]


def test_measuring_leaves_the_network_as_it_is() -> None:
    model = create_model("henet", 4, branches=(1, 2), backbone="resnet10t", image_size=(64, 32))
    model.heads.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = measure_efficiency(model, batch_size=2, repeats=2)
    assert found.feature_length == 2048 and found.images_per_second > 0
    assert found.megabytes == volume(model) < found.with_classifiers
    assert model.training and model.stages.training and not model.heads.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        measure_efficiency(model, batch_size=0)


def test_the_augmentations_share_of_a_step_is_measured() -> None:
    from benchmarks.henet_augmentation import measure

    found = measure(batch=8, steps=2, backbone="resnet10t", size=(64, 32))
    assert 0 < found["share"] < 1 and found["augmentation"] > 0 and found["network"] > 0
