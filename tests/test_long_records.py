"""Records of many minutes: windows that overlap, and a second transformer over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.catalog import Catalog
from ecgstore.classifiers import Sequence
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.features import FeatureSet, Member
from ecgstore.models import load_encoder
from ecgstore.sequences import window_sequences
from ecgstore.statistics.metrics import measure
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SMALL = {"width": 16, "heads": 2, "epochs": 30, "learning_rate": 0.01, "folds": 3, "batch_size": 16}
MEMBER = Member("anyecg.tiny", "v1", "long")


def no_step() -> None:
    pass


def ragged(records: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return records of 2 to 6 windows; some have a first window that is unlike all others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((records, 6, 4), dtype=np.float32)
    y = (np.arange(records) % 3 == 0).astype(np.float64)
    x[:, 0, 0] += 4 * y
    x[:, 1, 0] += 4 * (1 - y)  # so the mean over windows tells nothing, their order all
    for row, count in enumerate(rng.integers(2, 7, records)):
        x[row, count:] = np.nan
    return x, y


# ------------------------------------------------------------------ the classifier


def test_it_learns_from_the_order_of_windows_and_survives_saving() -> None:
    x, y = ragged(150)
    model = Sequence({**SMALL, "dropout": 0})
    told: list[int] = []
    model.fit(x[:120], y[:120], step=lambda: told.append(1))
    assert len(told) == model.steps
    scores = model.predict(x[120:])
    assert measure(y[120:], scores, "binary")["AUROC"] > 0.9
    data = model.save()
    again = Sequence.load(data)
    np.testing.assert_array_equal(again.predict(x[120:]), scores)
    assert again.save() == data


def test_the_same_seed_gives_the_same_network() -> None:
    x, y = ragged(30)
    saved = []
    for seed in (0, 0, 1):
        model = Sequence({**SMALL, "epochs": 2, "seed": seed})
        model.fit(x, y, step=no_step)
        saved.append(model.save())
    assert saved[0] == saved[1] != saved[2]


def test_padding_changes_nothing_and_windows_must_be_whole() -> None:
    x, y = ragged(30)
    model = Sequence({**SMALL, "epochs": 1})
    model.fit(x, y, step=no_step)
    scores = model.predict(x)
    wider = np.concatenate([x, np.full((30, 5, 4), np.nan, np.float32)], axis=1)
    np.testing.assert_allclose(model.predict(wider), scores, atol=1e-6)
    alone = int((~np.isnan(x[3, :, 0])).sum())
    np.testing.assert_allclose(model.predict(x[3:4, :alone]), scores[3:4], atol=1e-6)
    for row, window, value in [(0, 0, np.nan), (1, 0, np.inf)]:
        broken = x.copy()
        broken[row, window, 1] = value
        with pytest.raises(UsageError, match="infinite or missing"):
            model.predict(broken)
    with pytest.raises(UsageError, match="has no window"):
        model.predict(np.full((1, 2, 4), np.nan, np.float32))
    with pytest.raises(UsageError, match="A vector has 3 numbers; sequence was fitted to 4"):
        model.predict(x[..., :3])
    with pytest.raises(UsageError, match=r"not the shape \(30, 4\)"):
        model.predict(x[:, 0])
    with pytest.raises(UsageError, match="'width' of sequence is 12; with 4 heads"):
        Sequence({"width": 12})


# ------------------------------------------------------------------ windows of records


def windows(counts: dict[str, int], dim: int = 3) -> pa.Table:
    rows = [
        {"record_id": name, **MEMBER._asdict(), "window": k, "start_s": 30.0 * k}
        | {"embedding": [float(k)] * dim}
        for name, count in counts.items()
        for k in range(count)
    ]
    return pa.Table.from_pylist(rows[::-1])


def test_windows_of_a_record_come_in_order_with_padding_behind(tmp_path: Path) -> None:
    warehouse = Warehouse.create(tmp_path / "w")
    warehouse.append("windows", windows({"a/1": 2, "a/2": 4, "a/3": 1}), command="test")
    with Catalog(warehouse.relations()) as catalog:
        one = FeatureSet("long", (MEMBER,))
        ids, (x,) = window_sequences(catalog, one, ["a/3", "a/2", "a/9"])
        assert ids.tolist() == ["a/2", "a/3"]
        assert x.shape == (2, 4, 3)
        np.testing.assert_array_equal(x[..., 0], [[0, 1, 2, 3], [0, *[np.nan] * 3]])
        with pytest.raises(NotEnoughDataError, match="No window of 'long' is kept") as caught:
            window_sequences(catalog, one, ["a/9"])
        assert "--keep-windows" in str(caught.value.hint)
        for wrong in (
            FeatureSet("two", (MEMBER, MEMBER)),
            FeatureSet("scaled", (MEMBER,), scale="minmax"),
        ):
            with pytest.raises(UsageError, match="joins or scales"):
                window_sequences(catalog, wrong, ["a/1"])


def test_long_records_are_cut_into_minutes_every_half_minute() -> None:
    encoder = load_encoder("anyecg.tiny:long", device="cpu", precision="fp32")
    assert encoder.window_samples == 60 * 300
    assert encoder.window_starts(1806 * 360, rate_hz=360) == tuple(30.0 * k for k in range(59))
    assert encoder.window_starts(59 * 300, rate_hz=300) == (0.0,)
    signal = np.random.default_rng(0).standard_normal((1, 100 * 300)).cumsum(axis=1)
    whole = load_encoder("anyecg.tiny:denoised", device="cpu", precision="fp32")
    ready = encoder.prepare(signal, rate_hz=300, leads=["II"])
    assert ready.shape == (2, 1, 18_000)
    (before,) = whole.prepare(signal, rate_hz=300, leads=["II"])
    np.testing.assert_array_equal(ready[1][:, : (85 - 30) * 300], before[:, 30 * 300 :])


def test_real_long_records_from_signals_to_scores(tmp_path: Path, test_data: Path) -> None:
    """Two-lead records of minutes go all the way, though an untrained encoder tells nothing."""
    folder = test_data / "data" / "longterm" / "cpsc2021"
    with Store(tmp_path / "w") as store:
        store.ingest(folder, dataset="cpsc2021", jobs=1)
        done = store.embed(
            "anyecg.tiny:long", device="cpu", precision="fp32", keep_windows=True, batch_size=4
        )
        assert (done.embedded, done.pooling) == (4, "long")
        found = store.table(
            'select record_id, list(start_s order by "window") as starts, '
            "any_value(n_samples / rate_hz) as seconds "
            "from windows join records using (record_id) group by record_id"
        ).to_pylist()
        assert len(found) == 4
        for row in found:
            assert row["starts"] == [30.0 * k for k in range(int(row["seconds"] - 60) // 30 + 1)]
        # Four records are too few to learn from: twins of them under other names, of two kinds.
        multiply(store.warehouse)
        store.split("s", task="long", repeats=1, test_size=0.4)
        told = {"epochs": "3", "folds": "2", "width": "16", "heads": "2"}
        result = store.evaluate(["anyecg.tiny:long"], "s", classifier="sequence", params=told)
        (score,) = result.rows
        assert (score["classifier"], score["n_repeats"]) == ("sequence", 1)
        trained = store.train("anyecg.tiny:long", "s", classifier="sequence", params=told)
        assert len(store.predict(trained.run_id).scores) == 20
        assert store.reproduce(trained.run_id).identical
        with pytest.raises(UsageError, match="reads the windows of long records"):
            store.explain(trained.run_id)


def multiply(warehouse: Warehouse) -> None:
    """Give four records and their vectors four copies each, and all of them labels."""
    every: list[dict[str, Any]] = []
    for table in ("embeddings", "windows", "records"):
        rows = warehouse.table(table).read().to_pylist()
        twins = [{**r, "record_id": f"{r['record_id']}.{k}"} for k in range(4) for r in rows]
        if table == "records":
            twins = [{**twin, "patient_id": twin["record_id"]} for twin in twins]
        schema = warehouse.table(table).schema.arrow
        warehouse.append(table, pa.Table.from_pylist(twins, schema=schema), command="test")
        every = [*rows, *twins]
    labels = [
        {"record_id": row["record_id"], "task": "long", "label": float(number % 2)}
        for number, row in enumerate(every)
    ]
    warehouse.append("labels", pa.Table.from_pylist(labels), command="test")
