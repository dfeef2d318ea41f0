"""Recipes: by name and as files, listed by paper, and the papers' tables against what was measured."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import reid_models
from reid_models.cli import main
from reid_models.data import read_dataset
from reid_models.recipes import list_recipes, load_recipe, paper_table, read_results
from reid_models.recipes.registry import books, merged

BUILT_IN = ("omniglot_baseline", "omniglot_hsgnet", "synthetic_smoke")


def tables() -> dict[str, list[Any]]:
    return {table["title"]: table["rows"] for book in books() for table in book.tables}


@pytest.mark.parametrize("name", BUILT_IN)
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
        assert {value for key, value in row.items() if key.endswith("_measured")} == {"not run"}
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


BOOK = """
paper: 'Toy'
base: {model: {network: baseline}}
parts: {small: {data: {image_size: [32, 16]}}}
recipes:
  toy_fast:
    {title: 'Fast', parts: [small], source: 'Table 1', targets: {rank1: 90.5, seconds: 0.25, joules: 3}}
  toy_slow: {title: 'Slow', parts: [], source: 'Table 1'}
tables: [{title: 'Toy, Table 1', rows: [toy_fast, toy_slow]}, {title: 'Toy, Table 2', rows: [toy_slow]}]
"""


def add_room(folder: Path, name: str, book: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "recipes.yaml").write_text(book)
    monkeypatch.setenv("REID_MODELS_PAPERS", str(folder))


def test_a_papers_targets_make_its_tables_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_room(tmp_path, "toy", BOOK, monkeypatch)
    recipe = load_recipe("toy_fast")
    assert recipe.config == {"model": {"network": "baseline"}, "data": {"image_size": [32, 16]}}
    assert recipe.paper == "Toy" and recipe.targets == {"rank1": 90.5, "seconds": 0.25, "joules": 3}
    text = paper_table({"toy_fast": {"rank1": 0.875, "seconds": 0.5}})
    header, row, other = text[text.index("Toy, Table 1") :].splitlines()[2:5]
    assert header.split("  ")[0] == "recipe" and "rank-1, paper" in header and "seconds, measured" in header
    assert row.split() == ["toy_fast", "90.5", "87.50", "0.25", "0.50", "3", "–"]
    assert other.split() == ["toy_slow", "–", "not", "run", "–", "not", "run", "–", "not", "run"]


def test_what_was_computed_needs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = BOOK.replace("joules: 3}", "depth: 12}, computed: {depth: 11, gflops: 0.25}")
    add_room(tmp_path, "toy", book, monkeypatch)
    assert load_recipe("toy_fast").computed == {"depth": 11, "gflops": 0.25}
    text = paper_table()
    header, row, other = text[text.index("Toy, Table 1") :].splitlines()[2:5]
    assert "GFLOPs, computed" in header and "depth, computed" in header and "seconds, measured" in header
    words = row.replace("not run", "not_run").split()
    assert words == ["toy_fast", "90.5", "not_run", "0.25", "not_run", "–", "0.25", "12", "11"]
    assert other.replace("not run", "not_run").split()[-2:] == ["–", "not_run"]
    rows = csv.DictReader(io.StringIO(paper_table(form="csv")))
    found = next(row for row in rows if row["recipe"] == "toy_fast")
    assert (found["depth_paper"], found["depth_computed"], found["gflops_computed"]) == ("12", "11", "0.25")


@pytest.mark.parametrize(
    ("book", "message"),
    [
        ("[1]", r"recipes.yaml must hold settings by name"),
        ("paper: 'Toy'", r"recipes.yaml must have base, parts, recipes"),
        (BOOK.replace("title: 'Slow', ", ""), r"the recipe toy_slow must have title"),
        (
            BOOK.replace("{rank1: 90.5, seconds: 0.25, joules: 3}", "[1]"),
            r"targets of toy_fast must be numbers",
        ),
        (BOOK.replace("joules: 3}", "joules: 3}, computed: 7"), r"computed of toy_fast must be numbers"),
        (BOOK.replace("toy_slow", "market1501_hsgnet"), r"'market1501_hsgnet' is in .*hsgnet.* and in .*toy"),
        (BOOK.replace("[small]", "[smal]"), r'unknown part of the recipe toy_fast .*did you mean "small"'),
    ],
)
def test_damaged_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, book: str, message: str) -> None:
    add_room(tmp_path, "toy", book, monkeypatch)
    with pytest.raises(ValueError, match=message):
        load_recipe("toy_fast")


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


def test_splits_of_a_recipe_are_averaged(tmp_path: Path) -> None:
    """Each a run of its own, as CUHK03's twenty."""
    name = "cuhk03_henet_base"
    for split, rank1 in enumerate((0.5, 0.7, 0.9)):
        folder = tmp_path / f"{name}_split{split}"
        write_evaluation(folder, {"plain": {"rank1": rank1, "mAP": 0.5}})
        (folder / "training.json").write_text(json.dumps({"seconds": 10 * (split + 1)}))
    (tmp_path / f"{name}_split3").mkdir()  # it has not been evaluated
    write_evaluation(tmp_path / f"{name}_splitx", {"plain": {"rank1": 0.0, "mAP": 0.0}})
    found = read_results(tmp_path)[name]
    assert found["splits"] == 3 and found["seconds"] == 20
    assert (found["rank1"], found["mAP"]) == (pytest.approx(0.7), 0.5)
    assert found["rank1_deviation"] == pytest.approx((2 * 0.2**2 / 3) ** 0.5) and found["mAP_deviation"] == 0
    text = paper_table({name: found})
    row = next(line for line in text.splitlines() if line.startswith(name) and "70.00" in line)
    assert row.split()[1:] == ["60.3", "70.00", "57.7", "50.00"]
    assert f"{name}: mean of 3 splits, standard deviations: rank-1 16.33, mAP 0.00." in text
    write_evaluation(tmp_path / name, {"plain": {"rank1": 0.1, "mAP": 0.2}})  # the recipe's own goes before
    assert read_results(tmp_path)[name] == {"rank1": 0.1, "mAP": 0.2}


# --------------------------------------------------------------------------------------------- command


def test_command_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    groups = [group.splitlines() for group in shown.split("\n\n")]
    assert [line.split()[0] for group in groups for line in group[1:]] == list_recipes()
    assert [group[0] for group in groups] == [book.content["paper"] for book in books()]
    assert [line.split()[0] for group in groups[:2] for line in group[1:]] == ["own_images", *BUILT_IN]
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


def test_a_recipe_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    with pytest.raises(ValueError, match=r"deep\.yaml must be YAML \(it must not nest so deep"):
        load_recipe(tmp_path / "deep.yaml")
