"""Single-shot CMC, verification and the efficiency score against loops over their definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from reid_ops import metrics
from tests.metrics.test_ranking import problem

# ----------------------------------------------------------------------------------------- single shot


def single_shot_expectation(given: dict[str, Any], rank: int) -> float:
    """Exact mean over all draws that keep one item of each identity."""
    hits, count = 0.0, 0
    for q, identity in enumerate(given["query_ids"]):
        groups = []
        for name in np.unique(given["gallery_ids"]):
            items = np.flatnonzero(given["gallery_ids"] == name)
            if name == identity:
                items = items[given["gallery_cameras"][items] != given["query_cameras"][q]]
                if not len(items):
                    groups = []
                    break
                groups.insert(0, items)
            else:
                groups.append(items)
        if not groups or given["gallery_ids"][groups[0][0]] != identity:
            continue
        row, shares = given["distance"][q], []
        for own, *others in itertools.product(*groups):
            before = sum((row[g], g) < (row[own], own) for g in others)
            shares.append(before < rank)
        hits, count = hits + np.mean(shares), count + 1
    return hits / count


def test_single_shot_approaches_its_expectation() -> None:
    given = problem(12, queries=10, items=16, identities=4, levels=6)
    given["gallery_ids"] = np.abs(given["gallery_ids"])
    report = metrics.single_shot_cmc(**given, ranks=(1, 2), repeats=4000)
    for rank in (1, 2):
        assert report.cmc[rank] == pytest.approx(single_shot_expectation(given, rank), abs=0.01)


def test_single_shot_draws_are_the_seeds() -> None:
    given = problem(13)
    np.random.seed(1)  # noqa: NPY002 (the global state is what must not matter)
    first = metrics.single_shot_cmc(**given, repeats=5, seed=3)
    again = metrics.single_shot_cmc(**given, repeats=5, seed=3)
    other = metrics.single_shot_cmc(**given, repeats=5, seed=4)
    np.testing.assert_array_equal(first.per_draw, again.per_draw)
    assert (first.per_draw != other.per_draw).any()
    tensor = metrics.single_shot_cmc(
        **{**given, "distance": torch.from_numpy(given["distance"])}, repeats=5, seed=3
    )
    assert tensor.cmc == first.cmc


def test_single_shot_of_one_image_per_identity_is_cmc() -> None:
    random = np.random.default_rng(5)
    distance, ids = random.random((30, 30)), random.permutation(30)
    drawn = metrics.single_shot_cmc(distance, np.arange(30), ids, repeats=2)
    whole = metrics.evaluate_ranking(distance, np.arange(30), ids)
    assert drawn.cmc == whole.cmc and drawn.cmc_std == dict.fromkeys((1, 5, 10), 0.0)


# ---------------------------------------------------------------------------------------- verification


@pytest.mark.parametrize("backend", ["host", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [0, 6])
def test_verification_equals_counting_pairs(
    levels: int, dtype: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics.verification, "_BLOCK", 300)
    given = problem(14, levels=levels)
    given["distance"] = given["distance"].astype(dtype)
    genuine, impostor = [], []
    for q, g in itertools.product(range(12), range(90)):
        same = given["query_ids"][q] == given["gallery_ids"][g]
        if given["gallery_ids"][g] == -1 or (
            same and given["query_cameras"][q] == given["gallery_cameras"][g]
        ):
            continue
        (genuine if same else impostor).append(given["distance"][q, g])
    fars = (0.0, 0.001, 0.01, 0.1, 0.5, 1.0)
    report = metrics.verification_curve(**given, fars=fars, backend=backend)
    assert (report.genuine, report.impostor) == (len(genuine), len(impostor))
    near, far = np.array(genuine), np.array(impostor)
    auc = (near[:, None] < far).mean() + (near[:, None] == far).mean() / 2
    assert report.auc == pytest.approx(auc, rel=1e-12)
    for rate in fars:
        allowed = [t for t in np.unique(near) if (far <= t).mean() <= rate]
        best = (near <= allowed[-1]).mean() if allowed else 0.0
        assert report.tar_at_far[rate] == pytest.approx(best)
    assert (np.diff(report.tar) > 0).all() and (np.diff(report.far) >= 0).all()


def pairs_of(seed: int) -> dict[str, Any]:
    """Any labels, and distances of any spread: crowded, far off, equal, infinite."""
    chance = np.random.default_rng(seed)
    queries, items = int(chance.integers(1, 30)), int(chance.integers(2, 80))
    distance = np.exp(chance.normal(scale=chance.choice([0.1, 3.0, 40.0]), size=(queries, items)))
    if seed % 3 == 0:
        distance = np.round(distance, 1)
    if seed % 4 == 0:
        distance[chance.random(distance.shape) < 0.1] = np.inf
    if seed % 5 == 0:
        distance = -distance
    return {
        "distance": distance.astype(chance.choice(["float16", "float32", "float64"]))[:, :: 1 + seed % 2],
        "query_ids": chance.integers(-1, 4, queries),
        "gallery_ids": chance.integers(-1, 4, items)[:: 1 + seed % 2],
        "query_cameras": chance.integers(0, 3, queries),
        "gallery_cameras": chance.integers(0, 3, items)[:: 1 + seed % 2],
        "camera_rule": str(chance.choice(["none", "same_identity", "any"])),
        "junk_id": chance.choice([None, -1, 2]),
    }


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_both_ways_of_verification_agree_on_anything() -> None:
    agreed = 0
    for seed in range(150):
        given, found = pairs_of(seed), []
        for backend in ("host", "torch"):
            try:
                found.append(metrics.verification_curve(**given, backend=backend))
            except ValueError as error:
                found.append(str(error))
        one, other = found
        if isinstance(one, str):
            assert one == other
            continue
        agreed += 1
        assert (one.auc, one.genuine, one.impostor) == (other.auc, other.genuine, other.impostor)
        assert one.tar_at_far == other.tar_at_far and one.threshold_at_far == other.threshold_at_far
        np.testing.assert_array_equal(one.far, other.far)
    assert agreed > 100


@pytest.mark.parametrize("column", [0, 2], ids=["genuine", "impostor"])
def test_nan_is_refused(column: int) -> None:
    distance = np.zeros((3, 3))
    distance[1, column] = np.nan
    for function in (metrics.verification_curve, metrics.single_shot_cmc):
        with pytest.raises(ValueError, match="must not hold NaN, but row 1 does"):
            function(distance, [5, 5, 5], [5, 5, 6])


@pytest.mark.parametrize("backend", ["host", "torch"])
def test_verification_of_distances_that_hardly_differ(backend: str) -> None:
    """Thresholds so near each other that their number over their range is infinite."""
    distance = np.array([[0.0, 1e-310, 0.0, 5e-311, 1e-310, 2e-310, 1.0]])
    report = metrics.verification_curve(distance, [1], [1, 1, 2, 2, 2, 2, 2], backend=backend)
    assert report.thresholds.tolist() == [0.0, 1e-310] and report.tar.tolist() == [0.5, 1.0]
    assert report.far.tolist() == [0.2, 0.6]
    assert report.auc == pytest.approx(0.7)


def test_verification_needs_both_kinds_of_pairs() -> None:
    with pytest.raises(ValueError, match="no genuine pair"):
        metrics.verification_curve(np.zeros((1, 1)), [1], [2])
    with pytest.raises(ValueError, match="no impostor pair"):
        metrics.verification_curve(np.zeros((1, 1)), [1], [1])
    with pytest.raises(ValueError, match="fars must be in"):
        metrics.verification_curve(np.zeros((1, 1)), [1], [1], fars=(2,))


# ---------------------------------------------------------------------------------------------- tracks


@pytest.mark.parametrize("reduce", ["min", "mean"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_tracks_are_ranked_by_their_images(
    reduce: str, as_tensor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics.tracks, "_BLOCK", 200)
    chance = np.random.default_rng(3)
    tracks, queries, items = 25, 12, 90
    track_ids, track_cameras = chance.integers(-1, 6, tracks), chance.integers(0, 4, tracks)
    names = 10 * chance.permutation(tracks)
    images = np.r_[np.arange(tracks), chance.integers(0, tracks, items - tracks)]
    chance.shuffle(images)
    distance = np.floor(chance.random((queries, items)) * 20) / 4  # means of quarters, and ties
    query_ids, query_cameras = chance.integers(0, 6, queries), chance.integers(0, 4, queries)
    order = list(dict.fromkeys(images.tolist()))  # by first appearance
    whole = np.stack([getattr(distance[:, images == track], reduce)(1) for track in order], 1)
    expected = metrics.evaluate_ranking(
        whole, query_ids, track_ids[order], query_cameras, track_cameras[order], average_precision="trapezoid"
    )
    given: Any = torch.from_numpy(distance) if as_tensor else distance
    found = metrics.evaluate_tracks(
        given, query_ids, track_ids[images], names[images], query_cameras, track_cameras[images],
        reduce=reduce, average_precision="trapezoid",
    )  # fmt: skip
    assert (found.cmc, found.excluded) == (expected.cmc, expected.excluded)
    np.testing.assert_allclose(found.per_query_ap, expected.per_query_ap, rtol=1e-12)
    np.testing.assert_array_equal(found.positives, expected.positives)


def test_bad_tracks() -> None:
    distance = np.zeros((1, 3))
    with pytest.raises(ValueError, match="must have one identity each, but track 4 has several"):
        metrics.evaluate_tracks(distance, [1], [1, 1, 2], [3, 4, 4])
    with pytest.raises(ValueError, match="must have one camera each, but track 4 has several"):
        metrics.evaluate_tracks(distance, [1], [1, 2, 2], [3, 4, 4], [0], [1, 1, 2])
    with pytest.raises(ValueError, match=r"gallery_tracks must have shape \(3,\)"):
        metrics.evaluate_tracks(distance, [1], [1, 2, 2], [3, 4])
    with pytest.raises(ValueError, match='reduce must be one of "min", "mean"'):
        metrics.evaluate_tracks(distance, [1], [1, 2, 2], [3, 4, 4], reduce="max")
    distance[0, 2] = np.nan
    with pytest.raises(ValueError, match="must not hold NaN, but row 0 does"):
        metrics.evaluate_tracks(distance, [1], [1, 2, 2], [3, 4, 4])


# ------------------------------------------------------------------------------------ efficiency score

HENET = {  # rank-1, mAP, FD, V, FPS (HENet, Table 1) and the printed score
    "AlignedReID": (91.8, 79.3, 2048, 100, 207, 2.55),
    "PCB": (93.1, 81.0, 1536, 102, 192, 3.45),
    "HPM": (94.2, 82.7, 3840, 356, 82, 1.00),
    "MGN": (95.7, 86.9, 2816, 263, 112, 2.42),
    "Base": (92.9, 79.6, 2048, 169, 160, 2.76),
    "+RPE": (93.6, 81.2, 2048, 169, 160, 3.08),
    "+Losses": (95.6, 86.8, 2560, 224, 138, 3.41),
    "+Both": (96.0, 87.2, 2560, 224, 138, 3.52),
}
HENET_MODELS = {
    name: {"rank1": r1, "mean_ap": ap, "feature_dim": fd, "volume": v, "speed": fps}
    for name, (r1, ap, fd, v, fps, _) in HENET.items()
}


def test_efficiency_scores_are_the_papers() -> None:
    scores = metrics.efficiency_score(HENET_MODELS)
    for name, values in HENET.items():
        assert round(scores[name].total, 2) == values[-1], name
    assert scores["HPM"] == metrics.EfficiencyScore(1.0, 1.0, 1.0)
    by_name = metrics.efficiency_score(HENET_MODELS, largest="HPM", weakest="AlignedReID")
    assert by_name == scores
    only_rank1 = metrics.efficiency_score(HENET_MODELS, weight=0.0)
    assert only_rank1["PCB"].total == only_rank1["PCB"].rank1


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ({}, {}, "at least one model"),
        ({"a": {"rank1": 1.0}}, {}, "missing: mean_ap"),
        (HENET_MODELS, {"largest": "nobody"}, "largest must be one of"),
        (HENET_MODELS, {"weight": -1.0}, "weight must be"),
        (HENET_MODELS, {"weakest": "+Both", "threshold": 1.0}, "less threshold"),
        (HENET_MODELS, {"threshold": float("inf")}, "threshold must be finite"),
        (HENET_MODELS, {"threshold": 1e308}, "'AlignedReID' must have a finite score, got inf"),
        (HENET_MODELS, {"speed_exponent": -1e4}, "'AlignedReID' must have a finite score, got 0"),
        (HENET_MODELS, {"weight": 1e308}, "must have a finite score, got inf"),
        ({"a": {**HENET_MODELS["PCB"], "volume": 0.0}}, {}, "volume of model 'a' must be finite and above 0"),
        ({"a": {**HENET_MODELS["PCB"], "rank1": float("nan")}}, {}, "rank1 of model 'a'"),
    ],
)
def test_efficiency_score_refuses(models: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.efficiency_score(models, **options)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (3.0, "models must be a mapping of names, got float"),
        ({"a": 3}, "model 'a' must be a mapping of fields, got int"),
        ({"a": {**HENET_MODELS["PCB"], "speed": "82"}}, "speed of model 'a' must be a number, got str"),
    ],
)
def test_efficiency_score_of_other_types(models: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        metrics.efficiency_score(models)


def test_protocols_are_options() -> None:
    given = problem(15)
    for protocol in metrics.PROTOCOLS.values():
        if protocol.single_shot:
            metrics.single_shot_cmc(**given, **{**protocol.options, "repeats": 1})
        else:
            metrics.evaluate_ranking(**given, **protocol.options)
