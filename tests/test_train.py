"""Classifiers learn from training records only, and come back from the warehouse unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.classifiers import Classifier, Logistic, XGBoost
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.features import Member, matrix
from ecgstore.fuse import fuse
from ecgstore.record import COLUMNS, INVALID
from ecgstore.splitting.split import reshuffles, split
from ecgstore.supervised import ResNet50, signals
from ecgstore.train import classifiers, load_classifier, read_settings, train
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import scan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Cohort = Callable[..., Warehouse]

GAIN = 200.0
TINY = {"epochs": 1, "width": 2}


def blobs(n: int = 200, dim: int = 12) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.3).astype(np.float64)
    x = rng.standard_normal((n, dim), dtype=np.float32)
    x[:, 0] += y.astype(np.float32)
    return x, y


def beats(n: int, *, rate_hz: int = 100) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return 10 s signals in mV; in those labelled 1, V1 to V6 are raised after each beat."""
    rng = np.random.default_rng(1)
    y = (np.arange(n) % 3 == 0).astype(np.float64)
    t = np.arange(10 * rate_hz) / rate_hz
    phase = (t + rng.random((n, 1))) % 1.0
    beat = np.exp(-(((phase - 0.3) / 0.02) ** 2))
    raised = np.exp(-(((phase - 0.5) / 0.1) ** 2))
    x = np.repeat(beat[:, None], 12, axis=1) + 0.02 * rng.standard_normal((n, 12, len(t)))
    x[:, 6:] += 0.5 * y[:, None, None] * raised[:, None]
    return x.astype(np.float32), y


def waveform(record_id: str, mv: NDArray[np.float32], **changed: Any) -> dict[str, Any]:
    counts = np.round(mv * GAIN).astype(np.int16)
    row: dict[str, Any] = {"record_id": record_id, "gain": [GAIN] * 12, "baseline": [0] * 12}
    return {**row, **dict(zip(COLUMNS, counts, strict=True)), **changed}


def ecgs(root: Path, x: NDArray[np.float32], y: NDArray[np.float64], rate_hz: float) -> Warehouse:
    warehouse = Warehouse.create(root)
    ids = [f"e/{i:03d}" for i in range(len(y))]
    rows: dict[str, object] = {"record_id": ids, "task": ["T"] * len(y), "label": y}
    warehouse.append("labels", pa.table(rows), command="test")
    waves = [waveform(record_id, mv) for record_id, mv in zip(ids, x, strict=True)]
    warehouse.append("waveforms", pa.Table.from_pylist(waves), command="test")
    rows = {"record_id": ids, "rate_hz": [rate_hz] * len(y), "signal_sha256": ids}
    warehouse.append("records", pa.table(rows), command="test")
    return warehouse


def no_step() -> None:
    pass


def test_xgboost_is_the_plain_classifier_with_the_papers_settings() -> None:
    import xgboost

    x, y = blobs()
    ours = XGBoost()
    ours.fit(x[:150], y[:150], step=no_step)
    plain = xgboost.XGBClassifier(
        max_depth=6, learning_rate=0.1, subsample=0.8, colsample_bytree=0.8, random_state=0
    )
    plain.fit(x[:150], y[:150])
    assert np.array_equal(ours.predict(x[150:]), plain.predict_proba(x[150:])[:, 1])


def test_logistic_regression_is_scikit_learns_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = blobs()
    x[:, 5] = 3.0
    ours = Logistic({"C": 0.1})
    ours.fit(x[:150], y[:150], step=no_step)
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
    plain.fit(x[:150].astype(np.float64), y[:150])
    expected = plain.predict_proba(x[150:].astype(np.float64))[:, 1]
    np.testing.assert_allclose(ours.predict(x[150:]), expected, rtol=1e-10)


def test_resnet_learns_what_is_plain_to_see() -> None:
    x, y = beats(72)
    x = x[:, :, :300]
    steps: list[None] = []
    model = ResNet50({"epochs": 6, "width": 8, "batch_size": 8, "learning_rate": 0.003})
    model.fit(x[:48], y[:48], step=lambda: steps.append(None))
    scores = model.predict(x[48:])
    positive, negative = scores[y[48:] == 1], scores[y[48:] == 0]
    assert (positive[:, None] > negative).mean() > 0.8
    assert len(steps) == model.steps == 6


def test_a_network_is_the_same_for_the_same_seed_only() -> None:
    import torch

    x, y = beats(8)
    x = x[:, :, :100]
    state = torch.random.get_rng_state()
    saved = []
    for seed in (1, 1, 2):
        model = ResNet50({**TINY, "seed": seed})
        model.fit(x, y, step=no_step)
        saved.append(model.save())
    assert saved[0] == saved[1] != saved[2]
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's draws were disturbed"


@pytest.mark.parametrize("kind", [XGBoost, Logistic, ResNet50])
def test_a_classifier_survives_saving(kind: type[Classifier]) -> None:
    x, y = blobs() if kind.reads == "features" else beats(12)
    params = TINY if kind is ResNet50 else {}
    model = kind(params)
    model.fit(x, y, step=no_step)
    data = model.save()
    loaded = kind.load(data)
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert not data.startswith(b"\x80"), "that is a pickle"


