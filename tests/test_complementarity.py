"""What models add to each other: alignment, shared errors, contribution and gain."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import cohen_kappa_score

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.evaluate import evaluate
from ecgstore.fuse import fuse
from ecgstore.laboratory.complementarity import complementarity
from ecgstore.laboratory.gains import block_gains
from ecgstore.laboratory.shared_errors import right_of
from ecgstore.predictions import Part, Predictions, predictions_of
from ecgstore.splitting.split import split
from ecgstore.statistics.similarity import OVERLAPS, linear_cka, overlaps
from ecgstore.train import train
from ecgstore.warehouse import Warehouse
from tests.conftest import vector_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.laboratory.complementarity import ComplementarityResult, Figure

FEW = {"n_estimators": 5}


def direct_cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the alignment from whole matrices of inner products, centred as Székely and Rizzo."""

    def centred(block: NDArray[np.float64]) -> NDArray[np.float64]:
        n = len(block)
        k = block @ block.T
        np.fill_diagonal(k, 0)
        rows = k.sum(axis=0) / (n - 2)
        k = k - rows - rows[:, None] + k.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(k, 0)
        return np.asarray(k)

    a, b = centred(x), centred(y)
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def test_the_alignment_of_a_rotation_is_1_and_of_strangers_about_0() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 40)) @ np.diag(np.linspace(0.1, 3, 40))
    turn, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, 250 * x @ turn - 17) == pytest.approx(1)
    strangers = [
        linear_cka(rng.normal(size=(50, 300)), rng.normal(size=(50, 300))) for _ in "12345"
    ]
    assert np.abs(strangers).max() < 0.15  # the plain estimate is above 0.8 here
    half = np.hstack([x[:, :20], rng.normal(size=(200, 20))])
    assert linear_cka(x, half) == pytest.approx(direct_cka(x, half), rel=1e-9)
    assert linear_cka(half, x) == pytest.approx(linear_cka(x, half), rel=1e-12)
    assert math.isnan(linear_cka(x, np.ones((200, 3))))
    with pytest.raises(NotEnoughDataError, match="3 records"):
        linear_cka(x[:3], x[:3])
    with pytest.raises(UsageError, match="200 and 199 vectors"):
        linear_cka(x, x[1:])


