"""CSN by its recipes: training by pairs, evaluation, shortlists and figures through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_models.cli import main
from reid_models.data import ReidDataset, make_synthetic, read_dataset, read_images
from reid_models.networks import create_model, save_model
from reid_models.recipes import list_recipes, load_recipe
from reid_models.report.curves import plot_cmc
from reid_models.retrieval.extraction import extract_features
from reid_models.retrieval.features import load_features
from reid_models.retrieval.protocol import Protocol
from reid_models.runs.folders import read_run
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
    assert reid("search", query, "--index", gallery, "--shortlist", 5, "-k", 3, "--json", "--with-self") == 0
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


def write_images(folder: Path, count: int, first: int = 0) -> Path:
    """Images as a user has them: named, of another size, without labels."""
    folder.mkdir()
    random = np.random.default_rng(first)
    for number in range(first, first + count):
        pixels = random.integers(0, 255, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def test_images_to_index_to_search(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The two-stage search of images: index of embeddings and codes on disk, then match of the shortlist."""
    images, queries = write_images(tmp_path / "images", 9), write_images(tmp_path / "queries", 2, first=50)
    index = tmp_path / "g.index"
    assert reid("index", images, "--model", run, "--workers", 0, "--output", index) == 0
    shown = capsys.readouterr().out
    assert f"written: {index}.codes.safetensors\n" in shown and f"written: {index} (9 images)\n" in shown
    words = ("search", queries, "--index", index, "--workers", 0)
    assert reid(*words, "--shortlist", 4, "-k", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == "the network's similarity, of a shortlist of 4"
    trained = load_trained(run)
    records = read_images([str(queries)]), read_images([str(images)])
    options = {**trained.extraction, "workers": 0}
    query, gallery = (extract_features(trained.model, part, **options).features for part in records)
    scores = trained.model.match(query, gallery)
    near = (trained.model.embed(query) @ trained.model.embed(gallery).T).topk(4).indices
    for row, entry in enumerate(found["queries"]):
        expected = scores[row, near[row]].topk(2).values.tolist()
        assert [match["score"] for match in entry["matches"]] == pytest.approx(expected, rel=0.01)
    # All that are asked for by default, and the codes where they are said to be.
    moved = Path(f"{index}.codes.safetensors").rename(tmp_path / "moved.safetensors")
    assert reid(*words, "--codes", moved, "-k", 20, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["queries"][0]["matches"]) == 9
    for given, message in (
        ((), "--codes says where"),
        (("--codes", moved, "--shortlist", 10), "shortlist must be at most the gallery's 9, got 10"),
        (("--codes", moved, "--rerank"), "--rerank and --other-cameras are for an index of features"),
        (("--codes", moved, "-k", 0), "--count must be at least 1, got 0"),
        (("--codes", queries / "50.png"), "is damaged or not a safetensors file"),
    ):
        assert reid(*words, *given) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


def test_codes_to_index_to_search(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of a dataset, whose identities tell the shortlist's recall."""
    options = ("--options.identities", 12, "--options.cameras", 2, "--options.size", "[32,24]")
    extract = ("extract", "--dataset", "synthetic", *options, "--model", run, "--dtype", "float32")
    assert reid(*extract, "--workers", 0, "--output", tmp_path / "codes") == 0
    query, gallery = (tmp_path / "codes" / f"{name}.safetensors" for name in ("query", "gallery"))
    index = tmp_path / "g.index"
    assert reid("index", gallery, "--metric", "match", "--output", index) == 0
    assert not list(tmp_path.glob("*.codes.safetensors"))  # they are in a file already
    answers = []
    for place in (index, gallery):
        capsys.readouterr()
        assert reid("search", query, "--index", place, "--shortlist", 5, "--json") == 0
        shown = capsys.readouterr()
        answers.append(json.loads(shown.out))
        left, right = load_features(query), load_features(gallery)
        model = load_trained(run).model
        near = (model.embed(left.features) @ model.embed(right.features).T).topk(5).indices
        share = 100 * Protocol().measure_lists(left, right, near)
        assert f"a right image is on the shortlist of 5: {share:.2f} % of queries" in shown.err
    assert answers[0] == answers[1]
    # Codes of another network: one line, whichever stage they meet it in.
    other = tmp_path / "other.safetensors"
    save_model(create_model("csn", 2, image_size=(32, 24), part_sizes=(4, 2, 2)), other)
    for words in (
        ("search", query, "--index", index, "--model", other),
        ("search", query, "--index", gallery, "--model", other),
        ("index", gallery, "--metric", "match", "--model", other, "--output", tmp_path / "o.index"),
        ("evaluate", other, "--query", query, "--gallery", gallery, "--metric", "match", "--no-rerank"),
    ):
        assert reid(*words) == 2
        shown = capsys.readouterr().err
        assert "codes must be those of the network that compares them" in shown and shown.count("\n") == 1
    assert not (tmp_path / "o.index").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("index IMAGES --model RUN --codes c.txt", "--codes must end in .safetensors, got c.txt"),
        ("index IMAGES --model RUN --codes no/c.safetensors", "--codes must be in a folder that exists"),
        ("index IMAGES --model RUN --recall 7", "recall must be in (0, 1], got 7.0"),
        ("index IMAGES --model RUN --metric cosine --codes c.safetensors", "--codes is for --metric match"),
        (
            "index IMAGES --model PLAIN --metric match",
            "a network that compares pairs and embeds its codes, and",
        ),
        ("index IMAGES --model PLAIN --codes c.safetensors", "--codes is for --metric match and a network"),
    ],
)
def test_indexes_that_are_refused_write_nothing(
    words: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 2)
    plain = tmp_path / "plain.safetensors"
    save_model(create_model("baseline", 4, backbone="resnet10t", image_size=(32, 24)), plain)
    before = sorted(tmp_path.iterdir())
    names = {"RUN": str(run), "IMAGES": "images", "PLAIN": str(plain)}
    given = [names.get(word, word) for word in words.split()]
    capsys.readouterr()
    assert reid(*given, "--workers", 0, "--output", "g.index") == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["similarity", "pairs"])
