"""`reid extract`, `index`, `search`, `rerank`: an untrained network over images, end to end."""

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

import reid_ops
from reid_models.data import read_folder
from reid_models.retrieval.extraction import extract_features
from reid_models.retrieval.features import load_features, save_features
from reid_models.retrieval.gallery import Gallery
from reid_models.runs.models import load_trained
from reid_ops.metrics import evaluate_ranking
from tests.models.cli.retrieval.support import MEAN, refused, reid


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
    assert reid("search", query, "--index", index, "-k", 3, "--with-self") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0] == "scores: cosine similarity, larger is nearer"
    assert lines[1] == query and lines[2].split() == ["1", "1.0000", str(Path.cwd() / query), "(0005,", "01)"]


def test_the_query_itself_is_left_out(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file is in the index: it tells who it shows, and is no answer."""
    query = "images/0005/01/000.png"
    found = {}
    for words in ((), ("--with-self",), ("--rerank", "--k1", 4, "--k2", 2)):
        capsys.readouterr()
        assert reid("search", query, "--index", index, "-k", 3, "--json", *words) == 0
        shown = capsys.readouterr()
        (entry,) = json.loads(shown.out)["queries"]
        found[words] = [match["path"] for match in entry["matches"]]
        assert len(found[words]) == 3
        assert ("the query itself is in the index" in shown.err) == ("--with-self" not in words)
        assert entry["identity"] == (None if "--with-self" in words else "0005")
    own = str(Path.cwd() / query)
    assert found["--with-self",][0] == own and found["--with-self",][1:] == found[()][:2]
    assert all(own not in paths for words, paths in found.items() if "--with-self" not in words)


def test_an_index_knows_the_users_names(
    index: Path, place: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert reid("search", "images/0003/00", "--index", index, "-k", 4, "--output", fresh / "m.csv") == 0
    with (fresh / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["identity"], row["camera"]) for row in rows] == [
        tuple(Path(row["path"]).parts[-3:-1]) for row in rows
    ]
    flat = fresh / "flat.index"
    assert reid("index", place / "images", "--flat", "--model", "run", "--output", flat) == 0
    assert f"written: {flat} (48 images)" in capsys.readouterr().out
    assert set(Gallery.load(flat).identities.tolist()) == {-1}
    assert reid("index", place / "images", "--model", "run", "--output", flat) == 0
    assert "(48 images, 12 identities, 2 cameras)" in capsys.readouterr().out


def test_a_table_of_boxes_is_indexed(fresh: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = place / "images/0001/00/000.png"
    table = fresh / "herd.csv"
    rows = [f"{image},{who},{x},0,16,32" for who, x in (("bella", 0), ("unknown", 16))]
    table.write_text("path,identity,x,y,w,h\n" + "\n".join(rows) + "\n")
    assert reid("index", table, "--model", "run", "--output", fresh / "i.index") == 0
    capsys.readouterr()
    words = ("--index", fresh / "i.index", "--json", "-k", 9)
    assert reid("search", place / "images/0002/00/000.png", *words) == 0
    matches = json.loads(capsys.readouterr().out)["queries"][0]["matches"]
    listed = {match["path"]: match["identity"] for match in matches}
    assert listed == {f"{image}#xywh=0,0,16,32": "bella", f"{image}#xywh=16,0,16,32": None}


def test_an_index_that_moves_with_its_images(
    fresh: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths are relative to the index's file, or absolute ones that are looked for beside it."""
    before, after = fresh / "before", fresh / "after"
    shutil.copytree(place / "images/0001", before / "images")
    model = ("--model", place / "run")
    monkeypatch.chdir(before)
    assert reid("index", "images", *model, "--output", "relative.index") == 0
    assert reid("index", before / "images", *model, "--output", before / "absolute.index") == 0
    assert Gallery.load("relative.index").paths[0] == "images/00/000.png"
    monkeypatch.chdir(fresh)
    assert Gallery.load("before/relative.index").paths[0] == "before/images/00/000.png"
    assert Gallery.load(before / "relative.index").paths[0] == str(before / "images/00/000.png")
    before.rename(after)
    for name in ("relative", "absolute"):
        gallery = Gallery.load(after / f"{name}.index")
        assert all(Path(gallery.record(row).path).is_relative_to(after) for row in range(len(gallery)))
        assert Path(gallery.record(0).path).is_file()
        capsys.readouterr()
        output = fresh / f"{name}.html"
        words = ("--index", after / f"{name}.index", "--output", output)
        assert reid("search", after / "images/00/000.png", *words) == 0
        assert "the query itself" in capsys.readouterr().err and output.stat().st_size > 20_000


@pytest.mark.parametrize("suffix", ["png", "html", "svg"])
def test_matches_as_pictures(
    index: Path, fresh: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    output = fresh / f"m.{suffix}"
    assert reid("search", "images/0002", "--index", index, "-k", 3, "--output", output) == 0
    assert capsys.readouterr().out == f"written: {output}\n"
    start = {"png": b"\x89PNG", "html": b"<!DOCTYPE html>", "svg": b"<?xml"}[suffix]
    content = output.read_bytes()
    assert content.startswith(start)
    if suffix == "html":
        assert b"the number below each image is the cosine similarity, larger is nearer" in content
        assert content.count(b"<img ") == 4 and b"images/0002/00/001.png and its matches" in content


def test_search_gives_the_index_own_answer(index: Path, fresh: Path, place: Path) -> None:
    queries = sorted(Path("images/0002").rglob("*.png"))
    for suffix in ("json", "csv", "txt"):
        output = fresh / f"found.{suffix}"
        words = ("--index", index, "-k", 5, "--with-self", "--output", output)
        assert reid("search", "images/0002", *words) == 0
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
    assert [row["path"] for row in table] == listed and table[0]["identity"] == "0002"
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
    words = (*words, "--with-self")
    assert reid("search", features / "query.safetensors", *words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["score"] == "re-ranked distance"
    query, gallery = (load_features(features / f"{name}.safetensors") for name in ("query", "gallery"))
    expected, rows = Gallery.load(index).index.rerank(query.features.numpy(), 4, k1=6, k2=2, lambda_value=0.2)
    for entry, values, found in zip(document["queries"], expected, rows, strict=True):
        assert [match["path"] for match in entry["matches"]] == [gallery.paths[row] for row in found]
        assert [match["identity"] for match in entry["matches"]] == [
            gallery.names.identities[int(identity)] for identity in gallery.identities[found]
        ]
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
    shown = capsys.readouterr()
    assert shown.out.startswith("scores: re-ranked distance, smaller is nearer\n")
    assert len(shown.out.splitlines()) == 1 + 2 * 8  # lists, and nothing measured
    assert "each query is left out of its own matches" in shown.err
    listed = [line for line in shown.out.splitlines() if line.startswith(" ")]
    queries = [line for line in shown.out.splitlines()[1:] if not line.startswith(" ")]
    assert all(query not in match for query, match in zip(queries, listed, strict=True))


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
        assert reid("search", image, "--index", fresh / "i.index", "--with-self", *words) == 0
        assert expected in capfdbinary.readouterr().out
    words = ("--with-self", "--output", fresh / "x.csv")
    assert reid("search", image, "--index", fresh / "i.index", *words) == 0
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


def test_an_index_of_flipped_features_flips_its_queries(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = fresh / "flipped.index"
    assert reid("index", "images/0001", "--model", "run", "--flip", "--output", index) == 0
    capsys.readouterr()
    assert reid("search", "images/0001/00/000.png", "--index", index, "-k", 1, "--with-self") == 0
    assert f"1.0000  {Path.cwd() / 'images/0001/00/000.png'}" in capsys.readouterr().out