def test_training_is_kept_found_again_and_renewed_when_data_change(cohort: Cohort) -> None:
    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=3)
    fuse(warehouse, ["alpha", "beta"], name="fusion")
    before = warehouse.versions()
    plan = train(warehouse, "fusion", "s", params={"n_estimators": "20"}, dry_run=True)
    assert (plan.fitted, warehouse.versions()) == (3, before)
    first = train(warehouse, "fusion", "s", params={"n_estimators": "20"})
    assert (first.run_id, first.fitted, first.records) == (plan.run_id, 3, 120)
    before = warehouse.versions()
    second = train(warehouse, "fusion", "s", params={"n_estimators": 20})
    assert (second.run_id, second.fitted) == (first.run_id, 0)
    assert warehouse.versions() == before

    with Catalog(warehouse.relations()) as catalog:
        model = load_classifier(catalog, first.run_id, 1)
        (one,) = [one for one in reshuffles(catalog, "s") if one.repeat == 1]
        stored = catalog.table(
            "select record_id, score, split, p.label = l.label as same from predictions p "
            "join labels l using (record_id) where repeat = 1 order by record_id"
        )
        features = catalog.query("fuse", {"repeat": "1"}).to_arrow_table()
        with pytest.raises(UnknownNameError, match="Unknown trained classifier"):
            load_classifier(catalog, first.run_id, 9)
    x = np.array(features["features"].to_pylist(), dtype=np.float32)
    test = np.array(features["split"].to_pylist()) == "test"
    assert stored["record_id"].to_pylist() == list(one.test)
    assert all(stored["same"].to_pylist())
    assert set(stored["split"].to_pylist()) == {"test"}
    assert np.array_equal(model.predict(x[test]), stored["score"].to_numpy())

    assert train(warehouse, "fusion", "s", params={"seed": 1}, dry_run=True).fitted == 3
    label = {"record_id": ["syn/00000"], "task": ["ACS"], "label": [1.0]}
    warehouse.replace("labels", pa.table(label), command="test")
    flipped = train(warehouse, "fusion", "s", params={"n_estimators": 20}, dry_run=True)
    label["label"] = [0.0]
    warehouse.replace("labels", pa.table(label), command="test")
    back = train(warehouse, "fusion", "s", params={"n_estimators": 20}, dry_run=True)
    assert sorted([flipped.fitted, back.fitted]) == [0, 3]


@pytest.mark.parametrize("classifier", ["xgboost", "logistic"])
def test_test_records_never_reach_a_fitted_classifier(cohort: Cohort, classifier: str) -> None:
    models = []
    for name in ("as is", "changed"):
        warehouse = cohort(name)
        split(warehouse, "s", task="ACS", repeats=1)
        if name == "changed":
            with Catalog(warehouse.relations()) as catalog:
                (one,) = reshuffles(catalog, "s")
            rows = warehouse.table("embeddings").read().to_pylist()
            shifted = [
                {**row, "embedding": [1e3 - v for v in row["embedding"]]}
                for row in rows
                if row["record_id"] in one.test
            ]
            warehouse.replace("embeddings", pa.Table.from_pylist(shifted), command="test")
        fuse(warehouse, ["alpha", "beta"], name="fusion")
        run = train(warehouse, "fusion", "s", classifier=classifier)
        tables = [warehouse.table(table).read() for table in ("norm_stats", "classifiers")]
        models.append((run.run_id, tables[0].to_pylist(), tables[1]["model"].to_pylist()))
    assert models[0][0] != models[1][0], "other test vectors must make another run"
    assert models[0][1:] == models[1][1:]


def test_a_network_is_trained_on_signals_of_any_rate(tmp_path: Path) -> None:
    x, y = beats(30, rate_hz=250)
    warehouse = ecgs(tmp_path, x, y, 250.0)
    split(warehouse, "s", task="T", repeats=1, test_size=0.3)
    run = train(warehouse, "signal", "s", classifier="resnet50", params=TINY)
    assert (run.records, run.fitted) == (30, 1)
    before = warehouse.versions()
    again = train(warehouse, "signal", "s", classifier="resnet50", params=TINY)
    assert (again.run_id, again.fitted, warehouse.versions()) == (run.run_id, 0, before)
    with Catalog(warehouse.relations()) as catalog:
        assert isinstance(load_classifier(catalog, run.run_id, 0), ResNet50)


