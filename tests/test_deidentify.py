"""What names a person stays outside, and the same person stays the same person."""

from __future__ import annotations

import datetime as dt
import stat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.deidentify import Deidentifier, key_file, load_key, pseudonym_key
from ecgstore.errors import UsageError
from ecgstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = bytes(range(32))
WHEN = dt.datetime(2020, 3, 4, 5, 6, 7)


# ------------------------------------------------------------------ the key


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "patients.key"
    key = load_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_key(path) == key
    assert [one.name for one in path.parent.iterdir()] == ["patients.key"]
    assert load_key(tmp_path / "other.key") != key


def test_where_the_key_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGSTORE_KEY", str(tmp_path / "a"))
    assert key_file() == tmp_path / "a"
    monkeypatch.delenv("ECGSTORE_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert key_file() == tmp_path / "ecgstore" / "patients.key"


def test_a_key_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    house = tmp_path / "warehouse"
    house.mkdir()
    with pytest.raises(UsageError, match="inside the warehouse"):
        load_key(house / "patients.key", outside=house)
    assert not (house / "patients.key").exists()
    path = tmp_path / "patients.key"
    load_key(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="Others may read"):
        load_key(path)
    for content in ("", "ab" * 31, "no key"):
        path.chmod(0o600)
        path.write_text(content)
        with pytest.raises(UsageError, match="is not a key"):
            load_key(path)
    with pytest.raises(UsageError, match="cannot be used"):
        load_key(path / "below" / "a" / "file")
    assert load_key(tmp_path / "absent", make=False) == b""


# ------------------------------------------------------------------ what becomes of what


def test_a_pseudonym_tells_nothing_but_who_is_the_same() -> None:
    hide = Deidentifier(KEY)
    assert hide.patient("123") == hide.patient(" 123 ") != hide.patient("124")
    assert hide.patient("123") != Deidentifier(KEY[::-1]).patient("123")
    assert hide.patient("123") != Deidentifier(KEY, space="ptbxl").patient("123")
    assert "123" not in hide.patient("123")[:4]
    assert pseudonym_key(hide.patient("123")) == hide.mark
    assert pseudonym_key("123") is None
    assert Deidentifier(None).patient("123") == "123"


def test_dates_move_by_a_number_of_days_of_the_patients_own() -> None:
    hide = Deidentifier(KEY, shift_days=365)
    later = WHEN + dt.timedelta(days=40, hours=3)
    moved = {name: hide.shifted(WHEN, name) for name in map(str, range(200))}
    for name, when in moved.items():
        assert when is not None
        assert abs(when - WHEN) <= dt.timedelta(days=365)
        assert when.time() == WHEN.time()
        again = hide.shifted(later, name)
        assert again is not None
        assert again - when == later - WHEN
    assert len(set(moved.values())) > 100
    assert hide.shifted(WHEN, None) is None
    assert Deidentifier(KEY).shifted(WHEN, None) == WHEN


def test_ages_above_89_are_pooled_on_request() -> None:
    assert Deidentifier(KEY, pool_ages=True).age(97) == (90, True)
    assert Deidentifier(KEY, pool_ages=True).age(89) == (89, False)
    assert Deidentifier(KEY).age(97) == (97, False)


# ------------------------------------------------------------------ in a warehouse


@pytest.fixture
def source(tmp_path: Path, write_wfdb: Callable[..., Path]) -> Path:
    rng = np.random.default_rng(0)
    for i in range(4):
        header = write_wfdb(tmp_path / "source", f"r{i}", rng.integers(-99, 99, (12, 50)))
        with header.open("a") as file:
            file.write(f"# Age: {88 + i}\n")
    rows = [f"r{i},{i % 2},MRN-{i // 2}" for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["record_id,label,pid", *rows]) + "\n")
    return tmp_path / "source"


def patients(store: Store) -> list[str]:
    query = "select patient_id from records order by record_id"
    return [str(one) for (one,) in store.sql(query).fetchall()]


def test_patients_are_hidden_grouped_and_found_by_their_own_ids(
    source: Path, tmp_path: Path
) -> None:
    with Store(tmp_path / "warehouse") as store:
        store.ingest(source, dataset="mine", jobs=1, pool_ages=True)
        store.label(source.parent / "labels.csv", task="T", patient="pid")
        hidden = patients(store)
        assert len(set(hidden)) == 2
        assert hidden[0] == hidden[1] == Deidentifier(load_key()).patient("MRN-0")
        query = "select age, list_contains(quality, 'age_over_89') from records order by age"
        ages = store.sql(query)
        assert ages.fetchall() == [(88, False), (89, False), (90, True), (90, True)]
        assert store.forget(["MRN-1"], yes=True).records == 2
        assert patients(store) == hidden[:2]
    found = [path for path in (tmp_path / "warehouse").rglob("*") if path.is_file()]
    assert found
    assert not [path for path in found if b"MRN-" in path.read_bytes()]


def test_ids_are_kept_when_asked_for(source: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "warehouse") as store:
        store.ingest(source, dataset="mine", jobs=1, keep_ids=True)
        store.label(source.parent / "labels.csv", task="T", patient="pid", keep_ids=True)
        assert patients(store) == ["MRN-0", "MRN-0", "MRN-1", "MRN-1"]


def test_another_key_would_make_two_of_one_patient(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "warehouse") as store:
        store.ingest(source, dataset="mine", jobs=1)
        store.label(source.parent / "labels.csv", task="T", patient="pid")
        monkeypatch.setenv("ECGSTORE_KEY", str(tmp_path / "other.key"))
        with pytest.raises(UsageError, match="hidden with another key"):
            store.ingest(source, dataset="again", jobs=1)
        with pytest.raises(UsageError, match="hidden with another key"):
            store.label(source.parent / "labels.csv", task="T", patient="pid", overwrite=True)
