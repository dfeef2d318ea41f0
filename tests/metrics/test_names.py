"""Identities and cameras by name instead of by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reid_ops import XQDA, metrics

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((60, 8)).astype(np.float32)
DISTANCE = RANDOM.random((10, 50)).astype(np.float32)
NUMBERS, CAMERAS = RANDOM.integers(-1, 6, 60), RANDOM.integers(0, 3, 60)
NAMES = [str(number) if number < 0 else f"bella {number}" for number in NUMBERS]
PLACES = [("gate", int(camera)) for camera in CAMERAS]


def split(values: Any) -> tuple[Any, Any]:
    return values[:10], values[10:]


def objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


KINDS: dict[str, tuple[Any, Any]] = {
    "lists": (NAMES, [f"c{camera}" for camera in CAMERAS]),
    "arrays": (np.array(NAMES), np.array([f"c{camera}" for camera in CAMERAS])),
    "objects": (objects(NAMES), objects(PLACES)),
    "objects that are numbers": (NUMBERS.astype(object), CAMERAS.astype(object)),
    "names of people, numbers of cameras": (NAMES, CAMERAS),
}


def labels(identities: Any, cameras: Any) -> tuple[Any, ...]:
    return *split(identities), *split(cameras)


@pytest.mark.parametrize("kind", KINDS)
def test_names_count_as_numbers_do(kind: str) -> None:
    named, numbered = labels(*KINDS[kind]), labels(NUMBERS, CAMERAS)
    lists = np.argsort(DISTANCE, 1)[:, :20]

    def measures(given: tuple[Any, ...]) -> list[Any]:
        whole = metrics.evaluate_ranking(DISTANCE, *given)
        top = metrics.evaluate_ranking(None, *given, indices=lists)
        features = metrics.evaluate_features(*split(FEATURES), *given)
        shot = metrics.single_shot_cmc(DISTANCE, *given, junk_id=-1)
        pairs = metrics.verification_curve(DISTANCE, *given)
        return [
            *((each.cmc, each.mean_ap, each.mean_inp, each.excluded) for each in (whole, top, features)),
            shot.cmc,
            (pairs.auc, pairs.tar_at_far),
        ]

    assert measures(named) == measures(numbered)


def test_tracks_by_name() -> None:
    distance = np.array([[0.1, 0.9, 0.2, 0.3]])
    tracks = ["first", "second", "second", "third"]
    report = metrics.evaluate_tracks(distance, ["max"], ["kira", "max", "max", "kira"], tracks)
    assert report.cmc == {1: 0.0, 5: 1.0, 10: 1.0}
    with pytest.raises(ValueError, match="one identity each, but track second has several"):
        metrics.evaluate_tracks(distance, ["max"], ["kira", "max", "bella", "kira"], tracks)


def test_a_name_for_junk() -> None:
    distance = np.array([[0.1, 0.2, 0.3]])
    ids = ["max"], ["unknown", "-1", "max"]
    assert metrics.evaluate_ranking(distance, *ids, ranks=(1, 2)).cmc == {1: 0.0, 2: 1.0}
    assert metrics.evaluate_ranking(distance, *ids, junk_id="unknown", ranks=(1, 2)).cmc == {1: 0.0, 2: 1.0}
    assert metrics.evaluate_ranking(distance, *ids, junk_id=None, ranks=(1, 2, 3)).cmc[2] == 0.0


def test_blocks_of_queries_share_their_names() -> None:
    query, gallery = split(NAMES)
    accumulator = metrics.RankingAccumulator(gallery)
    for start in range(0, 10, 3):
        accumulator.update(DISTANCE[start : start + 3], query[start : start + 3])
    assert accumulator.report().mean_ap == metrics.evaluate_ranking(DISTANCE, query, gallery).mean_ap


def test_unknown_cameras_and_leave_one_out_by_name() -> None:
    cameras = np.where(RANDOM.random(60) < 0.3, -1, CAMERAS)
    places = [str(camera) if camera < 0 else f"gate {camera}" for camera in cameras]
    pairs = (NUMBERS, cameras), (NAMES, places)
    found = [metrics.evaluate_features(*split(FEATURES), *labels(*pair)).mean_ap for pair in pairs]
    assert found[0] == found[1]
    alone = [
        metrics.evaluate_features(FEATURES, FEATURES, ids, ids, seen, seen, exclude_self=True).mean_ap
        for ids, seen in pairs
    ]
    assert alone[0] == alone[1]


def test_queries_are_pooled_by_name() -> None:
    pooled, ids, cameras = metrics.pool_queries(FEATURES, NAMES, objects(PLACES))
    expected, numbers, _ = metrics.pool_queries(FEATURES, NUMBERS, CAMERAS)
    assert np.array_equal(pooled, expected)
    assert [NAMES[list(NUMBERS).index(number)] for number in numbers] == ids.tolist()
    assert cameras is not None and cameras[0] == PLACES[0]


def test_xqda_by_name() -> None:
    names, numbers = split(NAMES), split(NUMBERS)
    by_name, by_number = (XQDA().fit(*split(FEATURES), *ids) for ids in (names, numbers))
    pair = split(FEATURES)
    assert np.array_equal(by_name.distance(*pair), by_number.distance(*pair))


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ([1], ["max", "kira"], "gallery_ids must be integers, as query_ids, got names"),
        (["max"], [1, 2], "gallery_ids must be names, as query_ids, got integers"),
        ([None], ["max", "kira"], "query_ids must be integers or names, got None in place 0"),
        (
            ["max"],
            objects(["max", float("nan")]),
            "gallery_ids must be integers or names, got nan in place 1",
        ),
        ([1.0], [1, 2], "query_ids must be integers or names, got float64"),
        ([True], [1, 2], "query_ids must be integers or names, got bool"),
    ],
)
def test_labels_that_are_neither(query: Any, gallery: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        metrics.evaluate_ranking(np.zeros((1, 2)), query, gallery)
