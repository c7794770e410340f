"""The small encoders in the box: what they weigh, that they load, and what they say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import ecgstore
from ecgstore.models import load_encoder
from ecgstore.models.weights import read_checkpoint
from ecgstore.synthetic import cohort

ROOT = Path(__file__).resolve().parent.parent.parent
MINIS = ROOT / "ecgstore" / "models" / "minis"
LIMIT = 3_000_000
NAMES = ("ecgflow.mini", "ecgfm.mini", "stmem.mini")
SHA256 = {
    "ecgflow.mini": "713d7ebbc99eac5a78c010ddc426ac1c655409c50efcec2396fea792e540628b",
    "ecgfm.mini": "9d7de6c1190609d8721ba5dafc8b9d276bb0c4abc2521533d59c64e5756458ec",
    "stmem.mini": "b971abc88c58dc7e6ea624e710d567c6b7f83f92cb1b938b10b525a6d31c5e76",
}
FIRST = {
    "ecgflow.mini": [0.22264, -0.37863, 0.09528, 0.66282],
    "ecgfm.mini": [-1.05688, -1.18649, 3.14348, 1.11839],
    "stmem.mini": [-0.55367, 0.34787, -0.34312, -0.0197],
}
"""The first four numbers of the vector of the first record of the synthetic cohort."""


@pytest.mark.parametrize("name", NAMES)
def test_a_mini_is_small_and_the_very_file_that_was_trained(name: str) -> None:
    path = MINIS / f"{name}.safetensors"
    assert path.stat().st_size <= LIMIT
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_mini_needs_no_file_and_gives_the_numbers_it_gave(name: str) -> None:
    encoder = load_encoder(name, device="cpu", precision="fp32")
    assert encoder.weights_sha256 == SHA256[name]
    record = next(cohort(1, seed=0))
    windows = encoder.prepare(record.signal_mv, rate_hz=record.rate_hz, leads=record.leads)
    vector = np.asarray(encoder.embed(windows)).mean(axis=0)
    assert vector.shape == (encoder.spec.dim,)
    np.testing.assert_allclose(vector[:4], FIRST[name], atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_mini_has_seen_no_record_of_ptbxl(name: str) -> None:
    trained = read_checkpoint(name, MINIS / f"{name}.safetensors").trained
    datasets = trained["datasets"]
    assert isinstance(datasets, list)
    assert "synthetic-varied" in datasets
    assert not [one for one in datasets if "ptbxl" in one or "ptb-xl" in one]


@pytest.mark.parametrize("name", NAMES)
def test_a_mini_has_a_card_and_a_licence(name: str) -> None:
    card = (ROOT / "docs" / "models" / f"{name}.md").read_text(encoding="utf-8")
    assert SHA256[name] in card
    assert "not for clinical use" in card
    spec = next(one for one in ecgstore.list_models(name))
    assert spec.licence == "MIT"
    assert "clinical" in spec.summary
