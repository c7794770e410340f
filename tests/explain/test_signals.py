"""Occlusion and integrated gradients find the lead and the moment that a score is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import ecgstore
from ecgstore.errors import UsageError
from ecgstore.explain.gradients import gradients
from ecgstore.explain.occlusion import occlusion
from ecgstore.record import LEADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.models import Encoder

    Block = NDArray[np.float32]

RATE_HZ = 500.0


def planted(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return quiet records of 10 s and labels; those labelled 1 have a wave in V2 at 4.5 s."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(scale=0.02, size=(n, 12, 5000)), (np.arange(n) % 2).astype(np.float64)
    time_s = np.arange(5000) / RATE_HZ
    x[:, LEADS.index("V2")] += np.outer(y, 2 * np.exp(-(((time_s - 4.5) / 0.15) ** 2)))
    return x, y


@pytest.fixture(scope="module")
def record() -> NDArray[np.float64]:
    """Return a record that the head has not seen, with the wave."""
    one: NDArray[np.float64] = planted(2, seed=5)[0][1]
    return one


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Return an encoder of eight leads that does not centre each."""
    return ecgstore.load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def head(encoder: Encoder) -> NDArray[np.float64]:
    """Return weights and, last, shift of a logistic head that was fitted to planted records."""
    from sklearn.linear_model import LogisticRegression

    x, y = planted(24)
    windows = [encoder.prepare(one, rate_hz=RATE_HZ, leads=LEADS)[0] for one in x]
    vectors = encoder.embed(np.stack(windows)).astype(np.float64)
    mean, deviation = vectors.mean(0), vectors.std(0)
    fitted = LogisticRegression(C=0.1).fit((vectors - mean) / deviation, y)
    weights = fitted.coef_[0] / deviation
    return np.append(weights, fitted.intercept_[0] - mean @ weights)


def first_number(blocks: Sequence[Block]) -> NDArray[np.float64]:
    return blocks[0][:, 0].astype(np.float64)


def test_occlusion_finds_the_planted_wave(
    encoder: Encoder, head: NDArray[np.float64], record: NDArray[np.float64]
) -> None:
    def score(blocks: Sequence[Block]) -> NDArray[np.float64]:
        logit: NDArray[np.float64] = blocks[0] @ head[:-1] + head[-1]
        return logit

    found = occlusion([encoder], score, record, rate_hz=RATE_HZ, leads=LEADS, window_s=1.0)
    effect = dict(zip(LEADS, found.by_lead, strict=True))
    assert found.score > 1
    assert effect.pop("V2") > 5 * max(map(abs, effect.values()))
    assert effect["III"] == effect["aVF"] == 0, "the encoder does not read them"
    lead, place = np.unravel_index(found.values.argmax(), found.values.shape)
    assert (LEADS[lead], found.edges_s[place]) == ("V2", 4.0)


def test_a_score_falls_by_what_the_flat_copy_scores(
    encoder: Encoder, record: NDArray[np.float64]
) -> None:
    v2 = LEADS.index("V2")
    found = occlusion(
        [encoder], first_number, record, rate_hz=RATE_HZ, leads=LEADS, window_s=5.0, step_s=2.5
    )
    flat, part, other = record.copy(), record.copy(), record.copy()
    flat[v2] = np.median(record[v2])
    part[v2, :2500] = record[v2, 2500]  # from the first sample on there is no line, only a level
    other[v2, 1250:3750] = np.interp(np.arange(2500), [-1, 2500], record[v2, [1249, 3750]])

    def score(signal: NDArray[np.float64]) -> float:
        windows = encoder.prepare(signal, rate_hz=RATE_HZ, leads=LEADS)
        return float(encoder.embed(windows).mean(axis=0)[0])

    lost = [score(record) - score(one) for one in (flat, part, other)]
    assert found.by_lead[v2] == pytest.approx(lost[0], abs=1e-5)
    assert found.values[v2, 0] == pytest.approx(lost[1], abs=1e-5)
    assert found.values[v2, 1] == pytest.approx((lost[1] + lost[2]) / 2, abs=1e-5)


def test_a_lead_that_cannot_be_left_out_has_no_figure_but_a_reason(
    record: NDArray[np.float64],
) -> None:
    encoder = ecgstore.load_encoder("stmem.tiny:centre", device="cpu", precision="fp32")
    alone = record[LEADS.index("V2")][None]
    found = occlusion([encoder], first_number, alone, rate_hz=RATE_HZ, leads=["V2"], window_s=5.0)
    (row,) = found.rows
    assert row["effect"] is None
    assert row["reason"] == "the models take no record without this lead"
    assert np.isfinite(found.values).all()


def test_gradients_add_up_and_find_the_planted_wave(
    encoder: Encoder, head: NDArray[np.float64], record: NDArray[np.float64]
) -> None:
    weights = torch.from_numpy(head)
    found = gradients(
        [encoder],
        lambda blocks: blocks[0] @ weights[:-1] + weights[-1],
        record,
        rate_hz=RATE_HZ,
        leads=LEADS,
    )
    effect = dict(zip(LEADS, found.by_lead, strict=True))
    assert found.baseline is not None
    moved = found.score - found.baseline
    assert found.by_lead.sum() == pytest.approx(moved, abs=1e-3)
    assert found.values.sum() == pytest.approx(moved, abs=1e-3)
    assert effect.pop("V2") > 5 * max(map(abs, effect.values()))
    strongest_s = found.edges_s[int(found.values[LEADS.index("V2")].argmax())]
    assert 4.0 <= strongest_s < 5.0


def test_gradients_add_up_where_an_encoder_normalises(record: NDArray[np.float64]) -> None:
    """Its score does not change with the strength of a signal, save close to none at all."""
    encoder = ecgstore.load_encoder("stmem.tiny:centre", device="cpu", precision="fp32")
    found = gradients(
        [encoder], lambda blocks: blocks[0][:, 0], record[:3], rate_hz=RATE_HZ, leads=LEADS[:3]
    )
    assert found.baseline is not None
    assert found.gap is not None
    assert abs(found.gap) <= 0.01 * max(abs(found.score - found.baseline), 1)


def test_several_encoders_share_one_score(record: NDArray[np.float64]) -> None:
    names = ("ecgjepa.tiny", "ecgflow.tiny")
    encoders = [ecgstore.load_encoder(one, device="cpu", precision="fp32") for one in names]
    found = gradients(
        encoders,
        lambda blocks: blocks[0][:, 0] + 2 * blocks[1][:, 1],
        record,
        rate_hz=RATE_HZ,
        leads=LEADS,
        steps=20,
    )
    single = [
        gradients([one], score, record, rate_hz=RATE_HZ, leads=LEADS, steps=20)
        for one, score in zip(
            encoders,
            (lambda blocks: blocks[0][:, 0], lambda blocks: 2 * blocks[0][:, 1]),
            strict=True,
        )
    ]
    assert found.values == pytest.approx(single[0].values + single[1].values, abs=1e-5)


def test_a_stretch_without_length_is_refused(encoder: Encoder, record: NDArray[np.float64]) -> None:
    with pytest.raises(UsageError, match="make no sense"):
        occlusion([encoder], first_number, record, rate_hz=RATE_HZ, leads=LEADS, window_s=0.0)
