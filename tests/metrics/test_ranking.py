"""Metrics against loops written from the published definitions, on every path they can take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reid_ops import _extension, metrics
from tests.instruction_set_support import INSTRUCTION_SETS, run_with

BACKENDS = ["host", "torch"]
RULES = ["none", "same_identity", "any"]


def oracle(
    distance: np.ndarray,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    rule: str = "same_identity",
    junk_id: int | None = -1,
) -> list[tuple[int, list[int]]]:
    """(positives, their ranks from 0) of every query: sort everything, then walk down the list."""
    found = []
    for q, row in enumerate(np.asarray(distance)):
        ranks: list[int] = []
        kept = 0
        for g in sorted(range(len(row)), key=lambda item: (row[item], item)):
            same_identity = gallery_ids[g] == query_ids[q]
            same_camera = query_cameras is not None and gallery_cameras[g] == query_cameras[q]
            if junk_id is not None and gallery_ids[g] == junk_id:
                continue
            if rule == "same_identity" and same_identity and same_camera:
                continue
            if rule == "any" and same_camera:
                continue
            if same_identity:
                ranks.append(kept)
            kept += 1
        found.append((len(ranks), ranks))
    return found


def average_precision(ranks: list[int], kind: str) -> float:
    if kind == "mean_precision":
        return sum((i + 1) / (rank + 1) for i, rank in enumerate(ranks)) / len(ranks)
    area = 0.0
    for i, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else i / rank
        area += (before + (i + 1) / (rank + 1)) / 2 / len(ranks)
    return area


def assert_report(report: metrics.RankingReport, expected: list[tuple[int, list[int]]]) -> None:
    counted = [ranks for _, ranks in expected if ranks]
    assert report.evaluated == len(counted)
    assert report.excluded == len(expected) - len(counted)
    assert report.incomplete == 0
    assert report.positives.tolist() == [count for count, _ in expected]
    assert report.first_rank.tolist() == [ranks[0] if ranks else -1 for _, ranks in expected]
    precision = [average_precision(r, report.average_precision) if r else np.nan for _, r in expected]
    np.testing.assert_allclose(report.per_query_ap, precision, rtol=1e-12)
    inverse = [len(r) / (r[-1] + 1) if r else np.nan for _, r in expected]
    np.testing.assert_allclose(report.per_query_inp, inverse, rtol=1e-12)
    assert report.mean_ap == pytest.approx(np.nanmean(precision), rel=1e-12)
    assert report.mean_inp == pytest.approx(np.nanmean(inverse), rel=1e-12)
    for rank, share in report.cmc.items():
        assert share == pytest.approx(sum(r[0] < rank for r in counted) / len(counted))


def problem(
    seed: int, queries: int = 12, items: int = 90, identities: int = 7, cameras: int = 3, levels: int = 0
) -> dict[str, Any]:
    """Random labels with some junk; ``levels`` > 0 makes so many distinct distances, hence ties."""
    random = np.random.default_rng(seed)
    distance = random.random((queries, items))
    if levels:
        distance = np.floor(distance * levels) / levels
    return {
        "distance": distance,
        "query_ids": random.integers(0, identities, queries),
        "gallery_ids": random.integers(-1, identities, items),
        "query_cameras": random.integers(0, cameras, queries),
        "gallery_cameras": random.integers(0, cameras, items),
    }


def expected_of(given: dict[str, Any], rule: str = "same_identity") -> list[tuple[int, list[int]]]:
    return oracle(*given.values(), rule=rule)


# -------------------------------------------------------------------------------------- the definition


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("levels", [0, 5, 1], ids=["distinct", "ties", "all equal"])
@pytest.mark.parametrize("kind", ["mean_precision", "trapezoid"])
def test_equals_the_definition(backend: str, rule: str, levels: int, kind: str) -> None:
    given = problem(1, levels=levels)
    report = metrics.evaluate_ranking(
        **given, camera_rule=rule, backend=backend, average_precision=kind, ranks=(1, 3, 50)
    )
    assert report.backend == backend
    assert_report(report, expected_of(given, rule))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("identities", [1, 3])
@pytest.mark.parametrize("levels", [0, 4])
def test_many_positives(backend: str, identities: int, levels: int) -> None:
    given = problem(2, queries=3, items=1500, identities=identities, levels=levels)
    assert_report(metrics.evaluate_ranking(**given, backend=backend), expected_of(given))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("levels", [0, 30])
def test_much_junk(backend: str, rule: str, levels: int) -> None:
    given = problem(2, queries=5, items=3000, identities=20, levels=levels)
    report = metrics.evaluate_ranking(**given, camera_rule=rule, backend=backend)
    assert_report(report, expected_of(given, rule))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("items", [1, 2, 4095, 4096, 4097, 9000])
def test_rows_longer_than_a_tile(backend: str, items: int) -> None:
    given = problem(3, queries=9, items=items, identities=max(1, items // 10), levels=50)
    given["query_ids"][0] = given["gallery_ids"][-1] = 0
    given["query_cameras"][0] = 9
    assert_report(metrics.evaluate_ranking(**given, backend=backend), expected_of(given))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_instruction_sets_agree(instruction_set: str) -> None:
    run_with(
        instruction_set,
        "import numpy as np; from tests.metrics.test_ranking import *\n"
        "given = problem(3, queries=6, items=5000, identities=40, levels=50)\n"
        "for kind in (np.float32, np.float64):\n"
        "    given['distance'] = given['distance'].astype(kind)\n"
        "    assert_report(metrics.evaluate_ranking(**given, backend='host'), expected_of(given))\n",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_textbook_example(backend: str) -> None:
    # ranked g0 g2 g1 g3; positives at ranks 1 and 3 of three; g1 shares the query's camera
    distance = np.array([[0.1, 0.3, 0.2, 0.4]], np.float32)
    report = metrics.evaluate_ranking(
        distance, [1], [1, 1, 2, 1], [0], [1, 0, 1, 2], ranks=(1,), backend=backend
    )
    assert report.cmc == {1: 1.0}
    assert report.mean_ap == pytest.approx((1 + 2 / 3) / 2)
    assert report.mean_inp == pytest.approx(2 / 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "convert",
    [
        lambda d: d.astype(np.float16),
        lambda d: d.astype(np.float32),
        lambda d: np.asfortranarray(d),
        lambda d: np.repeat(d, 2, axis=1)[:, ::2],
        lambda d: np.repeat(d, 2, axis=0)[::2],
        lambda d: np.ascontiguousarray(d[::-1, ::-1])[::-1, ::-1],
        lambda d: d.astype(">f8"),
        lambda d: torch.from_numpy(d).half(),
        lambda d: torch.from_numpy(d).bfloat16(),
        lambda d: torch.from_numpy(d).float().requires_grad_(),
        lambda d: torch.from_numpy(d.T.copy()).T,
    ],
)
def test_layouts_and_types(backend: str, convert: Any) -> None:
    given = problem(4, levels=8)  # levels that every type holds exactly
    expected = expected_of(given)
    converted = convert(given["distance"])
    before = converted.clone() if isinstance(converted, torch.Tensor) else converted.copy()
    given["distance"] = converted
    assert_report(metrics.evaluate_ranking(**given, backend=backend), expected)
    assert (before == converted).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_distances_are_ranked(backend: str) -> None:
    given = problem(5, levels=3)
    given["distance"][given["distance"] > 0.6] = np.inf
    given["distance"][given["distance"] < 0.2] = -np.inf
    assert_report(metrics.evaluate_ranking(**given, backend=backend), expected_of(given))


@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_without_positives_are_excluded_and_counted(backend: str) -> None:
    distance = np.zeros((4, 3))
    report = metrics.evaluate_ranking(
        distance, [1, 9, -1, 2], [1, 2, -1], [0, 0, 0, 5], [1, 5, 0], backend=backend
    )
    # 9 is not there, -1 is junk, 2 is there under the query's camera only
    assert (report.evaluated, report.excluded) == (1, 3)
    assert np.isnan(report.per_query_ap).tolist() == [False, True, True, True]
    assert report.positives.tolist() == [1, 0, 0, 0]
    with pytest.raises(ValueError, match="no query has a positive"):
        metrics.evaluate_ranking(distance[1:], [9, -1, 2], [1, 2, -1], [0, 0, 5], [1, 5, 0], backend=backend)


def test_junk_can_be_switched_off() -> None:
    given = problem(6)
    report = metrics.evaluate_ranking(**given, junk_id=None)
    assert_report(report, oracle(*given.values(), junk_id=None))
    report = metrics.evaluate_ranking(**given, junk_id=3)
    assert_report(report, oracle(*given.values(), junk_id=3))


def test_blocks_of_the_torch_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics._torch_ranks._BLOCK, "cpu", 200)
    given = problem(7, levels=9)
    assert_report(metrics.evaluate_ranking(**given, backend="torch"), expected_of(given))


@pytest.mark.cuda
def test_cuda() -> None:
    given = problem(8, queries=50, items=3000, levels=40)
    expected = expected_of(given)
    given["distance"] = torch.from_numpy(given["distance"]).cuda()
    report = metrics.evaluate_ranking(**given)
    assert report.backend == "torch"
    assert_report(report, expected)


def test_cmc_curve() -> None:
    given = problem(9)
    report = metrics.evaluate_ranking(**given, ranks=range(1, 21))
    np.testing.assert_allclose(report.cmc_curve(20), list(report.cmc.values()))


# ------------------------------------------------------------------------------------------------ laws


# ------------------------------------------------------------------------------------------- bad input

D = np.zeros((2, 3))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_names_its_row(backend: str, dtype: Any) -> None:
    distance = np.zeros((30, 5000), dtype)
    distance[17, 4999] = distance[23, 0] = np.nan
    with pytest.raises(ValueError, match="must not hold NaN, but row 17 does"):
        metrics.evaluate_ranking(distance, [1] * 30, [1] * 5000, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[0.0]], [1], [1]), {}, TypeError, "numpy array or a torch.Tensor, got list"),
        ((D.astype(int), [1, 1], [1, 1, 1]), {}, TypeError, "floating type, got int64"),
        ((D[0], [1], [1, 1, 1]), {}, ValueError, "two dimensions"),
        ((D[:0], [], [1, 1, 1]), {}, ValueError, "at least one query"),
        ((D[:, :0], [1, 1], []), {}, ValueError, "at least one item"),
        ((D, [1], [1, 1, 1]), {}, ValueError, r"query_ids must have shape \(2,\), got \(1,\)"),
        ((D, [1, 1], [1, 1]), {}, ValueError, r"gallery_ids must have shape \(3,\)"),
        ((D, [1.0, 1.0], [1, 1, 1]), {}, TypeError, "query_ids must be integers or names, got float64"),
        ((D, [1, 1], [1, 1, 1], [0, 0]), {}, ValueError, "query_cameras was given without gallery_cameras"),
        ((D, [1, 1], [1, 1, 1], None, [0] * 3), {}, ValueError, "gallery_cameras was given without"),
        ((D, [1, 1], [1, 1, 1]), {"ranks": (0,)}, ValueError, "ranks must be at least 1"),
        ((D, [1, 1], [1, 1, 1]), {"camera_rule": "some"}, ValueError, "camera_rule must be one of"),
        ((D, [1, 1], [1, 1, 1]), {"average_precision": "area"}, ValueError, "average_precision must be"),
        ((D, [1, 1], [1, 1, 1]), {"backend": "gpu"}, ValueError, "backend must be one of"),
        ((None, [1], [1]), {}, ValueError, "exactly one of distance and indices"),
        ((None, [1], [1]), {"indices": np.array([[1]])}, ValueError, r"in \[-1, 1\), but row 0"),
        ((None, [1], [1]), {"indices": np.array([[0, 0]])}, ValueError, "row 0 repeats one"),
        ((None, [1], [1]), {"indices": np.array([[0.0]])}, TypeError, "indices must be integers"),
        ((None, [1], [1]), {"indices": np.zeros((1, 0), int)}, ValueError, r"shape \(Q, K\)"),
    ],
)
def test_bad_arguments(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.evaluate_ranking(*arguments, **options)


@pytest.mark.parametrize(
    "call", [metrics.evaluate_ranking, metrics.single_shot_cmc, metrics.verification_curve]
)
@pytest.mark.parametrize("junk", [[1, 2], torch.ones(3, 4, dtype=torch.bool), "1", 2**70])
def test_junk_is_one_identity(call: Any, junk: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="junk_id must be"):
        call(D, [1, 1], [1, 1, 2], junk_id=junk)


def test_bad_features() -> None:
    good = torch.ones(3, 4)
    with pytest.raises(ValueError, match="D = 4, got 5"):
        metrics.evaluate_features(good, torch.ones(3, 5), [1] * 3, [1] * 3)
    broken = good.clone()
    broken[2, 1] = float("inf")
    with pytest.raises(ValueError, match="gallery must be finite, but row 2 is not"):
        metrics.evaluate_features(good, broken, [1] * 3, [1] * 3)


def test_the_compiled_module_guards_itself() -> None:
    host = _extension._host
    gallery = host.Gallery(np.arange(3), None, None, "none")
    with pytest.raises(ValueError, match=r"shape \(Q, 3\)"):
        gallery.evaluate(np.zeros((1, 4)), np.zeros(1, int), None, 1)
    with pytest.raises(ValueError, match="identities must have shape"):
        gallery.evaluate(np.zeros((1, 3)), np.zeros(2, int), None, 1)
    with pytest.raises(ValueError, match="adjacent columns"):
        gallery.evaluate(np.zeros((3, 2)).T, np.zeros(2, int), None, 1)
    with pytest.raises(ValueError, match="float32 or float64"):
        gallery.evaluate(np.zeros((1, 3), int), np.zeros(1, int), None, 1)
    with pytest.raises(ValueError, match="camera_rule"):
        host.Gallery(np.arange(3), None, None, "some")
    with pytest.raises(ValueError, match="needs cameras"):
        host.Gallery(np.arange(3), None, None, "any")
