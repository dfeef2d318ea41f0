"""`reid evaluate`: of a run, of weights on another dataset, and of features."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from reid_models.data import read_folder
from reid_models.retrieval.evaluation import evaluate_dataset
from reid_models.runs.models import load_trained
from tests.models.cli.retrieval.support import refused, reid


def test_evaluate_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's recipe says which dataset, and the result lies in the run."""
    assert reid("evaluate", "run") == 0
    document = json.loads((place / "run" / "evaluation.json").read_text())
    trained = load_trained(place / "run")
    expected = evaluate_dataset(
        trained.model,
        read_folder(place / "images", seed=1),
        rerank={"k1": 20, "k2": 6, "lambda_value": 0.3, "preset": "zhong"},
        **trained.extraction,
    )
    assert document == json.loads(expected.to_json())
    *table, last = capsys.readouterr().out.splitlines()[1:]
    assert last == "12 of 12 queries counted, in a gallery of 24 images"
    assert [line.split()[0] for line in table] == ["rank1", "plain", "reranked"]
    assert table[1].split()[4] == f"{100 * document['plain']['mAP']:.2f}"


@pytest.mark.parametrize(
    "words",
    [
        "--expand 2", "--metric euclidean", "--average-precision trapezoid", "--flip", "--k1 6", "--k2 2",
        "--lambda 0.2", "--preset torchreid", "--autocast bfloat16",
    ],
)  # fmt: skip
def test_a_run_keeps_only_the_default_measures(
    words: str, place: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They stand beside other runs' in tables and reports."""
    kept = place / "run" / "evaluation.json"
    kept.write_text("the run's own")
    output = fresh / "other.json"
    assert reid("evaluate", "run", *words.split(), "--output", output) == 0
    assert kept.read_text() == "the run's own" and json.loads(output.read_text())["plain"]
    expected = f"not written: run/evaluation.json, which is for the default measures ({words.split()[0]})"
    assert expected in capsys.readouterr().out.splitlines()
    assert reid("evaluate", "run", *words.split(), "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["plain"] and shown.err == f"{expected}\n"


def test_more_or_fewer_rankings_of_the_default_measures(place: Path) -> None:
    for words, found in (("--no-rerank", "reranked"), ("--single-shot 2", "single_shot")):
        kept = place / "run" / "evaluation.json"
        kept.unlink(missing_ok=True)
        assert reid("evaluate", "run", *words.split()) == 0
        assert (json.loads(kept.read_text())[found] is None) == (found == "reranked")


def test_evaluate_features(place: Path, features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--query", features / "query.safetensors", "--gallery", features / "gallery.safetensors")
    assert reid("evaluate", "run", "--k1", 6, "--k2", 2, "--json") == 0
    of_run = json.loads(capsys.readouterr().out)
    assert reid("evaluate", *words, "--k1", 6, "--k2", 2, "--single-shot", 3, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plain"] == pytest.approx(of_run["plain"])
    assert document["reranked"] == pytest.approx(of_run["reranked"])
    assert set(document["single_shot"]) == {"rank1", "rank5", "rank10"}
    assert reid("evaluate", *words, "--no-rerank", "--same-camera-counts", "--json") == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["reranked"] is None and counted["plain"]["rank1"] == 1.0


@pytest.mark.parametrize("metric", ["xqda", "mahalanobis"])
def test_fitted_metrics(metric: str, place: Path, features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the training images of the dataset, or to a file of features: the same numbers."""
    words = ("--metric", metric, "--k1", 6, "--k2", 2, "--json")
    assert reid("evaluate", "run", *words) == 0
    shown = capsys.readouterr()
    of_run = json.loads(shown.out)
    assert "were reduced to the" in shown.err and of_run["settings"]["notes"][0] in shown.err
    assert "not written" in shown.err and of_run["settings"]["metric"] == metric
    files = ("--query", features / "query.safetensors", "--gallery", features / "gallery.safetensors")
    assert refused(capsys, "evaluate", *files, *words).startswith("reid evaluate: --fit must be given with")
    train = ("--dataset", "folder", "--root", "images", "--options.seed", 1, "--split", "train")
    assert reid("extract", *train, "--model", "run", "--dtype", "float32", "--output", place / "train") == 0
    fit = ("--fit", place / "train" / "train.safetensors")
    capsys.readouterr()
    assert reid("evaluate", *files, *fit, *words) == 0
    given = json.loads(capsys.readouterr().out)
    for ranking in ("plain", "reranked"):
        assert given[ranking] == pytest.approx(of_run[ranking], abs=0.05)  # features are the same to rounding
    output = place / "lists.json"
    rerank = (
        "rerank",
        files[1],
        files[3],
        *fit,
        "--metric",
        metric,
        "--k1",
        6,
        "--k2",
        2,
        "--output",
        output,
    )
    assert reid(*rerank) == 0
    assert f"{100 * given['reranked']['mAP']:.2f}" in capsys.readouterr().out.splitlines()[-1]


def test_the_metric_by_its_name_is_the_default(place: Path) -> None:
    kept = place / "run" / "evaluation.json"
    kept.unlink(missing_ok=True)
    assert reid("evaluate", "run", "--metric", "cosine", "--no-rerank") == 0
    assert json.loads(kept.read_text())["settings"]["metric"] == "cosine"


def test_evaluate_weights_on_another_dataset(place: Path, fresh: Path) -> None:
    kept = place / "run" / "evaluation.json"
    kept.write_text("the run's own")
    words = ("--dataset", "synthetic", "--options.identities", 8, "--options.size", "[32, 32]", "--no-rerank")
    for model in ("run", "other.safetensors"):
        assert reid("evaluate", model, *words, "--flip", "--output", fresh / f"{Path(model).stem}.json") == 0
    assert reid("evaluate", "run", "--options.seed", 2, "--no-rerank") == 0
    assert kept.read_text() == "the run's own"
    one, other = (json.loads((fresh / f"{name}.json").read_text()) for name in ("run", "other"))
    assert one["settings"]["dataset"] == "synthetic" and one["settings"]["flip_average"]
    assert one["plain"] != other["plain"]


def test_evaluate_writes_a_table(features: Path, fresh: Path) -> None:
    words = ("--query", features / "query.safetensors", "--gallery", features / "gallery.safetensors")
    assert reid("evaluate", *words, "--expand", 2, "--output", fresh / "e.csv") == 0
    with (fresh / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ranking"] for row in rows] == ["plain", "reranked"] and 0 < float(rows[0]["mAP"]) < 1
