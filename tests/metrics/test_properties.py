"""Laws of the metrics on any input that hypothesis thinks of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_ops import metrics
from tests.metrics.test_ranking import BACKENDS, assert_report, expected_of, problem


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 60), st.integers(1, 6), st.integers(0, 6))
def test_paths_agree_on_anything(seed: int, queries: int, items: int, identities: int, levels: int) -> None:
    given = problem(seed, queries, items, identities, levels=levels)
    expected = expected_of(given)
    for backend in BACKENDS:
        if any(ranks for _, ranks in expected):
            assert_report(metrics.evaluate_ranking(**given, backend=backend), expected)
        else:
            with pytest.raises(ValueError, match="no query has a positive"):
                metrics.evaluate_ranking(**given, backend=backend)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_only_the_order_matters(seed: int) -> None:
    given = problem(seed, levels=20)
    before = metrics.evaluate_ranking(**given)
    after = metrics.evaluate_ranking(**{**given, "distance": np.exp(3 * given["distance"]) - 7})
    np.testing.assert_array_equal(before.per_query_ap, after.per_query_ap)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_queries_do_not_see_each_other_and_the_gallery_has_no_order(seed: int) -> None:
    given = problem(seed)
    report = metrics.evaluate_ranking(**given)
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(12), random.permutation(90)
    shuffled = metrics.evaluate_ranking(
        given["distance"][rows][:, columns],
        given["query_ids"][rows],
        given["gallery_ids"][columns],
        given["query_cameras"][rows],
        given["gallery_cameras"][columns],
    )
    np.testing.assert_array_equal(report.per_query_ap[rows], shuffled.per_query_ap)
    assert report.mean_ap == pytest.approx(shuffled.mean_ap)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_ranges(seed: int) -> None:
    report = metrics.evaluate_ranking(**problem(seed), ranks=range(1, 91))
    shares = list(report.cmc.values())
    assert shares == sorted(shares) and shares[-1] == 1.0
    counted = ~np.isnan(report.per_query_ap)
    assert (report.per_query_ap[counted] > 0).all() and (report.per_query_ap[counted] <= 1).all()
    assert (report.per_query_inp[counted] > 0).all() and (report.per_query_inp[counted] <= 1).all()
    area = metrics.evaluate_ranking(**problem(seed), average_precision="trapezoid")
    assert (area.per_query_ap[counted] <= report.per_query_ap[counted] + 1e-12).all()
