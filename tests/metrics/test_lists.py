"""Evaluation from top-K lists, and block by block from features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_ops import metrics
from reid_ops.metrics import ranking
from tests.metrics.test_ranking import RULES, assert_report, expected_of, oracle, problem

# ---------------------------------------------------------------------------------------- top-K lists


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_complete_lists_equal_distances(rule: str, as_tensor: bool) -> None:
    given = problem(10, levels=12)
    lists = np.argsort(given.pop("distance"), axis=1, kind="stable")
    full = problem(10, levels=12)
    report = metrics.evaluate_ranking(
        None, **given, indices=torch.from_numpy(lists) if as_tensor else lists, camera_rule=rule
    )
    assert_report(report, expected_of(full, rule))


def test_short_lists_are_lower_bounds() -> None:
    given = problem(11)
    lists = np.argsort(given["distance"], axis=1, kind="stable")
    short = np.c_[lists[:, :30], np.full((12, 2), -1)]
    complete = metrics.evaluate_ranking(**given, camera_rule="none")
    del given["distance"]
    report = metrics.evaluate_ranking(None, **given, indices=short, camera_rule="none")
    assert report.incomplete > 0
    assert (report.per_query_ap <= complete.per_query_ap + 1e-12).all()
    np.testing.assert_array_equal(report.positives, complete.positives)
    assert report.cmc == complete.cmc
    # by hand: positives 0, 1 and 3, of which the list of two has one, at rank 2
    report = metrics.evaluate_ranking(None, [5], [5, 5, 4, 5], indices=np.array([[2, 1]]))
    assert report.mean_ap == pytest.approx(1 / 2 / 3)
    assert (report.mean_inp, report.incomplete, report.cmc[1], report.cmc[5]) == (0.0, 1, 0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_counted_positives(seed: int, items: int) -> None:
    given = problem(seed, items=items, identities=4)
    counts = ranking.count_positives(
        given["query_ids"], given["query_cameras"], given["gallery_ids"], given["gallery_cameras"], -1
    )
    assert counts.tolist() == [count for count, _ in expected_of(given)]


# ------------------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_streaming_equals_the_whole_matrix(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(40, 16)), random.normal(size=(300, 16))
    labels = (random.integers(0, 9, 40), random.integers(-1, 9, 300))
    cameras = (random.integers(0, 3, 40), random.integers(0, 3, 300))
    if metric == "cosine":
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, gallery)]
        distance = 1 - unit[0] @ unit[1].T
    else:
        distance = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    monkeypatch.setattr(metrics.streaming, "_BLOCK_BYTES", 8 * 300 * 7)
    report = metrics.evaluate_features(query, gallery, *labels, *cameras, metric=metric)
    assert_report(report, oracle(distance, *labels, *cameras))
    own = metrics.evaluate_features(
        torch.from_numpy(query), torch.from_numpy(gallery), *labels, *cameras,
        metric=lambda left, right: torch.cdist(left, right, p=1),
    )  # fmt: skip
    assert_report(own, oracle(np.abs(query[:, None] - gallery[None]).sum(2), *labels, *cameras))


def test_accumulator_names_the_query() -> None:
    accumulator = metrics.RankingAccumulator([1, 2])
    accumulator.update(np.zeros((3, 2)), [1, 1, 2])
    with pytest.raises(ValueError, match="row 4"):
        accumulator.update(np.array([[0, 0], [0, np.nan]]), [1, 1])
    accumulator.update(np.zeros((0, 2)), [])
    assert accumulator.report().evaluated == 3
    with pytest.raises(ValueError, match="at least one query"):
        metrics.RankingAccumulator([1, 2]).report()
    with pytest.raises(ValueError, match="query_cameras"):
        metrics.RankingAccumulator([1], [1]).update(np.zeros((1, 1)), [1])
