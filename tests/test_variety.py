"""The cohort to pretrain on: hearts that differ more, in people and rhythms that stay the same."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from ecgstore.synthetic import cohort
from ecgstore.variety import CHANGES

N = 200
DIGEST = "0b07c606ffa3ea3b814cda0509cb9a025c9f48bd09fcc4f2290a4327a95007c2"
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


def test_where_the_qrs_alone_differs_all_else_is_one() -> None:
    people = [one.patient for one in cohort(30, seed=3, varied=True, qrs_alone=True)]
    rest = [np.r_[one.heart[[0, 1, 7]].ravel(), one.st, one.rate_bpm, one.qtc_s] for one in people]
    assert np.ptp(rest, axis=0).max() == 0
    assert np.std([one.heart[2:7] for one in people], axis=0).mean() > 0.1


def test_limb_leads_still_agree() -> None:
    for record in cohort(5, seed=4, varied=True):
        first, second, third = record.clean_mv[:3]
        assert np.abs(second - first - third).max() < 1e-9


def test_the_records_of_a_seed_stay_the_same() -> None:
    digest = hashlib.sha256()
    for record in cohort(10, seed=7, varied=True):
        digest.update(record.digital.tobytes())
    assert digest.hexdigest() == DIGEST
