"""CSN by its recipes: training by pairs, evaluation, shortlists and figures through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reid_models.cli import main
from reid_models.networks import create_model
from reid_models.recipes import list_recipes, load_recipe
from reid_models.retrieval.features import load_features
from reid_models.runs.models import load_trained
from reid_models.training.configuration import make_parser, read_configuration
from reid_models.training.train import train

RECIPES = [name for name in list_recipes() if "_csn_" in name]
DATA = {"dataset": "synthetic", "dataset_options": {"identities": 12, "cameras": 2, "size": [32, 24]}}
SHARED: dict[str, Any] = {
    "data": {
        **DATA, "image_size": [32, 24], "workers": 0,
        "sampler": {"name": "pairs", "anchors_per_batch": 4, "negatives": 2},
    },
    "trainer": {
        "max_epochs": 2, "check_val_every_n_epoch": 2, "accelerator": "cpu", "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}  # fmt: skip


def reid(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by a recipe of the paper on made-up images."""
    config = load_recipe("viper_csn_l2_l3").config
    model = {**config["model"], "options": {"levels": [2, 3], "part_sizes": [4, 2, 2]}}
    data = {**config["data"], **SHARED["data"]}
    folder = tmp_path_factory.mktemp("csn")
    recipe = {"model": model, "data": data, "trainer": SHARED["trainer"], "seed_everything": 0}
    return train({**recipe, "name": "csn", "runs": str(folder)})


def test_the_rows_are_the_papers() -> None:
    assert len(RECIPES) == 15
    for name in RECIPES:
        recipe = load_recipe(name)
        settings = read_configuration(make_parser(), recipe.config, ["--data.root", "somewhere"])
        assert settings.model.optimizer == {"name": "Adam", "lr": 0.0005, "weight_decay": 0.0005}
        assert settings.data.sampler["negatives"] == 2
        options = {**settings.model.options, "image_size": settings.data.image_size}
        model = create_model("csn", 2, **options)
        outputs = {term["output"] for term in settings.model.losses}
        assert ("transforms" in outputs) == (model.parts != "central")
    assert load_recipe("cuhk03_detected_csn_l2_l3_l4").targets == {
        "rank1": 86.45, "rank5": 97.5, "rank10": 99.1,
    }  # fmt: skip
    assert load_recipe("viper_csn_l2_l3").targets["rank1"] == 48.03
    assert load_recipe("cuhk03_detected_csn_table5").targets["depth"] == 18


def test_training_learns_the_pairs(run: Path) -> None:
    lines = (run / "metrics.csv").read_text().splitlines()
    header = lines[0].split(",")
    for column in ("cross_entropy(logits)", "contrastive(embeddings)", "transform_priors(transforms)"):
        assert f"train/{column}" in header
    assert (run / "best.safetensors").is_file()


