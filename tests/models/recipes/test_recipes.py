"""Recipes: every row of the papers' tables by name, its network, and paper against measured."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import reid_models
from reid_models.cli import main
from reid_models.data import Augmentation, read_dataset
from reid_models.losses import HSGNET_LOSSES, WeightedLoss
from reid_models.networks import create_model
from reid_models.recipes import list_recipes, load_recipe, paper_table, read_results
from reid_models.recipes.registry import books, merged
from reid_ops import HSGM

PAPER = [name for name in list_recipes() if not name.startswith(("omniglot", "synthetic"))]
VARIANTS = ("wo_ssg_csg", "wo_hier", "wo_res", "wo_ssg", "wo_csg", "hsgnet1", "hsgnet2", "hsgnet3")


def tables() -> dict[str, list[Any]]:
    return {table["title"]: table["rows"] for book in books() for table in book.get("tables", ())}


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
        printed = dict(zip(("rank1", "rank5", "mAP"), row["targets"], strict=True))
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


@pytest.mark.parametrize("name", list_recipes())
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


@pytest.mark.parametrize("name", [name for name in list_recipes() if name not in PAPER])
def test_built_in_data_fit_their_recipe(name: str) -> None:
    data = load_recipe(name).config["data"]
    dataset = read_dataset(data["dataset"], data["root"], **data.get("dataset_options", {}))
    assert dataset.num_classes >= data["sampler"]["identities_per_batch"]
    images = Counter(record.identity for record in dataset.train)
    assert min(images.values()) >= data["sampler"]["images_per_identity"]


def test_a_recipe_is_the_callers_own() -> None:
    load_recipe("market1501_hsgnet").config["model"]["options"]["stages"].append(4)
    assert load_recipe("market1501_hsgnet").config["model"]["options"]["stages"] == [3]


def test_merging() -> None:
    under = {"a": {"b": 1, "c": [1, 2]}, "d": 2}
    assert merged(under, {"a": {"c": [3]}, "e": 4}) == {"a": {"b": 1, "c": [3]}, "d": 2, "e": 4}
    assert merged(under, {"a": None}) == {"a": None, "d": 2}
    assert under == {"a": {"b": 1, "c": [1, 2]}, "d": 2}


def test_files_as_recipes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {network: baseline}\n")
    recipe = load_recipe(path)
    assert recipe.name == "mine" and recipe.config == {"model": {"network": "baseline"}}
    path.write_text("[1, 2")
    with pytest.raises(ValueError, match=r"mine.yaml must be YAML"):
        load_recipe(path)
    path.write_text("- 1")
    with pytest.raises(ValueError, match=r"mine.yaml must hold settings by name, got list"):
        load_recipe(path)
    with pytest.raises(FileNotFoundError, match=r"none.yaml does not exist"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"unknown recipe 'veri776_hsgnte'; did you mean \"veri776_hsgnet\""):
        load_recipe("veri776_hsgnte")
    assert reid_models.load_recipe is load_recipe and reid_models.list_recipes is list_recipes


# ---------------------------------------------------------------------------------------------- tables


def as_rows(results: dict[str, dict[str, float]]) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO(paper_table(results, form="csv")))
    return {(row["table"], row["recipe"] or row["title"]): row for row in rows}


def test_table_of_nothing() -> None:
    rows = as_rows({})
    assert len(rows) == sum(len(found) for found in tables().values())
    for row in rows.values():
        assert {row[f"{metric}_measured"] for metric in ("rank1", "rank5", "mAP")} == {"not run"}
    assert rows["Table III, VeRi-776: ablation", "veri776_wo_res"]["mAP_paper"] == "79.95"
    assert rows["Table II, VehicleID", "vehicleid_test800_hsgnet"]["rank5_paper"] == ""


def test_table_of_results() -> None:
    tests = [f"vehicleid_test{size}_hsgnet" for size in (800, 1600, 2400)]
    results: dict[str, dict[str, float]] = {
        name: {"rank1": rank1, "mAP": 0.5} for name, rank1 in zip(tests, (0.8, 0.7, 0.6), strict=True)
    }
    rows = as_rows({**results, "veri776_hsgnet": {"rank1": 0.96941, "rank5": 1.0, "mAP": 0.7}})
    veri = rows["Table IV, VeRi-776: sampling sizes", "veri776_hsgnet"]
    assert (veri["rank1_measured"], veri["rank5_measured"], veri["mAP_measured"]) == (
        "96.94",
        "100.00",
        "70.00",
    )
    average = rows["Table II, VehicleID", "HSGNet, VehicleID average"]
    assert (average["rank1_measured"], average["rank5_measured"]) == ("70.00", "")
    del results[tests[0]]
    assert as_rows(results)["Table II, VehicleID", "HSGNet, VehicleID average"]["rank1_measured"] == "not run"


def test_text_and_markdown() -> None:
    results = {"market1501_hsgnet": {"rank1": 0.9512, "mAP": 0.86}}
    text, markdown = paper_table(results), paper_table(results, form="markdown")
    line = next(line for line in text.splitlines() if line.startswith("market1501_hsgnet"))
    assert line.split() == ["market1501_hsgnet", "95.0", "95.12", "98.9", "–", "86.6", "86.00"]
    assert "| market1501_hsgnet | 95.0 | 95.12 | 98.9 | – | 86.6 | 86.00 |" in markdown
    for form in (text, markdown):
        assert "the mean of the mAP printed for the three tests is 83.08." in form
    with pytest.raises(ValueError, match=r'form must be "text", "markdown" or "csv", got \'html\''):
        paper_table(form="html")


def write_evaluation(folder: Path, content: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_results_of_runs(tmp_path: Path) -> None:
    measures = {"rank1": 0.9, "rank5": 0.95, "mAP": 0.8}
    write_evaluation(tmp_path / "market1501_hsgnet", {"plain": measures, "reranked": {"rank1": 0.99}})
    write_evaluation(tmp_path / "my_trial", {"plain": {"rank1": 0.1}})
    (tmp_path / "veri776_hsgnet").mkdir()
    assert read_results(tmp_path) == {"market1501_hsgnet": measures}
    for damaged in ("{", "[]", {"reranked": {}}, {"plain": {"rank1": "high"}}):
        write_evaluation(tmp_path / "veri776_hsgnet", damaged)
        with pytest.raises(
            ValueError, match=r"veri776_hsgnet.evaluation.json is damaged or not an evaluation"
        ):
            read_results(tmp_path)
    write_evaluation(tmp_path / "veri776_hsgnet", {"plain": {"rank1": 95.0}})
    with pytest.raises(ValueError, match=r"measures must be in \[0, 1\]"):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"runs must be a folder"):
        read_results(tmp_path / "none")


# --------------------------------------------------------------------------------------------- command


def test_command_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert main(["recipes", "market1501_wo_hier"]) == 0
    shown = capsys.readouterr().out
    assert "# Table III, row wo_hier" in shown and "rank1 94.4, rank5 98.2, mAP 85.8" in shown
    assert yaml.safe_load(shown) == load_recipe("market1501_wo_hier").config


def test_command_shows_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "--table"]) == 0
    assert capsys.readouterr().out == paper_table()
    (tmp_path / "runs").mkdir()
    write_evaluation(tmp_path / "runs" / "veri776_s1", {"plain": {"mAP": 0.5}})
    expected = paper_table({"veri776_s1": {"mAP": 0.5}}, form="markdown")
    assert main(["recipes", "--table", "--form", "markdown"]) == 0
    assert capsys.readouterr().out == expected
    assert main(["recipes", "--table", "--runs", "runs", "--form", "markdown"]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["market1501_hsgne"], 'did you mean "market1501_hsgnet"'),
        (["--runs", "here"], "--runs and --form must be given with --table"),
        (["veri776_s1", "--table"], "NAME must not be given with --table, got veri776_s1"),
        (["--table", "--runs", "none"], "runs must be a folder of run folders, got none"),
    ],
)
def test_command_errors(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1


def test_a_recipe_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    """500 bytes that become 10**9 values, or a list in itself."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    for number, text in enumerate(("\n".join(levels), "a: &a [*a]", "a: &a {b: *a}")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        with pytest.raises(
            ValueError, match=rf"{number}\.yaml must be YAML \(it must hold at most 100000 values"
        ):
            load_recipe(file)
    (tmp_path / "good.yaml").write_text("data: &d {image_size: [64, 64]}\nagain: *d")
    assert load_recipe(tmp_path / "good.yaml").config["again"] == {"image_size": [64, 64]}
