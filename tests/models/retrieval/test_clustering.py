"""Clusters of features without labels, in Python and by ``reid cluster``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reid_ops
from reid_models.cli import main
from reid_models.retrieval.clustering import cluster_features
from reid_models.retrieval.features import Features, save_features

GROUPS, EACH = 8, 12
IDENTITIES = np.repeat(np.arange(GROUPS), EACH)


def grouped(seed: int = 0) -> np.ndarray:
    """Features in tight groups, three strangers behind them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((GROUPS, 32))[IDENTITIES]
    near = centres + 0.1 * random.standard_normal(centres.shape)
    return np.concatenate([near, 3 * random.standard_normal((3, 32))]).astype(np.float32)


def test_groups_are_found() -> None:
    features = grouped()
    labels = cluster_features(features, k1=12, k2=1)
    assert labels.dtype == np.int64 and np.array_equal(labels[:-3], IDENTITIES)
    assert (labels[-3:] == -1).all()
    assert np.array_equal(cluster_features(torch.from_numpy(features), k1=12, k2=1), labels)


def test_it_is_dbscan_of_the_dense_distances() -> None:
    from sklearn.cluster import DBSCAN

    features = grouped(1)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    dense = reid_ops.jaccard_distance(unit, k1=12, k2=3, preset="spcl")
    expected = DBSCAN(eps=0.5, min_samples=3, metric="precomputed").fit_predict(dense)
    found = cluster_features(features, eps=0.5, min_samples=3, k1=12, k2=3)
    assert expected.max() > 2 and np.array_equal(found, expected)


def test_little_and_nothing() -> None:
    assert cluster_features(np.empty((0, 4), np.float32)).shape == (0,)
    assert cluster_features(np.ones((1, 4), np.float32)).tolist() == [-1]
    assert cluster_features(np.ones((5, 4), np.float32)).tolist() == [0] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, r"eps must be in \(0, 1\), got 0.0"),
        ({"eps": 1}, "eps must be"),
        ({"min_samples": 0}, "min_samples must be an int of at least 1, got 0"),
        ({"k1": 2, "k2": 3}, "k2 must not exceed k1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_features(grouped(), **options)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = torch.from_numpy(grouped())
    identities = torch.from_numpy(np.append(IDENTITIES, [-1] * 3))
    paths = [f"{number}.jpg" for number in range(len(values))]
    file = tmp_path / "f.safetensors"
    save_features(file, Features(values, identities, torch.full((len(values),), -1), paths))
    words = ["cluster", str(file), "--k1", "12", "--k2", "1"]
    assert main([*words, "--output", str(tmp_path / "c.csv")]) == 0
    said = capsys.readouterr().err
    assert "8 clusters; 3 of 99 images in none; adjusted Rand index with the identities 1.000" in said
    with (tmp_path / "c.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 99 and [row["cluster"] for row in rows[-3:]] == [""] * 3
    assert {row["path"] for row in rows if row["cluster"] == "2"} == set(paths[24:36])
    assert main([*words, "--json"]) == 0
    clusters = json.loads(capsys.readouterr().out)["clusters"]
    assert [group["cluster"] for group in clusters] == [*range(8), None]
    assert main(["cluster", str(file), "--k1", "5", "--min-samples", "3"]) == 0  # k2 follows
    capsys.readouterr()
    assert main(words) == 0
    assert "cluster 0: 12 images\n  0.jpg\n" in capsys.readouterr().out


def test_the_command_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", str(tmp_path)]) == 2
    assert "--model must be given for images" in capsys.readouterr().err
