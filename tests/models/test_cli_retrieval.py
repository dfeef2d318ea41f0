"""`reid extract`, `index`, `search`, `rerank`, `evaluate`: an untrained network over images, end to end."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml  # type: ignore[import-untyped]

import reid_ops
from reid_models import create_model, save_model
from reid_models.cli import main
from reid_models.data import make_synthetic, read_folder
from reid_models.engine.evaluation import evaluate_dataset
from reid_models.engine.features import extract_features, load_features, save_features
from reid_models.engine.gallery import Gallery
from reid_models.engine.trained import load_trained
from reid_ops.metrics import evaluate_ranking

SIZE = (32, 32)
MEAN = [0.4, 0.5, 0.6]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images IDENTITY/CAMERA/*, a run of a network on them, and another network."""
    place = tmp_path_factory.mktemp("retrieval")
    dataset = make_synthetic(identities=12, cameras=2, size=SIZE)
    for record in (*dataset.train, *dataset.draws[0].gallery):
        file = place / record.path.replace("synthetic", "images")
        file.parent.mkdir(parents=True, exist_ok=True)
        assert record.content is not None
        file.write_bytes(record.content)
    torch.manual_seed(0)
    run = place / "run"
    run.mkdir()
    for file in (run / "best.safetensors", place / "other.safetensors"):
        save_model(create_model("baseline", 6, backbone="resnet10t", image_size=SIZE), file)
    data = {"dataset": "folder", "root": str(place / "images"), "dataset_options": {"seed": 1}}
    recipe = {"model": {"network": "baseline"}, "data": {**data, "augmentation": {"mean": MEAN, "flip": 0.5}}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return tmp_path


def reid(*words: object) -> int:
    return main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert reid(*words) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.out == ""
    return shown.err.removesuffix("\n")


@pytest.fixture(scope="module")
def index(place: Path) -> Path:
    file = place / "gallery.index"
    assert reid("index", place / "images", "--model", place / "run", "--output", file, "--workers", 0) == 0
    return file


@pytest.fixture(scope="module")
def features(place: Path) -> Path:
    """Features files of the folder's own split."""
    folder = place / "features"
    words = ("--dataset", "folder", "--root", place / "images", "--options.seed", 1)
    model = ("--model", place / "run", "--dtype", "float32", "--workers", 0)
    assert reid("extract", *words, *model, "--output", folder) == 0
    return folder


def test_extract_images(fresh: Path, place: Path) -> None:
    """Any folder: names are paths, and nothing else is known of the images."""
    file = fresh / "f.safetensors"
    assert reid("extract", "images/0003", "images/0001/00/001.png", "--model", "run", "--output", file) == 0
    found = load_features(file)
    paths = [*map(str, sorted(Path("images/0003").rglob("*.png"))), "images/0001/00/001.png"]
    assert found.paths == paths and len(paths) == 5
    assert set(found.identities.tolist()) == set(found.cameras.tolist()) == {-1}
    assert found.features.dtype == torch.float16 and found.source is not None
    assert found.source.mean == tuple(MEAN)  # the recipe's, not ImageNet's
    assert found.source.path == str(place / "run" / "best.safetensors")


def test_extract_a_dataset(features: Path, place: Path) -> None:
    split = read_folder(place / "images", seed=1).draws[0]
    assert sorted(file.name for file in features.iterdir()) == ["gallery.safetensors", "query.safetensors"]
    trained = load_trained(place / "run")
    for name, records in (("query", split.query), ("gallery", split.gallery)):
        found = load_features(features / f"{name}.safetensors")
        expected = extract_features(trained.model, records, workers=0, **trained.extraction)
        assert torch.equal(found.features, expected.features) and found.paths == expected.paths
        assert torch.equal(found.identities, expected.identities)
        assert torch.equal(found.cameras, expected.cameras)


def test_three_commands_find_an_image(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The quick start after training: the index says which model its queries need."""
    query = "images/0005/01/000.png"
    assert reid("search", query, "--index", index, "-k", 3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0] == query
    assert lines[1].split() == ["1", "1.0000", str(Path.cwd() / query)]


def test_search_gives_the_index_own_answer(index: Path, fresh: Path, place: Path) -> None:
    queries = sorted(Path("images/0002").rglob("*.png"))
    for suffix in ("json", "csv", "txt"):
        output = fresh / f"found.{suffix}"
        assert reid("search", "images/0002", "--index", index, "-k", 5, "--output", output) == 0
    gallery = Gallery.load(index)
    trained = load_trained("run")
    records = read_records("images/0002")
    query = extract_features(trained.model, records, **trained.extraction)
    scores, rows = gallery.index.search(query.features.numpy(), 5)
    document = json.loads((fresh / "found.json").read_text())
    assert document["score"] == "cosine similarity"
    assert [entry["query"] for entry in document["queries"]] == list(map(str, queries))
    for entry, values, found in zip(document["queries"], scores, rows, strict=True):
        matches = entry["matches"]
        assert [match["rank"] for match in matches] == [1, 2, 3, 4, 5]
        assert [match["path"] for match in matches] == [gallery.paths[row] for row in found]
        assert [match["score"] for match in matches] == pytest.approx(values.tolist(), abs=1e-6)
    with (fresh / "found.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    listed = [match["path"] for entry in document["queries"] for match in entry["matches"]]
    assert [row["path"] for row in table] == listed and table[0]["identity"] == ""
    assert sum(line.startswith(" ") for line in (fresh / "found.txt").read_text().splitlines()) == len(listed)


def read_records(folder: str) -> Any:
    from reid_models.data import read_images

    return read_images([folder])


def test_search_reranked(features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of features, with identities; re-ranked by the index among its candidates."""
    index = fresh / "g.index"
    assert reid("index", features / "gallery.safetensors", "--output", index) == 0
    capsys.readouterr()
    words = ("--index", index, "-k", 4, "--rerank", "--k1", 6, "--k2", 2, "--lambda", 0.2, "--json")
    assert reid("search", features / "query.safetensors", *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["score"] == "re-ranked distance"
    query, gallery = (load_features(features / f"{name}.safetensors") for name in ("query", "gallery"))
    expected, rows = Gallery.load(index).index.rerank(query.features.numpy(), 4, k1=6, k2=2, lambda_value=0.2)
    for entry, values, found in zip(document["queries"], expected, rows, strict=True):
        assert [match["path"] for match in entry["matches"]] == [gallery.paths[row] for row in found]
        assert [match["identity"] for match in entry["matches"]] == gallery.identities[found].tolist()
        assert [match["score"] for match in entry["matches"]] == pytest.approx(values.tolist(), abs=1e-6)


def test_search_in_other_cameras(features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = fresh / "g.index"
    assert reid("index", features / "gallery.safetensors", "--output", index) == 0
    capsys.readouterr()
    words = ("search", features / "query.safetensors", "--index", index, "-k", 100, "--json")
    assert reid(*words, "--other-cameras") == 0
    query = load_features(features / "query.safetensors")
    for entry, camera in zip(json.loads(capsys.readouterr().out)["queries"], query.cameras, strict=True):
        seen = {Path(match["path"]).parent.name for match in entry["matches"]}
        assert seen == {f"{1 - int(camera):02}"}


def test_an_approximate_index(features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = fresh / "g.index"
    both = features / "gallery.safetensors", features / "query.safetensors"
    assert reid("index", *both, "--kind", "hnsw", "--recall", 0.9, "--output", index) == 0
    shown = capsys.readouterr().out
    gallery = Gallery.load(index)
    report = gallery.index.recall_report
    assert gallery.index.kind == "hnsw" and report is not None and report.recall >= 0.9
    assert f"recall of the 10 nearest: {report.recall:.4f} (efSearch {report.value})" in shown
    assert len(gallery) == len(load_features(both[0])) + len(load_features(both[1]))


def test_rerank(features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query, gallery = (load_features(features / f"{name}.safetensors") for name in ("query", "gallery"))
    left, right = F.normalize(query.features, dim=1), F.normalize(gallery.features, dim=1)
    output = fresh / "lists.json"
    words = (features / "query.safetensors", features / "gallery.safetensors", "-k", 5, "--k1", 6, "--k2", 2)
    assert reid("rerank", *words, "--preset", "torchreid", "--output", output) == 0
    options: dict[str, Any] = {"k1": 6, "k2": 2, "lambda_value": 0.3, "preset": "torchreid"}
    values, rows = reid_ops.k_reciprocal_rerank(left, right, topk=5, **options)
    for entry, expected, found in zip(json.loads(output.read_text())["queries"], values, rows, strict=True):
        assert [match["path"] for match in entry["matches"]] == [gallery.paths[row] for row in found.tolist()]
        assert [match["score"] for match in entry["matches"]] == pytest.approx(expected.tolist(), abs=1e-6)
    distance = reid_ops.k_reciprocal_rerank(left, right, **options)
    labels = query.identities, gallery.identities, query.cameras, gallery.cameras
    report = evaluate_ranking(distance, *labels)  # type: ignore[arg-type]
    plain = evaluate_ranking(reid_ops.pairwise_distance(left, right, "cosine"), *labels)
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split() == ["rank1", "rank5", "rank10", "mAP", "mINP"]
    for line, expected_report in zip(shown[2:], (plain, report), strict=True):
        assert line.split()[4:] == [
            f"{100 * expected_report.mean_ap:.2f}",
            f"{100 * expected_report.mean_inp:.2f}",
        ]


def test_rerank_without_identities(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fresh / "f.safetensors"
    assert reid("extract", "images/0001", "images/0002", "--model", "run", "--output", file) == 0
    capsys.readouterr()
    assert reid("rerank", file, file, "-k", 1, "--k1", 3, "--k2", 1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 * 8  # lists, and nothing measured


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
    table = capsys.readouterr().out.splitlines()[1:]
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


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("extract --model run --output f.safetensors", "IMAGES or --dataset must be given"),
        ("extract images --model run --output f.npy", "--output must end in .safetensors, got f.npy"),
        ("extract images --model run --output no/f.safetensors", "--output must be in a folder that exists"),
        ("extract gone --model run --output f.safetensors", "images: gone does not exist"),
        ("extract empty --model run --output f.safetensors", "images: empty has no images (.jpg,"),
        (
            "extract images --model gone --output f.safetensors",
            "model must be a run folder or a file of a model",
        ),
        (
            "extract images --model images --output f.safetensors",
            "a run folder with best.safetensors, got images",
        ),
        ("extract images --dataset folder --model run --output f", "IMAGES and --dataset exclude each other"),
        (
            "extract --dataset foldr --model run --output f",
            "unknown dataset 'foldr'; did you mean \"folder\"?",
        ),
        ("extract --dataset synthetic --options.sed 1 --model run --output f", 'did you mean "seed"?'),
        ("extract --dataset synthetic --draw 1 --model run --output f", "--draw must be in [0, 1), got 1"),
        (
            "extract --dataset synthetic --model run --output f.safetensors",
            "--output must be a folder, in one that",
        ),
        ("index images --output i.index", "--model must be given for images, such as images"),
        ("index images --model run --output no/i.index", "--output must be in a folder that exists"),
        ("index run/best.safetensors --output i.index", "must be a file of features ('reid_features 1')"),
        ("index images --model run --recall 2 --output i.index", "recall must be in (0, 1], got 2.0"),
        ("search x.png --index gone", "index must be a file, got gone"),
        ("search x.png --index run/recipe.yaml", "run/recipe.yaml is not a gallery index"),
        ("search gone.png --index gallery.index", "images: gone.png does not exist"),
        ("search images --index gallery.index -k 0", "k must be"),
        (
            "search images --index gallery.index --output x.xml",
            "--output must end in .json, .csv, .txt, got x.xml",
        ),
        ("search images --index gallery.index --output no/x.csv", "--output must be in a folder that exists"),
        ("search images --index gallery.index --output x.csv --json", "must end in .json with --json"),
        ("rerank gone.safetensors gone.safetensors", "path must be a file of features, got gone.safetensors"),
        ("evaluate", "RUN, or --query and --gallery, must be given"),
        ("evaluate other.safetensors", "--dataset must be given: other.safetensors does not say"),
        ("evaluate run --query gone.safetensors", "--query and --gallery must be given together"),
        ("evaluate run --same-camera-counts", "--same-camera-counts is for features"),
        ("evaluate run --root gone", "folder: root must be a folder, got gone"),
        ("evaluate run --k2 30", "k2 must not exceed k1 (20), got 30"),
        ("evaluate run --expand-alpha 3", "--expand-alpha must come with --expand"),
        ("evaluate run --single-shot -1", "--single-shot must be at least 0, got -1"),
        ("evaluate run --device cuda:99", "device is cuda:99, but torch sees"),
        ("evaluate run --batch-size 0", "batch_size must be at least 1, got 0"),
    ],
)
def test_refusals(
    words: str, message: str, index: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir(exist_ok=True)
    before = sorted(place.rglob("*"))
    capsys.readouterr()
    assert reid(*words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and message in shown.err and shown.err.startswith(f"reid {words.split()[0]}: ")
    assert shown.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_a_folder_that_can_not_be_written_to(
    fresh: Path, features: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known before the networks run. (Who is root may write everywhere: asked, the system says no.)"""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != fresh)
    monkeypatch.setattr("reid_models.engine.trained.load_trained", lambda *_: 1 / 0)
    file = features / "gallery.safetensors"
    for words in (
        ("index", "images", "--model", "run", "--output", fresh / "x.index"),
        ("extract", "images", "--model", "run", "--output", fresh / "x.safetensors"),
        ("extract", "--dataset", "synthetic", "--model", "run", "--output", fresh / "x"),
        ("extract", "--dataset", "synthetic", "--model", "run", "--output", fresh),
        ("rerank", file, file, "--output", fresh / "x.csv"),
    ):
        line = refused(capsys, *words)
        assert f"--output must be in a folder that can be written to, got {words[-1]}" in line
    assert not list(fresh.iterdir())


def test_a_folder_without_features_does_not_stay(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("an image is damaged")

    words = ("extract", "--dataset", "synthetic", "--model", "run", "--output", fresh / "f")
    with monkeypatch.context() as patch:
        patch.setattr("reid_models.engine.features.extract_to_file", fail)
        assert "an image is damaged" in refused(capsys, *words)
        assert not (fresh / "f").exists()
        (fresh / "f").mkdir()
        assert "an image is damaged" in refused(capsys, *words)
        assert (fresh / "f").is_dir()  # the user's


def test_an_index_that_was_changed_otherwise(
    index: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many items as names, but an identifier is no longer the number of a name."""
    changed = fresh / "changed.index"
    shutil.copy(index, changed)
    with reid_ops.GalleryIndex.edit(changed) as opened:
        opened.remove([0])
        opened.add(torch.ones(1, opened.dim))
    line = refused(capsys, "search", "images/0001", "--index", changed)
    assert f"{changed} was changed by other means than `reid index`" in line


def test_an_index_may_be_larger_than_memory(
    index: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its vectors are mapped, and its checksums compared all the same."""
    loaded: list[Gallery] = []
    load = Gallery.load

    def keep(*given: Any, **options: Any) -> Gallery:
        loaded.append(load(*given, **options))
        return loaded[-1]

    monkeypatch.setattr(Gallery, "load", staticmethod(keep))
    assert reid("search", "images/0001", "--index", index, "--device", "cpu") == 0
    with pytest.raises(RuntimeError, match="loaded with mmap=True is read-only"):
        loaded[0].index.remove([0])
    whole = load(index)
    query = torch.from_numpy(whole.index.features(range(5)))
    for mine, expected in zip(loaded[0].index.search(query, 4), whole.index.search(query, 4), strict=True):
        assert torch.equal(mine, expected)
    damaged = fresh / "damaged.index"
    content = bytearray(index.read_bytes())
    content[4096 + 100] ^= 1  # among the vectors
    damaged.write_bytes(content)
    assert "is damaged: the checksum of its vectors is wrong" in refused(
        capsys, "search", "images/0001", "--index", damaged
    )


def test_names_that_are_not_utf_8(
    fresh: Path, capfdbinary: pytest.CaptureFixture[bytes], place: Path
) -> None:
    image = fresh / os.fsdecode(b"caf\xe9.png")
    shutil.copy(place / "images/0001/00/000.png", image)
    assert reid("index", fresh, "--model", "run", "--output", fresh / "i.index") == 0
    capfdbinary.readouterr()
    for words, expected in (((), b"caf\xe9.png\n"), (("--json",), b"caf\\udce9.png")):
        assert reid("search", image, "--index", fresh / "i.index", *words) == 0
        assert expected in capfdbinary.readouterr().out
    assert reid("search", image, "--index", fresh / "i.index", "--output", fresh / "x.csv") == 0
    assert b"caf\xe9.png" in (fresh / "x.csv").read_bytes()


def test_rerank_without_a_positive(features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Identities are known, but nothing can be measured: the lists are what was asked for."""
    gallery = load_features(features / "gallery.safetensors")
    save_features(fresh / "g.safetensors", replace(gallery, identities=gallery.identities + 1000))
    words = (features / "query.safetensors", fresh / "g.safetensors", "--k1", 6, "--k2", 2)
    assert reid("rerank", *words, "--output", fresh / "x.csv") == 0
    shown = capsys.readouterr()
    last = "not measured: no query has an image of its identity in the gallery that counts"
    assert shown.out.splitlines() == [f"written: {fresh / 'x.csv'}", last] and shown.err == ""
    own_camera = replace(gallery, cameras=torch.zeros_like(gallery.cameras))
    save_features(fresh / "own.safetensors", own_camera)
    for counts, expected in (((), last), (("--same-camera-counts",), "reranked")):
        files = fresh / "own.safetensors", fresh / "own.safetensors"
        assert reid("rerank", *files, "--k1", 6, "--k2", 2, *counts) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith(expected)


def test_features_and_indexes_of_another_model(
    index: Path, features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fresh / "other.safetensors"
    assert reid("extract", "images/0001", "--model", "other.safetensors", "--output", other) == 0
    flipped = fresh / "flipped.safetensors"
    assert reid("extract", "images/0001", "--model", "run", "--flip", "--output", flipped) == 0
    for words, difference in (
        (("search", other, "--index", index), "model "),
        (("search", "images/0001", "--index", index, "--model", "other.safetensors"), "model "),
        (("search", flipped, "--index", index), "flip_average False and True"),
        (("rerank", features / "query.safetensors", other), "model "),
        (("evaluate", "--query", features / "query.safetensors", "--gallery", other), "model "),
        (("index", other, features / "query.safetensors", "--output", fresh / "i.index"), "model "),
    ):
        assert f"of one model, given images in one way; they have {difference}" in refused(capsys, *words)
    assert not (fresh / "i.index").exists()


def test_an_index_of_flipped_features_flips_its_queries(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = fresh / "flipped.index"
    assert reid("index", "images/0001", "--model", "run", "--flip", "--output", index) == 0
    capsys.readouterr()
    assert reid("search", "images/0001/00/000.png", "--index", index, "-k", 1) == 0
    assert "1.0000  images/0001/00/000.png" in capsys.readouterr().out


def test_a_run_that_was_trained_on(fresh: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model behind an index has changed: refused, not searched with features that mean something else."""
    run = fresh / "run"
    shutil.copytree(place / "run", run)
    assert reid("index", "images/0001", "--model", run, "--output", fresh / "i.index") == 0
    shutil.copy(place / "other.safetensors", run / "best.safetensors")
    assert "they have model" in refused(capsys, "search", "images/0001", "--index", fresh / "i.index")
    shutil.rmtree(run)
    assert "model must be" in refused(capsys, "search", "images/0001", "--index", fresh / "i.index")


def test_damaged_files(index: Path, features: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = fresh / "cut.safetensors"
    cut.write_bytes((features / "query.safetensors").read_bytes()[:-10])
    for words in (("index", cut, "--output", fresh / "i"), ("rerank", cut, features / "gallery.safetensors")):
        assert "cut.safetensors is damaged or not a safetensors file" in refused(capsys, *words)
    cut_index = fresh / "cut.index"
    cut_index.write_bytes(index.read_bytes()[:-10])
    assert "cut.index is cut short" in refused(capsys, "search", "images", "--index", cut_index)
    bare = reid_ops.GalleryIndex(4)
    bare.save(fresh / "bare.index")
    assert "an index without names of images" in refused(
        capsys, "search", "x", "--index", fresh / "bare.index"
    )
    (fresh / "broken.png").write_bytes(b"no image")
    assert "broken.png is damaged or not an image" in refused(
        capsys, "search", fresh / "broken.png", "--index", index
    )
    (fresh / "none.png").touch()
    assert "none.png is an empty file" in refused(capsys, "search", fresh, "--index", index)
    run = fresh / "run"
    run.mkdir()
    shutil.copy("run/best.safetensors", run)
    (run / "recipe.yaml").write_text("data: [1")
    assert "recipe.yaml is damaged or not a recipe" in refused(capsys, "evaluate", run)


def test_lengths_must_agree(index: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = fresh / "short.safetensors"
    save_model(
        create_model("baseline", 6, backbone="resnet10t", image_size=SIZE, cbr_width=8, test_feature="cbr"),
        fresh / "m.safetensors",
    )
    assert reid("extract", "images/0001", "--model", fresh / "m.safetensors", "--output", short) == 0
    assert "the index holds features of length 512, but the query's have 8" in refused(
        capsys, "search", short, "--index", index
    )
