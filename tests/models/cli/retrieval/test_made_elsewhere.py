"""Features made elsewhere through the commands; leave-one-out, several queries as one; kept features."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_models.retrieval import extraction, kept
from reid_models.retrieval.features import load_features
from reid_models.retrieval.gallery import Gallery
from reid_ops.metrics import evaluate_features, evaluate_multi_query
from tests.models.cli.retrieval.support import refused, reid

RANDOM = np.random.default_rng(0)
ANIMALS = np.array(["bella", "kira", "max", "nemo"])[np.arange(40) % 4]
VECTORS = (RANDOM.standard_normal((4, 16))[np.arange(40) % 4] + RANDOM.standard_normal((40, 16))).astype("f4")


@pytest.fixture
def animals(fresh: Path) -> Path:
    file = fresh / "animals.npz"
    np.savez(file, features=VECTORS, identities=ANIMALS, paths=np.array([f"{row}.jpg" for row in range(40)]))
    return file


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict, str]:
    capsys.readouterr()
    assert reid("evaluate", "--no-rerank", "--json", *words) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


def test_query_and_gallery_in_one_file(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is leave-one-out, not a silent 100 %."""
    found, said = evaluated(capsys, "--query", animals, "--gallery", animals)
    expected = evaluate_features(VECTORS, VECTORS, *2 * [np.arange(40) % 4], exclude_self=True)
    assert found["plain"]["mAP"] == pytest.approx(expected.mean_ap) and found["queries"] == 40
    assert found["plain"]["rank1"] == pytest.approx(expected.cmc[1]) and found["plain"]["rank1"] < 1
    assert "each query is left out of its own ranking" in said


def test_the_text_says_how_many_queries_counted(
    animals: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(fresh / "q.npz", features=VECTORS[:5], identities=np.array([*ANIMALS[:4], "zoe"]))
    capsys.readouterr()
    assert reid("evaluate", "--query", fresh / "q.npz", "--gallery", animals, "--no-rerank") == 0
    shown = capsys.readouterr().out
    assert "4 of 5 queries counted, in a gallery of 40 images; for 1 nothing right" in shown
    assert "no query has the name" in refused(
        capsys, "evaluate", "--query", fresh / "q.npz", "--gallery", animals, "--exclude-self"
    )


def test_several_queries_as_one(animals: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(fresh / "q.npz", feats=VECTORS[:12], pids=np.arange(12) % 4, camids=np.arange(12) // 4 % 2)
    np.savez(fresh / "g.npz", feats=VECTORS[12:], pids=np.arange(28) % 4, camids=np.full(28, 7))
    words = ("--query", fresh / "q.npz", "--gallery", fresh / "g.npz")
    found, _ = evaluated(capsys, *words, "--multi-query", "mean")
    expected = evaluate_multi_query(
        VECTORS[:12],
        VECTORS[12:],
        np.arange(12) % 4,
        np.arange(28) % 4,
        np.arange(12) // 4 % 2,
        np.full(28, 7),
    )
    assert found["queries"] == 8 and found["plain"]["mAP"] == pytest.approx(expected.mean_ap)
    assert "--multi-query is for --query" in refused(capsys, "evaluate", "run", "--multi-query", "max")


def test_rerank_and_index(animals: Path, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(fresh / "q.npy", VECTORS[:2] + 0.01)
    labels = fresh / "labels.csv"
    labels.write_text("path,identity\na.jpg,bella\nb.jpg,unknown\n")
    words = ("rerank", fresh / "q.npy", animals, "--query-labels", labels, "-k", 3, "--k1", 5, "--k2", 2)
    assert reid(*words, "--no-measure", "--json") == 0
    first = json.loads(capsys.readouterr().out)["queries"][0]
    assert first["query"] == "a.jpg" and first["identity"] == "bella"
    assert first["matches"][0]["path"] == "0.jpg" and first["matches"][0]["identity"] == "bella"
    index = fresh / "animals.index"
    assert reid("index", animals, "--output", index) == 0
    assert f"written: {index} (40 images, 4 identities)" in capsys.readouterr().out
    assert reid("search", fresh / "q.npy", "--index", index, "-k", 1) == 0
    assert "0.jpg  (bella)" in capsys.readouterr().out
    np.save(fresh / "bare.npy", VECTORS[:2])
    assert reid("index", fresh / "bare.npy", "--labels", labels, "--output", index) == 0
    assert Gallery.load(index).record(0).who == "bella"
    assert "--labels must come with one features file, got 2" in refused(
        capsys, "index", animals, animals, "--labels", labels, "--output", index
    )


def test_features_are_kept_and_used_again(place: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By evaluate, ranks and report; anew for other weights, other images and other ways."""
    run = fresh / "run"
    shutil.copytree(place / "run", run)
    extracted: list[int] = []

    def count(model: torch.nn.Module, records: list, **options: object) -> object:
        extracted.append(len(records))
        return extraction.extract_features(model, records, **options)

    monkeypatch.setattr(kept, "extract_features", count)
    evaluate = ("evaluate", run, "--no-rerank", "--workers", 0)
    assert reid(*evaluate) == 0 and len(extracted) == 1
    (file,) = (run / "features").iterdir()
    first = (run / "evaluation.json").read_text()
    assert reid(*evaluate) == 0 and len(extracted) == 1
    assert (run / "evaluation.json").read_text() == first
    assert reid("visualize", "ranks", run, "--output", fresh / "r.png", "--workers", 0) == 0
    assert reid("visualize", "report", run, "--output", fresh / "r.html", "--workers", 0) == 0
    assert len(extracted) == 1
    assert reid(*evaluate, "--no-keep") == 0 and len(extracted) == 2
    assert reid(*evaluate, "--flip") == 0 and len(extracted) == 3
    assert len(list((run / "features").iterdir())) == 2
    image = Path(load_features(file).paths[0])
    state = image.stat()
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns + 10_000_000))
    assert reid(*evaluate) == 0 and len(extracted) == 4
    shutil.copy(place / "other.safetensors", run / "best.safetensors")
    assert reid(*evaluate) == 0 and len(extracted) == 5
    (left,) = (run / "features").iterdir()
    assert left.name.partition("-")[0] != file.name.partition("-")[0]


def test_ranked_lists_of_an_index(
    index: Path, place: Path, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reid_models.report.indexes import list_indexes

    for words in ((), ("--queries", place / "images/0003"), ("--rerank", "--choose", "worst")):
        output = fresh / "ranks.png"
        assert reid("visualize", "ranks", index, *words, "--count", 2, "--top", 4, "--output", output) == 0
        assert output.read_bytes().startswith(b"\x89PNG")
    lists, note = list_indexes({"index": index}, count=3, top=5, how="random", seed=1)
    assert note.startswith("Below each image: cosine similarity")
    for found in lists["index"]:
        assert len(found.items) == 5 and found.query.path not in {item.path for item in found.items}
        assert found.query.who == Path(found.query.path).parts[-3]
        assert found.verdicts == tuple(item.who == found.query.who for item in found.items)
        assert list(found.scores) == sorted(found.scores, reverse=True)
    output = ("--output", fresh / "x.png")
    for words, message in (
        ((index, "run"), "INPUT must be runs or files of `reid index`, not both"),
        (("run", "--queries", "images"), "--queries are for INPUT that is a file of `reid index`"),
        ((index, index, "--choose", "improved"), "comes twice"),
    ):
        assert message in refused(capsys, "visualize", "ranks", *words, *output)