def test_evaluation_by_match(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("evaluate", run, "--workers", 0, "--no-rerank", "--json")
    assert reid(*words) == 0
    all_pairs = json.loads(capsys.readouterr().out)
    assert all_pairs["settings"]["metric"] == "match" and all_pairs["shortlist_recall"] is None
    assert (run / "evaluation.json").is_file()
    assert reid(*words, "--match.score", "probability", "--match.megabytes", "1.0") == 0
    plain = json.loads(capsys.readouterr().out)
    assert 0 < plain["plain"]["mAP"] <= 1
    assert reid(*words, "--shortlist", 3) == 0
    shown = capsys.readouterr()
    short = json.loads(shown.out)
    assert 0 < short["shortlist_recall"] <= 1
    share = f"{100 * short['shortlist_recall']:.2f} % of queries"
    assert f"a right image is on the shortlist of 3: {share}" in shown.err
    for metric in ("cosine", "euclidean"):
        assert reid(*words, "--metric", metric) == 0
        assert json.loads(capsys.readouterr().out)["settings"]["metric"] == metric


def test_codes_on_disk(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--options.identities", 12, "--options.cameras", 2, "--options.size", "[32,24]")
    extract = (
        "extract",
        "--dataset",
        "synthetic",
        *options,
        "--model",
        run,
        "--dtype",
        "float32",
        "--workers",
        0,
    )
    assert reid(*extract, "--output", tmp_path / "codes") == 0
    files = [tmp_path / "codes" / f"{name}.safetensors" for name in ("query", "gallery")]
    words = (
        "evaluate",
        "--query",
        files[0],
        "--gallery",
        files[1],
        "--metric",
        "match",
        "--no-rerank",
        "--json",
    )
    capsys.readouterr()
    assert reid(*words) == 0  # the network is found by the path in the file
    of_files = json.loads(capsys.readouterr().out)
    assert reid("evaluate", run, "--workers", 0, "--no-rerank", "--json") == 0
    of_run = json.loads(capsys.readouterr().out)
    assert of_files["plain"]["mAP"] == pytest.approx(of_run["plain"]["mAP"], abs=0.02)


def test_search_in_two_stages(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--options.identities", 12, "--options.cameras", 2, "--options.size", "[32,24]")
    extract = ("extract", "--dataset", "synthetic", *options, "--model", run, "--dtype", "float32")
    assert reid(*extract, "--workers", 0, "--output", tmp_path / "codes") == 0
    query, gallery = (tmp_path / "codes" / f"{name}.safetensors" for name in ("query", "gallery"))
    capsys.readouterr()
    assert reid("search", query, "--index", gallery, "--shortlist", 5, "-k", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == "the network's similarity, of a shortlist of 5"
    model = load_trained(run).model.eval()
    codes = [load_features(file) for file in (query, gallery)]
    scores = model.match(codes[0].features, codes[1].features)
    near = (model.embed(codes[0].features) @ model.embed(codes[1].features).T).topk(5).indices
    for row, entry in enumerate(found["queries"]):
        best = scores[row, near[row]].topk(3)
        assert [match["score"] for match in entry["matches"]] == pytest.approx(best.values.tolist(), rel=1e-3)
    assert reid("search", query, "--index", gallery, "--shortlist", 500) == 2
    assert "shortlist must be at most the gallery's" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["similarity", "pairs"])
def test_figures(kind: str, run: Path, tmp_path: Path) -> None:
    output = tmp_path / f"{kind}.png"
    assert reid("visualize", kind, run, "--count", 2, "--seed", 1, "--output", output) == 0
    assert output.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate RUN --shortlist 1000", "shortlist must be at most the gallery's"),
        ("evaluate RUN --metric cosine --shortlist 3", 'shortlist is for the metric "match", got cosine'),
        ("evaluate RUN --match.scores similarity", "unknown option of match 'scores'"),
        ("visualize similarity RUN --top 3 --output FILE", "--top is not an option of similarity"),
        ("visualize similarity RUN OTHER=RUN --output FILE", "similarity takes 1 INPUT, got 2"),
        ("visualize similarities RUN --output FILE", 'did you mean "similarity"?'),
    ],
)
def test_refusals(
    words: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "f.png"
    given = [word.replace("RUN", str(run)).replace("FILE", str(output)) for word in words.split()]
    capsys.readouterr()
    assert reid(*given) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not output.exists()


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "identity", "identities_per_batch": 4, "images_per_identity": 2},
        {"name": "shuffled", "batch_size": 8},
    ],
)
def test_other_samplers_have_no_pairs(sampler: dict[str, Any], tmp_path: Path) -> None:
    config = load_recipe("viper_csn_l2_l3").config
    data = {**SHARED["data"], "sampler": sampler}
    model = {**config["model"], "options": {"part_sizes": [4, 2, 2]}}
    recipe = {"model": model, "data": data, "trainer": SHARED["trainer"]}
    with pytest.raises(ValueError, match="pairs"):
        train({**recipe, "name": "csn", "runs": str(tmp_path)})
    assert not (tmp_path / "csn").exists()
