"""Synthetic ECGs: physiology that holds, labels that take learning, files that others read."""

from __future__ import annotations

import csv
import hashlib
import importlib
import itertools
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgstore.errors import UsageError
from ecgstore.heart import TERRITORIES
from ecgstore.io import read
from ecgstore.record import INVALID, LEADS
from ecgstore.synthetic import GENERATOR, SyntheticRecord, cohort, write_wfdb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N = 400
DIGEST = "6f496d992b5ee883061f7f873498afeb10b49888bb3ecde98d80870c6e404174"
"""Of 20 records; a change needs a new version in `GENERATOR`."""

# PTB-XL, 500 Hz, median over records of the 99.5 - 0.5 percentile range in mV, order of LEADS.
NORM_MV = [0.83, 1.04, 0.70, 0.91, 0.56, 0.76, 1.09, 1.94, 1.76, 1.77, 1.60, 1.29]
MI_MV = [0.91, 0.89, 0.77, 0.77, 0.78, 0.73, 1.24, 1.88, 1.92, 1.91, 1.75, 1.29]


@pytest.fixture(scope="module")
def records() -> list[SyntheticRecord]:
    return list(cohort(N, seed=0))


@pytest.fixture(scope="module")
def whole(records: list[SyntheticRecord]) -> list[SyntheticRecord]:
    """Return the records without a technical fault."""
    faults = ("flat", "swapped", "clipped", "missing", "lost")
    return [r for r in records if not any(q.startswith(faults) for q in r.quality)]


def beats(record: SyntheticRecord) -> NDArray[np.int64]:
    """Return the samples of the conducted R waves that lie well inside the record."""
    times = record.visit.beats_s[~record.visit.ectopic]
    return np.rint(times[(times > 0.3) & (times < 9.3)] * 500).astype(int)


