"""The cohort to pretrain on: hearts that differ more, in people and rhythms that stay the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.synthetic import cohort
from ecgstore.variety import CHANGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

N = 200
DIGESTS = {
    False: "0b07c606ffa3ea3b814cda0509cb9a025c9f48bd09fcc4f2290a4327a95007c2",
    True: "c2500ce774c8d06b3e8ca901c38da58e617951797917dff32512fee7b4ccb7c7",
}
"""Of 10 records: the weights in the box were trained on records of this generator."""


def test_people_stay_the_same_and_hearts_differ() -> None:
    for plain, varied in zip(cohort(20, seed=1), cohort(20, seed=1, varied=True), strict=True):
        assert plain.name == varied.name
        assert plain.meta["age"] == varied.meta["age"]
        assert plain.patient.acs == varied.patient.acs
        assert not np.allclose(plain.patient.heart, varied.patient.heart)


def test_every_change_occurs_about_as_often_as_is_said() -> None:
    patients = {one.patient.number: one.patient for one in cohort(N, seed=2, varied=True)}
    counts = Counter(one.condition for one in patients.values())
    assert set(counts) == set(CHANGES)
    for change, share in CHANGES.items():
        expected = share * len(patients)
        assert abs(counts[change] - expected) < 4 * np.sqrt(expected)


def test_beats_differ_more_between_people_than_in_the_plain_cohort() -> None:
    def spread(*, varied: bool) -> float:
        hearts = [one.patient.heart for one in cohort(60, seed=3, varied=varied)]
        return float(np.std(hearts, axis=0).mean())

    assert spread(varied=True) > 1.3 * spread(varied=False)


def test_a_retaken_record_shares_the_disease_and_little_else() -> None:
    for record in cohort(30, seed=3, acs=0.3, retaken=True):
        again = record.later
        assert again is not None
        assert again.patient.condition == record.patient.condition
        assert again.patient.acs == record.patient.acs
        same = again.patient.qrs_shift == record.patient.qrs_shift
        assert same.all() or record.patient.condition == "old infarct"
        assert not np.allclose(again.patient.heart, record.patient.heart)
        assert not np.allclose(again.patient.electrodes, record.patient.electrodes)
        assert again.patient.rate_bpm != record.patient.rate_bpm
        assert (record.digital[:, 2500:] == again.digital[:, 2500:]).all()
        assert (record.clean_mv[:, 2500:] == again.clean_mv[:, 2500:]).all()
        assert set(record.quality) >= set(again.quality)


def test_what_a_disease_does_is_done_at_both_times() -> None:
    def turned(wanted: str) -> float:
        hearts = [
            np.sign([one.patient.heart[7] @ one.patient.heart[3:5].sum(0) for one in (a, a.later)])
            for a in cohort(400, seed=5, acs=0, retaken=True)
            if a.later is not None and a.patient.condition == wanted
        ]
        return float(np.mean(hearts))

    assert turned("left bundle branch block") < -0.9
    assert turned("") > 0.3


def test_limb_leads_still_agree() -> None:
    for record in cohort(5, seed=4, varied=True):
        first, second, third = record.clean_mv[:3]
        assert np.abs(second - first - third).max() < 1e-9


def test_late_waves_come_late() -> None:
    def beat(shift: float) -> NDArray[np.float64]:
        patient = replace(record.patient, qrs_shift=np.full(5, shift))
        begin = int((record.visit.beats_s[2] - 0.1) * 500)
        return replace(record, patient=patient).clean_mv[1, begin : begin + 100]

    record = next(one for one in cohort(20, seed=1, acs=0) if not one.visit.ectopic.any())
    later = int(beat(0.3).argmax() - beat(0.0).argmax())
    assert abs(later / 500 - 0.3 * record.patient.qrs_s) < 0.003


@pytest.mark.parametrize("retaken", DIGESTS)
def test_the_records_of_a_seed_stay_the_same(*, retaken: bool) -> None:
    digest = hashlib.sha256()
    for record in cohort(10, seed=7, varied=True, retaken=retaken):
        digest.update(record.digital.tobytes())
    assert digest.hexdigest() == DIGESTS[retaken]