def test_signals_are_resampled_cut_and_never_padded(tmp_path: Path) -> None:
    t = np.arange(11 * 500) / 500
    mv = np.tile(np.sin(2 * np.pi * 5 * t) + 0.5, (12, 1)).astype(np.float32)
    lost = np.round(mv[0] * GAIN).astype(np.int16)
    lost[77] = INVALID
    rows = [
        waveform("a/100", mv[:, ::5]),
        waveform("a/500", mv),
        waveform("b/late", mv, ii=np.where(np.arange(5500) > 5000, INVALID, lost * 0)),
        waveform("b/lost", mv, ii=lost),
        waveform("b/no lead", mv, avr=None),
        waveform("b/no rate", mv),
        waveform("b/short", mv[:, :4999]),
    ]
    warehouse = Warehouse.create(tmp_path)
    warehouse.append("waveforms", pa.Table.from_pylist(rows), command="test")
    rates: dict[str, float | None] = {str(row["record_id"]): 500.0 for row in rows}
    rates |= {"a/100": 100.0, "b/no rate": None, "b/nothing": 500.0}
    waveforms = scan(warehouse.table("waveforms").files())
    ids, x, refused = signals(waveforms, rates, rate_hz=100, seconds=10)
    assert list(ids) == ["a/100", "a/500", "b/late"]
    assert refused == {
        "lost samples": 1,
        "missing leads": 1,
        "no rate": 1,
        "too short": 1,
        "no waveform": 1,
    }
    assert x.shape == (3, 12, 1000)
    assert x.dtype == np.float32
    expected = np.sin(2 * np.pi * 5 * np.arange(1000) / 100) + 0.5
    np.testing.assert_allclose(x[0], np.tile(expected, (12, 1)), atol=0.5 / GAIN + 1e-6)
    np.testing.assert_allclose(x[1], np.tile(expected, (12, 1)), atol=0.05)


def test_settings_are_typed_and_unknown_ones_list_the_known() -> None:
    kinds = [classifiers.get("xgboost"), classifiers.get("resnet50")]
    main, baseline = read_settings(
        kinds, {"max_depth": "4", "xgboost.gamma": 1, "resnet50.epochs": "2"}
    )
    assert (main["max_depth"], main["gamma"], baseline["epochs"]) == (4, 1.0, 2)
    assert (main["subsample"], baseline["learning_rate"]) == (0.8, 0.001)
    with pytest.raises(UsageError, match=r"Unknown setting 'depth'; known: n_estimators, .*max_"):
        read_settings(kinds, {"depth": 3})
    with pytest.raises(UsageError, match=r"Unknown setting 'logistic.C'"):
        read_settings(kinds, {"logistic.C": 3})
    with pytest.raises(UsageError, match="'max_depth' is 'deep'; a whole number was expected"):
        read_settings(kinds, {"max_depth": "deep"})
    with pytest.raises(UnknownNameError, match="Did you mean 'xgboost'"):
        classifiers.get("xgbost")


def test_settings_that_cannot_work_are_refused(cohort: Cohort) -> None:
    x, y = blobs(40)
    with pytest.raises(UsageError, match="value 3 for Parameter subsample exceed bound"):
        XGBoost({"subsample": 3.0}).fit(x, y, step=no_step)
    with pytest.raises(UsageError, match="n_estimators is 0; XGBoost needs at least 1 tree"):
        XGBoost({"n_estimators": 0}).fit(x, y, step=no_step)
    with pytest.raises(UsageError, match="cannot fit: The 'C' parameter"):
        Logistic({"C": -1.0}).fit(x, y, step=no_step)
    with pytest.raises(UsageError, match="did not settle in 1 iterations"):
        Logistic({"max_iter": 1}).fit(x, y, step=no_step)
    with pytest.raises(UsageError, match="'epochs' of resnet50 is 0; it must be above 0"):
        ResNet50({"epochs": 0})
    with pytest.raises(UsageError, match="at least 64 samples"):
        ResNet50({"seconds": 0.5})
    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=1)
    with pytest.raises(UsageError, match="'resnet50' reads the feature set 'signal', not 'alpha'"):
        train(warehouse, "alpha", "s", classifier="resnet50")
    with pytest.raises(UsageError, match="'xgboost' reads vectors, not 'signal'"):
        train(warehouse, "signal", "s")
    with pytest.raises(NotEnoughDataError, match="0 positive and 0 negative"):
        train(warehouse, "signal", "s", classifier="resnet50", params=TINY)


def test_records_without_a_vector_are_refused_when_the_set_says_so(cohort: Cohort) -> None:
    warehouse = cohort()
    split(warehouse, "s", task="ACS", repeats=1)
    fuse(warehouse, ["alpha", "beta"], name="strict", missing="error")
    fuse(warehouse, ["alpha", "beta"], name="lenient")
    gone = {"record_id": ["syn/00004"], "model": ["beta"]}
    warehouse.delete("embeddings", pa.table(gone), command="test")
    with pytest.raises(NotEnoughDataError, match="1 records of the split lack a vector"):
        train(warehouse, "strict", "s")
    run = train(warehouse, "lenient", "s", params={"n_estimators": 5})
    assert (run.records, run.left_out) == (119, {"no vector": 1})
    with Catalog(warehouse.relations()) as catalog:
        ids, _ = matrix(catalog, [Member("beta", "v1", "mean")])
    assert "syn/00004" not in ids
