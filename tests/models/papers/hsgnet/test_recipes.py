"""HSGNet's recipes: every row of its tables by name, its network, and what the paper prints."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import torch

from reid_models.data import Augmentation
from reid_models.losses import WeightedLoss
from reid_models.networks import create_model
from reid_models.papers.hsgnet.defaults import HSGNET_LOSSES
from reid_models.recipes import load_recipe
from reid_models.recipes.registry import books
from reid_ops import HSGM

(BOOK,) = (book for book in books() if book.room == "hsgnet")
PAPER = list(BOOK.recipes)
VARIANTS = ("wo_ssg_csg", "wo_hier", "wo_res", "wo_ssg", "wo_csg", "hsgnet1", "hsgnet2", "hsgnet3")


def tables() -> dict[str, list[Any]]:
    return {table["title"]: table["rows"] for table in BOOK.tables}


def test_every_row_has_a_recipe() -> None:
    kinds = Counter(re.sub(r"^(market1501|veri776|vehicleid)_.*", r"\1", name) for name in PAPER)
    # Baseline, HSGNet, Tables III and IV and three stages; Table V; three tests of five.
    assert kinds == {"market1501": 2 + 8 + 3, "veri776": 2 + 8 + 3 + 4, "vehicleid": 3 * 5}
    assert {f"{data}_{row}" for data in ("market1501", "veri776") for row in VARIANTS} <= set(PAPER)
    counts = [len(rows) for rows in tables().values()]
    assert counts == [2, 2, 8, 7, 7, 4, 4, 4, 6, 5, 5]
    shown = {name for rows in tables().values() for row in rows for name in named(row)}
    assert shown == set(PAPER)


def named(row: Any) -> list[str]:
    return [row] if isinstance(row, str) else row["of"]


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("market1501_baseline", (93.8, 97.3, 84.5)),
        ("market1501_hsgnet", (95.0, 98.9, 86.6)),
        ("veri776_baseline", (95.23, 97.16, 77.31)),
        ("veri776_hsgnet", (96.94, 98.73, 80.65)),
        ("vehicleid_test800_hsgnet", (82.77, None, 85.34)),
        ("vehicleid_test2400_baseline", (74.38, None, 77.26)),
        ("veri776_wo_ssg_csg", (96.06, 97.89, 79.38)),
        ("veri776_wo_hier", (96.47, 98.21, 80.03)),
        ("veri776_wo_res", (96.55, 98.19, 79.95)),
        ("market1501_wo_ssg", (94.6, 98.7, 86.3)),
        ("market1501_wo_csg", (94.8, 98.9, 86.4)),
        ("veri776_hsgnet1", (96.27, 98.16, 79.60)),
        ("market1501_hsgnet3", (94.7, 98.5, 86.0)),
        ("vehicleid_test1600_hsgnet2", (None, None, None)),
        ("veri776_baseline_seresnet50", (95.77, 98.09, 79.08)),
        ("veri776_hsgnet_res2net50", (97.25, 98.76, 80.81)),
        ("market1501_s1", (94.6, None, None)),
        ("veri776_s4", (None, None, 80.3)),
    ],
)
def test_targets_are_the_papers(name: str, targets: tuple[float | None, ...]) -> None:
    expected = zip(("rank1", "rank5", "mAP"), targets, strict=True)
    assert load_recipe(name).targets == {key: value for key, value in expected if value is not None}


def test_averages_and_the_papers_slips() -> None:
    averages = {row["title"]: row for row in tables()["Table II, VehicleID"] if isinstance(row, dict)}
    slips = {}
    for title, row in averages.items():
        parts = [load_recipe(name).targets for name in row["of"]]
        printed = row["targets"]
        for metric in ("rank1", "mAP"):
            mean = round(sum(part[metric] for part in parts) / 3, 2)
            if mean != printed[metric]:
                slips[title, metric] = mean
                assert f"{mean:.2f}" in row["note"]
    assert slips == {
        ("Baseline, VehicleID average", "rank1"): 76.77,
        ("HSGNet, VehicleID average", "mAP"): 83.08,
    }


def test_insertion_stages_gain_what_the_text_says() -> None:
    for data, metric, gains in (
        ("market1501", "rank1", {"s1": 0.8, "s2": 0.9, "s4": 1.0}),
        ("veri776", "mAP", {"s1": 2.4, "s2": 2.8, "s4": 3.0}),
    ):
        baseline = load_recipe(f"{data}_baseline").targets[metric]
        for stage, gain in gains.items():
            found = load_recipe(f"{data}_{stage}").targets[metric]
            assert found == pytest.approx(baseline + gain, abs=0.05)


@pytest.mark.parametrize("name", [*PAPER, "omniglot_baseline", "omniglot_hsgnet", "synthetic_smoke"])
def test_recipes_build_their_network(name: str) -> None:
    config = load_recipe(name).config
    model, data = config["model"], config["data"]
    options = {key: value for key, value in model["options"].items() if key != "pretrained"}
    if options["backbone"] == "resnet50":  # the others are few and are built as they are
        options["backbone"] = "resnet10t"
    with torch.device("meta"):
        network = create_model(model["network"], 8, image_size=data["image_size"], **options)
    modules = [module for module in network.modules() if isinstance(module, HSGM)]
    assert len(modules) == (0 if "baseline" in name else 1)
    assert WeightedLoss(model["losses"]).names == ("triplet(features)", "cross_entropy(logits)")
    Augmentation.from_mapping(data["augmentation"])
    assert set(config) == {"seed_everything", "model", "data", "trainer"}


def test_what_recipes_change() -> None:
    def options(name: str) -> dict[str, Any]:
        return load_recipe(name).config["model"]["options"]

    for row in VARIANTS:
        assert options(f"market1501_{row}")["variant"] == row and options(f"veri776_{row}")["stages"] == [3]
    assert [options(f"veri776_{stage}")["stages"] for stage in ("s1", "s2", "hsgnet", "s4")] == [
        [1],
        [2],
        [3],
        [4],
    ]
    assert options("veri776_hsgnet_seresnet50")["backbone"] == "seresnet50"
    assert options("veri776_baseline_res2net50") == {"backbone": "res2net50_26w_4s", "pretrained": True}
    for name in PAPER:
        config = load_recipe(name).config
        data = config["data"]
        assert data["dataset"] == name.split("_")[0]
        assert data["image_size"] == ([256, 128] if "market" in name else [256, 256])
        assert data["sampler"] == {"name": "identity", "identities_per_batch": 32, "images_per_identity": 4}
        assert config["trainer"]["max_epochs"] == 120
        assert WeightedLoss(config["model"]["losses"]).terms == WeightedLoss(HSGNET_LOSSES).terms
        if data["dataset"] == "vehicleid":
            assert f"test{data['dataset_options']['test_size']}_" in name