def st_level(record: SyntheticRecord, mv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median ST level of each lead 60 ms after J, against the PR segment, mV."""
    at = beats(record)
    after_r = round(500 * (0.58 * record.patient.qrs_s + 0.060))
    before_r = round(500 * (0.42 * record.patient.qrs_s + 0.020))
    return np.asarray(np.median(mv[:, at + after_r] - mv[:, at - before_r], axis=1))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_limb_leads_obey_einthoven_and_goldberger(seed: int) -> None:
    record = next(cohort(1, seed=seed))
    for mv, tolerance in ((record.clean_mv, 1e-9), (record.signal_mv, 0.5001 / record.gain[0])):
        first, second, third, right, left, foot = mv[:6]
        assert np.nanmax(np.abs(second - first - third)) < 1e-9
        assert np.nanmax(np.abs(right + (first + second) / 2)) <= tolerance
        assert np.nanmax(np.abs(left - (first - third) / 2)) <= tolerance
        assert np.nanmax(np.abs(foot - (second + third) / 2)) <= tolerance


def detected_rate(mv: NDArray[np.float64]) -> float:
    """Return beats per minute as a simple R-wave detector sees them in all leads together."""
    smooth = np.apply_along_axis(np.convolve, 1, mv, np.ones(10) / 10, mode="valid")
    steep = np.square(smooth[:, 10:] - smooth[:, :-10]).sum(axis=0)
    energy = np.convolve(steep, np.ones(50) / 50, mode="same")
    peaks: list[int] = []
    for sample in np.flatnonzero(energy > 0.3 * np.percentile(energy, 98)).tolist():
        if not peaks or sample - peaks[-1] > 150:
            peaks.append(sample)
        elif energy[sample] > energy[peaks[-1]]:
            peaks[-1] = sample
    return float(60 * 500 / np.median(np.diff(peaks)))


def test_the_rate_that_was_drawn_is_the_rate_that_is_seen(whole: list[SyntheticRecord]) -> None:
    regular = [r for r in whole if r.visit.rhythm == "sinus" and not r.visit.ectopic.any()]
    off = []
    for record in regular[:200]:
        times = record.visit.beats_s
        rate = 60 / np.median(np.diff(times[(times > 0) & (times < 10)]))
        off.append(abs(detected_rate(record.signal_mv) - rate))
    assert max(off) < 2


def test_st_deviates_in_the_stated_territory_by_the_stated_amount(
    records: list[SyntheticRecord],
) -> None:
    seen = set()
    for record in records:
        patient, target = record.patient, record.visit.st_mv
        if abs(target) < 0.1 or record.visit.rhythm == "AF":
            continue
        level = dict(zip(LEADS, st_level(record, record.clean_mv), strict=True))
        found = np.mean([level[lead] for lead in TERRITORIES[patient.territory]])
        assert found == pytest.approx(target, rel=0.20), patient.territory
        if patient.territory == "inferior":
            assert level["aVL"] < -0.05, "no reciprocal depression"
        if patient.territory == "diffuse":
            assert level["aVR"] > 0
        seen.add(patient.territory)
    assert seen == set(TERRITORIES)


def test_a_seed_is_a_cohort_in_any_process() -> None:
    script = (
        "import sys; from ecgstore.synthetic import cohort;"
        "[sys.stdout.buffer.write(record.digital.tobytes()) for record in cohort(20, seed=0)]"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    here = b"".join(record.digital.tobytes() for record in cohort(20, seed=0))
    assert here == there
    assert hashlib.sha256(here).hexdigest() == DIGEST


def test_a_record_does_not_depend_on_the_size_of_its_cohort() -> None:
    few, more = list(cohort(3, seed=7)), list(cohort(6, seed=7))
    assert [r.signal_sha256 for r in few] == [r.signal_sha256 for r in more[:3]]
    assert next(cohort(1, seed=8)).signal_sha256 != few[0].signal_sha256
    assert list(cohort(0, seed=7)) == []


@pytest.mark.parametrize("bad", [{"n": -1}, {"seed": -1}, {"acs": 1.5}])
def test_numbers_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cohort needs"):
        cohort(**{"n": 1, "seed": 0, **bad})


def test_prevalence_is_that_asked_for(records: list[SyntheticRecord]) -> None:
    patients = {r.patient.number: r.patient for r in records}.values()
    for share, members in (
        (0.20, [p.acs for p in patients]),
        (0.30, [p.subtle for p in patients if p.acs]),
        (0.08, [bool(p.condition) for p in patients if not p.acs]),
    ):
        limit = 3 * np.sqrt(share * (1 - share) / len(members))
        assert np.mean(members) == pytest.approx(share, abs=limit)
    assert 0.80 * N < len(patients) < 0.95 * N, "some patients have several ECGs"


def test_two_ecgs_of_a_patient_resemble_each_other(whole: list[SyntheticRecord]) -> None:
    def shape(record: SyntheticRecord) -> NDArray[np.float64]:
        around = beats(record)[:, None] + np.arange(-25, 26)
        return np.asarray(np.median(record.signal_mv[:, around], axis=1)).ravel()

    well = [r for r in whole if not r.patient.acs]
    pairs = list(itertools.pairwise(well))
    same = [np.corrcoef(shape(a), shape(b))[0, 1] for a, b in pairs if a.patient is b.patient]
    other = [np.corrcoef(shape(a), shape(b))[0, 1] for a, b in pairs if a.patient is not b.patient]
    assert len(same) > 10
    assert np.median(same) > 0.99 > np.median(other) + 0.03
    assert [r.meta["patient_id"] for r in well] == [f"S{r.patient.number:05d}" for r in well]


def test_amplitudes_are_those_of_real_ecgs(whole: list[SyntheticRecord]) -> None:
    def spread(chosen: list[SyntheticRecord]) -> NDArray[np.float64]:
        limits = [np.percentile(r.signal_mv, [0.5, 99.5], axis=1) for r in chosen]
        return np.asarray(np.median([high - low for low, high in limits], axis=0))

    well = spread([r for r in whole if not r.patient.acs and not r.patient.condition])
    ill = spread([r for r in whole if r.patient.acs and not r.patient.subtle])
    assert np.abs(np.log(well / NORM_MV)).max() < np.log(1.35)
    assert np.abs(np.log(ill / MI_MV)).max() < np.log(1.35)


def test_the_label_can_be_learned_but_not_read_off(records: list[SyntheticRecord]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    level = np.array([st_level(r, np.nan_to_num(r.signal_mv)) for r in records])
    scores = cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
        np.hstack([level, np.abs(level)]),
        [r.patient.acs for r in records],
        groups=[r.patient.number for r in records],
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
        scoring="roc_auc",
    )
    assert 0.75 < scores.mean() < 0.90


def test_faults_are_rare_named_and_visible() -> None:
    named: dict[str, SyntheticRecord] = {}
    for record in cohort(400, seed=5):
        for word in record.quality:
            named.setdefault(word.split(" V")[0], record)
    assert {"swapped arms", "flat lead", "lost samples", "clipped lead"} <= set(named)
    lost = named["lost samples"].digital == INVALID
    assert lost.all(axis=0).any()
    assert lost.mean() < 0.11
    swapped = named["swapped arms"]
    assert np.corrcoef(swapped.signal_mv[0], swapped.clean_mv[0])[0, 1] < -0.5
    flat = named["flat lead"]
    assert (np.ptp(flat.digital, axis=1) == 0).sum() == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SyntheticRecord]]:
    folder = tmp_path_factory.mktemp("synthetic") / "ecgs"
    records = list(cohort(60, seed=5))
    write_wfdb(folder, records)
    return folder, records


@pytest.fixture(scope="module")
def wfdb() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of pandas as it is loaded
        return importlib.import_module("wfdb")


def test_files_are_wfdb_to_wfdb_and_to_us(
    wfdb: Any, written: tuple[Path, list[SyntheticRecord]]
) -> None:
    folder, records = written
    for record in records[:12]:
        theirs = wfdb.rdrecord(str(folder / record.name), physical=False)
        np.testing.assert_array_equal(theirs.d_signal.T, record.digital)
        assert theirs.sig_name == list(LEADS)
        assert theirs.adc_gain == list(record.gain)
        assert theirs.checksum == [int(c) & 0xFFFF for c in theirs.calc_checksum()]
        assert "synthetic: true" in theirs.comments
        assert f"generator: {GENERATOR}" in theirs.comments
        ours = read(folder / f"{record.name}.hea")
        assert ours.signal_sha256 == record.signal_sha256
        assert (ours.meta["age"], ours.meta["sex"]) == (record.patient.age, record.patient.sex)
        assert str(ours.meta["recorded_at"])[:4] == "2100"


def test_the_labels_file_holds_the_truth(written: tuple[Path, list[SyntheticRecord]]) -> None:
    folder, records = written
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["record_id"] for row in rows] == [f"synthetic/{r.name}" for r in records]
    assert [row["ACS"] == "1" for row in rows] == [r.patient.acs for r in records]
    assert {row["synthetic"] for row in rows} == {"true"}
    assert all(row["site"].startswith("synthetic") for row in rows)
    assert all((row["territory"] != "") == (row["ACS"] == "1") for row in rows)
