"""Run folders and the reports of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reid_models.data import make_synthetic
from reid_models.report import (
    Table,
    Text,
    describe_machine,
    name_paths,
    picture_sections,
    rank_dataset,
    read_metrics,
    read_run,
    read_runs,
    report_runs,
)
from reid_models.runs.models import load_trained
from reid_ops import k_reciprocal_rerank

from .report_support import Page, write_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "one"), write_run(tmp_path / "two", "hsgnet", stage=2)]


def test_run_folder(runs: list[Path]) -> None:
    run = read_run(runs[1])
    assert run.name == "two" and run.weights == runs[1] / "best.safetensors"
    assert list(run.scores) == ["plain", "reranked"]  # neither deviation nor settings
    assert run.scores["plain"]["mAP"] == pytest.approx(42.0)
    assert run.cmc == {"plain": [0.52, 0.75, 1.0], "reranked": [0.6, 0.8, 1.0]}
    assert run.setting("model", "options", "stages") == [2]
    assert run.setting("model", "nothing", "there") is None
    assert run.label("plain") == "two" and run.label("reranked") == "two, re-ranked"
    assert run.log is not None
    steps, losses = run.log.series("train/total")
    assert steps.tolist() == [9, 19] and losses.tolist() == [3, 2]
    assert run.log.series("train/total", "epoch")[0].tolist() == [0, 1]


def test_parts_of_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(
        '{"plain": {"mAP": 0.5, "rank1": 1}, "raw": {"mAP": 0.25}, "single_shot": {"rank1": 0.5}}'
    )
    run = read_run(tmp_path, name="pixels")
    assert run.scores == {
        "plain": {"mAP": 50, "rank1": 100},
        "raw": {"mAP": 25},
        "single_shot": {"rank1": 50},
    }
    assert (run.recipe, run.recipe_text, run.log, run.weights, run.cmc) == (None, "", None, None, {})
    assert run.label("raw") == "pixels, raw" and run.label("single_shot") == "pixels, single-shot"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("recipe.yaml", "a: [", "recipe.yaml is not YAML"),
        ("recipe.yaml", "- a", "recipe.yaml must hold a mapping, got list"),
        ("recipe.yaml", "a: !!python/object/apply:os.getcwd []", "recipe.yaml is not YAML"),
        ("recipe.yaml", b"\xff", "must be UTF-8"),
        ("evaluation.json", "{", "evaluation.json is not JSON"),
        ("evaluation.json", "[]", "must hold an object, got list"),
        ("evaluation.json", '{"plain": {"mAP": 80.6}}', r"plain must have shares in \[0, 1\]"),
        ("evaluation.json", '{"plain": {"mAP": null}}', r"plain must have shares in \[0, 1\]"),
        ("metrics.csv", "", "must have the columns epoch and step"),
        ("metrics.csv", "epoch,step,lr\n", "has no rows"),
        ("metrics.csv", "epoch,step,lr\n0,1,high\n", "line 2 .* must have numbers, got 'high'"),
        ("metrics.csv", "epoch,step,lr\n0,1\n", "line 2 .* must have 3 values"),
        ("metrics.csv", "epoch,step,lr\n0,1,2,3\n", "line 2 .* must have 3 values"),
    ],
)
def test_damaged_run_folder(tmp_path: Path, file: str, content: str | bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path)


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold one of recipe\.yaml"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a run folder"):
        read_run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"must be a metrics\.csv"):
        read_metrics(tmp_path)


def test_a_resumed_log_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step,train/total,val/mAP\n1,9,5.0,\n0,4,7.0,\n1,9,4.0,\n1,9,,0.5\n1,14,nan,\n")
    log = read_metrics(file)
    steps, losses = log.series("train/total")
    assert steps.tolist() == [4, 9] and losses.tolist() == [7, 4]
    assert log.series("val/mAP", "epoch")[1].tolist() == [0.5]
    assert log.columns == ("train/total", "val/mAP")
    with pytest.raises(ValueError, match=r"column must be one of train/total, val/mAP, got 'loss'"):
        log.series("loss")
    with pytest.raises(ValueError, match="against must be"):
        log.series("val/mAP", "time")


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a/run", "b/run", "x=y"):
        Path(folder).mkdir(parents=True)
    assert list(name_paths(["a/run", "b/run"])) == ["a/run", "b/run"]
    assert name_paths(["mine=a/run", "x=y"]) == {"mine": Path("a/run"), "x=y": Path("x=y")}
    with pytest.raises(ValueError, match="comes twice"):
        name_paths(["a/run", "./a/run"])
    with pytest.raises(ValueError, match="'n' comes twice"):
        name_paths(["n=a/run", "n=b/run"])


def test_report_of_two_runs(runs: list[Path]) -> None:
    report = report_runs(
        read_runs(runs),
        pictures=[Text(["Pictures would be here."], "More")],
        seconds={"one": {"training": 12.5}, "two": {"training": 13.0, "features": 1.0}},
        machine={"processor": "<b>fast</b>"},
    )
    page = Page(report.to_html())
    page.check_alone()
    assert report.title == "one and two" and report.subtitle == "Retrieval on synthetic"
    assert page.headings == [
        "Results", "What was run", "Times", "Training", "CMC", "More", "Machine", "Recipes",
    ]  # fmt: skip
    results, settings, times, machine = page.tables
    assert results == [
        ["method", "rank-1", "rank-5", "rank-10", "mAP", "mINP"],
        ["one", "50.0", "75.0", "100.0", "40.0", "30.0"],
        ["one, re-ranked", "60.0", "80.0", "100.0", "55.0", "45.0"],
        ["two", "52.0", "75.0", "100.0", "42.0", "30.0"],
        ["two, re-ranked", "60.0", "80.0", "100.0", "57.0", "45.0"],
    ]
    assert "57.0" in page.bold and "55.0" not in page.bold
    assert settings[0] == ["run", "network", "options", "dataset", "image size", "epochs", "seed"]
    assert settings[2] == [
        "two", "hsgnet", "backbone resnet10t, stages 2", "synthetic", "64×32", "3", "3",
    ]  # fmt: skip
    assert times == [["method", "training", "features"], ["one", "12.50", "–"], ["two", "13.00", "1.00"]]
    assert machine == [["processor", "<b>fast</b>"]]
    assert len(page.images) == 2  # training and CMC
    assert (runs[0] / "recipe.yaml").read_text().strip() in "".join(page.text)
    assert "12 queries, 24 gallery images." in "".join(page.text)


def test_settings_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    options = "{stages: [2, 3], hsgm: {aggregate_scale: 0.3333333333333333, space: true}}"
    (folder / "recipe.yaml").write_text(f"model: {{options: {options}}}\ndata: {{image_size: [256, 128]}}")
    row = Page(report_runs([read_run(folder)]).to_html()).tables[0][1]
    assert row[2] == "stages (2, 3), hsgm (aggregate_scale 0.333333, space True)"
    assert row[4] == "256×128"


def test_report_says_what_is_not_there(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "recipe.yaml").write_text("model: {network: hsgnet}")
    page = Page(report_runs([read_run(bare)]).to_html())
    assert page.headings == ["Results", "What was run", "Recipes"]
    assert "Not evaluated: bare. `reid evaluate RUN` adds the results of a run." in page.text
    assert page.tables[0][1] == ["bare", "hsgnet", "–", "–", "–", "–", "–"]
    with pytest.raises(ValueError, match="at least one run"):
        report_runs([])


def test_report_of_hostile_names(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>$\\frac"
    folder = write_run(tmp_path / "run", weights=False)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation[name] = {"mAP": 0.5}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    page = Page(report_runs([read_run(folder, name=name)]).to_html())
    page.check_alone()
    assert page.tables[0][-1] == [f"{name}, {name}", "–", "–", "–", "50.0", "–"]


def test_machine() -> None:
    facts = describe_machine("cpu")
    assert list(facts) == ["processor", "cores", "system", "versions"]
    assert all(facts.values()) and re.search(r"torch \d", facts["versions"])


# With the networks


def test_rankings_of_networks(runs: list[Path]) -> None:
    dataset = make_synthetic(identities=8, size=(64, 32))
    networks = {"one": load_trained(runs[0]), "two": load_trained(runs[1])}
    rerank = {"k1": 5, "k2": 2, "lambda_value": 0.3}
    found = rank_dataset(networks, dataset, rerank=rerank, device="cpu", workers=0)
    assert list(found) == ["one", "one, re-ranked", "two", "two, re-ranked"]
    split = dataset.draws[0]
    for retrieval in found.values():
        assert retrieval.distance.shape == (len(split.query), len(split.gallery))
        assert 0 < retrieval.report.mean_ap <= 1
    from reid_models.retrieval.extraction import extract_features

    query, gallery = (
        extract_features(networks["two"].model, part, device="cpu", workers=0, **networks["two"].extraction)
        for part in (split.query, split.gallery)
    )
    assert networks["two"].extraction["augmentation"].mean == (0.5, 0.5, 0.5)  # the run's, not ImageNet's
    left, right = (f.features / f.features.norm(dim=1, keepdim=True) for f in (query, gallery))
    np.testing.assert_allclose(found["two"].distance, 1 - left @ right.T, atol=1e-5)
    np.testing.assert_allclose(
        found["two, re-ranked"].distance, k_reciprocal_rerank(left, right, **rerank), atol=1e-5
    )


def test_pictures_of_networks(runs: list[Path]) -> None:
    dataset = make_synthetic(identities=8, size=(64, 32))
    networks = {"one": load_trained(runs[0]), "two": load_trained(runs[1])}
    sections = picture_sections(networks, dataset, count=2, top=4, device="cpu", workers=0)
    lists, panels, montage = (section.content.axes for section in sections)  # type: ignore[union-attr]
    assert [axes.get_title() for axes in lists].count("probe") == 2
    assert len(lists) == 2 + 2 * 2 * 4
    assert len(panels) == 3 * 4 and len(panels[-1].images) == 2
    assert len(montage) == 4 * 3  # identities of training, cameras
    assert "AP rose most" in sections[0].caption  # type: ignore[union-attr]
    several = picture_sections(
        networks, dataset, count=2, top=4, device="cpu", workers=0, rerank={"k1": 4, "k2": 2}
    )
    assert [section.heading for section in several[:2]] == ["Ranked lists", "Re-ranked lists"]
    for section in several[:2]:  # two rows a query, not four
        assert len(section.content.axes) == 2 + 2 * 2 * 4  # type: ignore[union-attr]
    alone = picture_sections({"one": networks["one"]}, dataset, count=1, top=2, device="cpu", workers=0)
    assert "of the lowest AP" in alone[0].caption  # type: ignore[union-attr]
    page = Page(report_runs(read_runs(runs), pictures=[*sections, Table(("a",), [("b",)])]).to_html())
    assert len(page.images) == 5
    page.check_alone()