def test_figures(kind: str, run: Path, tmp_path: Path) -> None:
    """Figs. 4 and 1, of a tiny trained network."""
    output = tmp_path / f"{kind}.png"
    assert reid("visualize", kind, run, "--count", 2, "--seed", 1, "--output", output) == 0
    assert output.read_bytes().startswith(b"\x89PNG")


def test_cmc_curves(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all pairs, and from rank 1 on what the run's evaluation says."""
    assert reid("evaluate", run, "--workers", 0, "--no-rerank") == 0
    output = tmp_path / "cmc.svg"
    assert reid("visualize", "curves", run, "--curve", "cmc", "--output", output) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    curve = evaluation["cmc"]["plain"]
    drawn = plot_cmc(read_run(run).cmc).axes[0].lines[0]
    assert list(drawn.get_ydata()) == pytest.approx([100 * value for value in curve[:20]])
    assert curve[0] == pytest.approx(evaluation["plain"]["rank1"])
    assert output.read_text().startswith("<?xml")


def test_splits_of_viper_are_runs_whose_mean_is_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/csn.md says: a run and its evaluation for each split, then the papers' tables."""
    monkeypatch.setattr("reid_models.data.datasets.viper.TEST_IDENTITIES", 6)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder, angle in (("cam_a", 0), ("cam_b", 90)):
        (tmp_path / "VIPeR" / folder).mkdir(parents=True)
        for person in range(14):
            pixels = random.integers(0, 255, (32, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "VIPeR" / folder / f"{person:03}_{angle}.bmp")
    name, quick = "viper_csn_l2_l3", ("--data.image_size", "[32,24]", "--model.options.part_sizes", "[4,2,2]")
    quick += ("--data.sampler.anchors_per_batch", 8, "--trainer.max_epochs", 1, "--data.workers", 0)
    quick += ("--trainer.check_val_every_n_epoch", 1, "--trainer.accelerator", "cpu")
    quick += ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
    queries, rank1 = [], []
    for split in range(2):
        own = ("--data.dataset_options.split", split, "--name", f"{name}_split{split}")
        assert reid("train", name, "--data.root", tmp_path, *own, *quick) == 0
        folder = tmp_path / "runs" / f"{name}_split{split}"
        assert reid("evaluate", folder, "--no-rerank", "--workers", 0) == 0
        data = load_trained(folder).data
        draw = read_dataset(data["dataset"], data["root"], **data["dataset_options"]).draws[0]
        queries.append({record.identity for record in draw.query})
        rank1.append(json.loads((folder / "evaluation.json").read_text())["plain"]["rank1"])
    assert queries[0] != queries[1] and len(queries[0]) == 6
    capsys.readouterr()
    assert reid("recipes", "--table") == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith(f"{name} "))
    assert row.split()[1:3] == ["48.03", f"{50 * sum(rank1):.2f}"]
    assert f"{name}: mean of 2 splits, standard deviations: rank-1 " in shown


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


def read_one_image_each() -> ReidDataset:
    """Made-up images, of every training identity one."""
    dataset = make_synthetic(identities=12, cameras=2, images_per_camera=2, size=(32, 24))
    once = {record.identity: record for record in dataset.train}
    return replace(dataset, train=tuple(once.values()))


def test_one_image_of_each_identity_has_no_positive_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_recipe("viper_csn_l2_l3").config
    data = {**SHARED["data"], "dataset": f"{__name__}:read_one_image_each", "dataset_options": {}}
    model = {**config["model"], "options": {"part_sizes": [4, 2, 2]}}
    file = tmp_path / "csn.yaml"
    file.write_text(json.dumps({"model": model, "data": data, "trainer": SHARED["trainer"]}))
    assert reid("train", file, "--runs", tmp_path / "runs") == 2
    shown = capsys.readouterr().err
    assert "images must have another of their identity, got 0 of" in shown and shown.count("\n") == 1
    assert not (tmp_path / "runs").exists()