def test_overlaps_by_hand() -> None:
    # 100 records: 70 both right, 12 only the first, 10 only the second, 8 neither.
    found = dict(zip(OVERLAPS, overlaps(np.array([70.0, 12, 10, 8])), strict=True))
    assert found["double fault"] == pytest.approx(0.08)
    assert found["error overlap"] == pytest.approx(8 / 30)
    assert found["Q statistic"] == pytest.approx((70 * 8 - 12 * 10) / (70 * 8 + 12 * 10))
    a, b = (np.repeat(one, [70, 12, 10, 8]) for one in ([1, 1, 0, 0], [1, 0, 1, 0]))
    assert found["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    nobody_errs = overlaps(np.array([9.0, 0, 0, 0]))
    assert nobody_errs[0] == 0
    assert np.isnan(nobody_errs[1:]).all()


def run_of(ids: str, labels: list[float], *parts: Part) -> Predictions:
    return Predictions(
        run_id="r",
        features="f",
        classifier="xgboost",
        task="T",
        target="binary",
        split_id="s",
        protocol="",
        record_ids=np.array(list(ids), object),
        labels=np.array(labels, np.float64),
        patients=np.arange(len(ids)),
        parts=parts,
    )


def test_runs_are_judged_on_shared_records_by_thresholds_of_training_records() -> None:
    none, places = np.empty(0), np.arange
    # Out of fold, 0.35 parts d and e from f: of the test records a is right, b and c are wrong.
    whole = Part(
        0, 3, places(3), np.array([0.3, 0.5, 0.3]), places(3, 6), np.array([0.1, 0.2, 0.35])
    )
    first = run_of("abcdef", [0, 0, 1, 0, 0, 1], whole)
    # Without such scores the prevalence 1/2 of d and f decides; b has no score in this run.
    part = Part(0, 2, places(2), np.array([0.6, 0.5]), none.astype(np.intp), none)
    second = run_of("acdf", [0, 1, 0, 1], part)
    right, patients = right_of([first, second])
    assert right.tolist() == [[True, False], [False, True]]
    assert len(np.unique(patients)) == 2
    with pytest.raises(NotEnoughDataError, match="No record was scored with each of f, f"):
        right_of([first, run_of("xy", [0, 1], Part(0, 2, places(2), none, places(0), none))])


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return a warehouse in which single models and sets that join them were evaluated."""
    rng = np.random.default_rng(0)
    ids = [f"syn/{i:05d}" for i in range(300)]
    y = (rng.random(300) < 0.3).astype(np.float64)
    warehouse = Warehouse.create(tmp_path_factory.mktemp("judged") / "warehouse")
    rows: dict[str, Any] = {"record_id": ids, "task": ["ACS"] * 300, "label": y}
    warehouse.append("labels", pa.table(rows), command="test")
    for model, dim in (("alpha", 4), ("beta", 6), ("gamma", 3), ("delta", 2)):
        x = rng.standard_normal((300, dim), dtype=np.float32)
        x[:, :2] += y[:, None].astype(np.float32)
        warehouse.append("embeddings", vector_rows(model, ids, x), command="test")
    rows = {"record_id": ids, "patient_id": [f"p{i}" for i in rng.integers(0, 200, 300)]}
    warehouse.append("records", pa.table(rows), command="test")
    split(warehouse, "s", task="ACS", repeats=2, test_size=0.4)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    fuse(warehouse, ["alpha", "beta"], name="late", method="average")
    fuse(warehouse, ["alpha", "beta"], name="short", method="pca", settings={"dims": 2})
    fuse(warehouse, ["gamma", "alpha", "beta"], name="three")
    sets = ["alpha", "beta", "gamma", "fusion", "late", "short", "three"]
    evaluate(warehouse, sets, "s", params=FEW)
    return warehouse


def asked(warehouse: Warehouse, fused: str = "fusion", **options: Any) -> ComplementarityResult:
    return complementarity(
        warehouse, "s", features=["alpha", "beta"], fused=fused, resamples=200, **options
    )


def figures(result: ComplementarityResult) -> dict[tuple[str, str], Figure]:
    return {(one.name, one.of): one for one in result.figures}


def test_every_figure_is_told_and_agrees_with_the_predictions(judged: Warehouse) -> None:
    result = asked(judged)
    found = figures(result)
    with Catalog(judged.relations()) as catalog:
        runs = catalog.table("select distinct features, run_id from scores").to_pylist()
        means = {
            row["features"]: row["mean"]
            for row in catalog.table(
                "select features, avg(value) as mean from scores "
                "where metric = 'AUROC' group by all"
            ).to_pylist()
        }
        ids = {row["features"]: row["run_id"] for row in runs}
        run = predictions_of(catalog, ids["alpha"])
        records = sum(len(part.test) for part in run.parts)

    pair = "alpha × beta"
    for name in OVERLAPS:
        one = found[name, pair]
        assert one.value is not None
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
        assert one.records == records
    oracle, both_wrong = found["oracle", "alpha + beta"], found["double fault", pair]
    assert oracle.value == pytest.approx(1 - (both_wrong.value or 0))
    for model, other in (("alpha", "beta"), ("beta", "alpha")):
        gained = found["contribution", model].value
        assert gained == pytest.approx(means["fusion"] - means[other])
    best = max(("alpha", "beta"), key=lambda name: means[name])
    assert found["over best single", "fusion"].note.endswith(f"{best} alone {means[best]:.3f}")
    assert found["CKA", pair].records == 300
    assert list(result.rows[0]) == ["figure", "of", "value", "low", "high", "records", "note"]
    assert repr(result) == "ComplementarityResult('fusion' of alpha, beta over 's')"
    gain = found["gain", "fusion"]
    assert gain.value is None
    assert "Keep them with: ecgstore train --features fusion --split s --task ACS" in gain.note
    # A run is as good a name as that of its feature set; the same seed draws the same.
    assert asked(judged, ids["fusion"][:8]).figures == result.figures


def test_gain_by_model_comes_from_the_kept_classifiers(judged: Warehouse, tmp_path: Path) -> None:
    (one,) = [one for one in asked(judged, "late").figures if one.name == "gain"]
    assert one.value is None
    assert one.note == "The fusion 'average' has no classifier that sees all models at once."
    shutil.copytree(judged.root, tmp_path / "copy")
    warehouse = Warehouse(tmp_path / "copy")
    for name in ("fusion", "short"):
        run_id = train(warehouse, name, "s", params=FEW).run_id
        with Catalog(warehouse.relations()) as catalog:
            gains = block_gains(catalog, predictions_of(catalog, run_id))
        assert list(gains) == ["alpha@v1:mean", "beta@v1:mean"]
        shares = np.array(list(gains.values()))  # of each reshuffle
        assert shares.shape == (2, 2)
        assert shares.sum(axis=0) == pytest.approx(1)
        assert (shares > 0.1).all()


def test_a_model_is_left_out_of_three_where_a_run_without_it_is_stored(judged: Warehouse) -> None:
    result = complementarity(judged, "s", features=["alpha", "gamma"], fused="three", resamples=100)
    found = figures(result)
    assert found["contribution", "gamma"].value is not None  # 'fusion' is the two others
    left_out = found["contribution", "alpha"]
    assert left_out.value is None
    command = "ecgstore fuse gamma@v1:mean beta@v1:mean --name three-without-alpha && ecgstore "
    assert command in left_out.note


def test_what_cannot_be_asked_is_said_with_the_command_that_helps(judged: Warehouse) -> None:
    with pytest.raises(UsageError, match="'fusion' was not evaluated over the split 's' with logi"):
        asked(judged, classifier="logistic")
    with pytest.raises(UsageError) as caught:
        complementarity(judged, "s", features=["alpha", "delta"], fused="fusion")
    command = "ecgstore evaluate --features delta --split s --classifier xgboost --task ACS"
    assert caught.value.hint == f"Do it with: {command}"
    with pytest.raises(UsageError, match="between two or more"):
        complementarity(judged, "s", features=["alpha"], fused="fusion")
    with pytest.raises(UsageError, match="'fusion' joins 2 models"):
        complementarity(judged, "s", features=["alpha", "fusion"], fused="fusion")
    with pytest.raises(UnknownNameError, match="fusiom"):
        asked(judged, "fusiom")


def test_the_command_prints_a_row_a_figure(judged: Warehouse, run: Callable[..., Any]) -> None:
    words = ("--features", "alpha", "--features", "beta", "--fused", "late", "--split", "s")
    done = run("-w", judged.root, "complementarity", *words, "--resamples", "100")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["figure"] for row in rows] == [
        *("CKA", *OVERLAPS, "oracle", "contribution", "contribution", "over best single", "gain")
    ]
    assert "NaN" not in done.out
