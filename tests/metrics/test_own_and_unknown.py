"""Leave-one-out, cameras that are not known, and several queries that ask as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reid_ops import metrics

BACKENDS = ["host", "torch"]
RULES = ["none", "same_identity", "any"]


def leave_one_out(distance: np.ndarray, ids: np.ndarray, cameras: np.ndarray, rule: str) -> list[float]:
    """AP of each query by the definition; a query without a positive has none. -1 is no camera."""
    found = []
    for q in range(len(ids)):
        hits, kept, precisions = 0, 0, []
        for g in np.argsort(distance[q], kind="stable"):
            same_camera = cameras[g] == cameras[q] and cameras[q] != -1
            removed = {"none": False, "any": same_camera, "same_identity": same_camera and ids[g] == ids[q]}
            if g == q or removed[rule]:
                continue
            kept += 1
            if ids[g] == ids[q]:
                hits += 1
                precisions.append(hits / kept)
        if precisions:
            found.append(float(np.mean(precisions)))
    return found


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    distance = random.integers(0, 9, (40, 40)).astype(np.float32)
    np.fill_diagonal(distance, 0)
    return distance, random.integers(0, 8, 40), random.integers(-1, 3, 40)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_each_query_is_left_out_of_its_own_ranking(backend: str, rule: str, seed: int) -> None:
    distance, ids, cameras = problem(seed)
    report = metrics.evaluate_ranking(
        distance, ids, ids, cameras, cameras, camera_rule=rule, exclude_self=True, backend=backend
    )
    expected = leave_one_out(distance, ids, cameras, rule)
    assert report.evaluated == len(expected)
    assert report.mean_ap == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_lists_and_features_leave_the_query_out_too(rule: str) -> None:
    distance, ids, cameras = problem(5)
    options: dict[str, Any] = {"camera_rule": rule, "exclude_self": True}
    expected = metrics.evaluate_ranking(distance, ids, ids, cameras, cameras, **options).mean_ap
    lists = np.argsort(distance, axis=1, kind="stable")
    listed = metrics.evaluate_ranking(None, ids, ids, cameras, cameras, indices=lists, **options)
    assert listed.mean_ap == pytest.approx(expected, abs=1e-12)
    rows = torch.from_numpy(distance)
    given = metrics.evaluate_features(
        rows, rows, ids, ids, cameras, cameras, metric=lambda block, _: block, **options
    )
    assert given.mean_ap == pytest.approx(expected, abs=1e-12)


def test_random_features_against_themselves_find_nothing() -> None:
    features = torch.nn.functional.normalize(torch.randn(400, 16, generator=torch.manual_seed(0)), dim=1)
    ids = torch.arange(400) % 40
    assert metrics.evaluate_features(features, features, ids, ids).cmc[1] == 1.0
    assert metrics.evaluate_features(features, features, ids, ids, exclude_self=True).cmc[1] < 0.08


def test_rows_of_queries_in_a_larger_gallery() -> None:
    distance = np.array([[0.0, 0.1, 0.2, 0.3], [0.3, 0.2, 0.1, 0.0]], np.float32)
    report = metrics.evaluate_ranking(distance, [1, 2], [1, 2, 1, 2], exclude_self=[0, -1])
    assert report.per_query_ap.tolist() == [0.5, pytest.approx((1 + 2 / 3) / 2)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "exclude_self=True needs a gallery of the 1 queries"),
        ([3], "exclude_self must be gallery rows below 3, got 3"),
        ([0, 1], r"exclude_self must have shape \(1,\)"),
        ([2], "a query and its own item must have one identity, but query 0's differ"),
    ],
)
def test_own_rows_that_can_not_be(given: Any, message: str) -> None:
    distance = np.array([[0.1, 0.2, 0.3]], np.float32)
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_ranking(distance, [1], [1, 1, 2], exclude_self=given)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
def test_an_unknown_camera_removes_nothing(backend: str, rule: str) -> None:
    distance = np.array([[0.1, 0.2, 0.3]], np.float32)
    options: dict[str, Any] = {"camera_rule": rule, "backend": backend}
    unknown = metrics.evaluate_ranking(distance, [1], [1, 1, 2], [-1], [-1, -1, -1], **options)
    assert unknown.mean_ap == 1.0 and unknown.positives.tolist() == [2]
    accumulator = metrics.RankingAccumulator([1, 1, 2], [-1, 0, -1], **options)
    accumulator.update(distance, [1], [-1])
    assert accumulator.report().positives.tolist() == [2]
    single = metrics.single_shot_cmc(distance, [1], [1, 1, 2], [-1], [-1, -1, -1], ranks=(1,), repeats=3)
    assert single.cmc[1] == 1.0


def test_pooled_queries_are_means_of_rows_of_length_one() -> None:
    random = np.random.default_rng(0)
    query, gallery = random.standard_normal((9, 8)), random.standard_normal((30, 8))
    ids, cameras = np.array([3, 1, 3, 1, 1, 2, 2, 2, -1]), np.array([0, 0, 0, 1, 0, -1, -1, 1, 0])
    item_ids, item_cameras = np.arange(30) % 4, np.full(30, 5)
    report = metrics.evaluate_multi_query(query, gallery, ids, item_ids, cameras, item_cameras)
    units = query / np.linalg.norm(query, axis=1, keepdims=True)
    groups = [[0, 2], [1, 4], [3], [5], [6], [7], [8]]  # those of unknown cameras, and nobody's, alone
    means = np.stack([units[group].mean(0) for group in groups])
    firsts = [group[0] for group in groups]
    expected = metrics.evaluate_features(means, gallery, ids[firsts], item_ids, cameras[firsts], item_cameras)
    np.testing.assert_allclose(report.per_query_ap, expected.per_query_ap)
    assert report.evaluated == 6 and report.excluded == 1


@pytest.mark.parametrize("pool", ["mean", "max", "min"])
def test_distances_pool_like_features(pool: str) -> None:
    rows = torch.tensor([[1.0, 4.0], [3.0, 2.0], [5.0, 5.0]])
    pooled, ids, cameras = metrics.pool_queries(rows, [7, 7, 8], pool=pool)
    expected = {"mean": [2.0, 3.0], "max": [3.0, 4.0], "min": [1.0, 2.0]}[pool]
    assert pooled.tolist() == [expected, [5.0, 5.0]] and ids.tolist() == [7, 8] and cameras is None


def test_pools_that_there_are_not() -> None:
    with pytest.raises(ValueError, match='pool must be one of "mean", "max", "min", got \'sum\''):
        metrics.pool_queries(torch.zeros(1, 2), [1], pool="sum")
