"""The engine: every record in one place, whatever the batch, the devices and what goes wrong."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore import engine
from ecgstore.grouping import Batch, Grouping, Refused
from ecgstore.models import load_encoder, load_encoders
from ecgstore.record import INVALID, LEADS
from ecgstore.waveforms import Waveform

if TYPE_CHECKING:
    from collections.abc import Iterator


NAMES = ("ecgfm.tiny", "stmem.tiny", "ecgjepa.tiny")
LIMB = LEADS[:5]


def waveform(
    name: str, *, rate_hz: float = 500.0, seconds: float = 10.0, leads: tuple[str, ...] = LEADS
) -> Waveform:
    """Return a record of beats with noise, another one for every name."""
    rng = np.random.default_rng(sum(name.encode()))
    samples = int(rate_hz * seconds)
    beats = 250 * np.exp(-(((np.arange(samples) / rate_hz * 1.2) % 1 - 0.3) ** 2) / 0.001)
    counts = np.outer(np.linspace(-1, 1.5, len(leads)), beats) + rng.normal(
        0, 20, (len(leads), samples)
    )
    return Waveform(
        name,
        leads,
        counts.astype(np.int16),
        np.full(len(leads), 200.0),
        np.zeros(len(leads), np.int32),
    )


def run(
    records: list[Waveform],
    names: tuple[str, ...] = NAMES,
    *,
    rates: dict[str, float] | None = None,
    device: str = "cpu",
    batch_size: int = 4,
) -> tuple[dict[tuple[int, str], np.ndarray[Any, Any]], list[Refused]]:
    """Run the engine; returns a vector for each model and record, and the refusals."""
    devices = load_encoders(names, device=device, precision="fp32")
    todo = [{record.record_id for record in records}] * len(names)
    all_rates = {record.record_id: 500.0 for record in records} | (rates or {})
    vectors, refused = {}, []
    for item in engine.run(iter(records), devices, todo, rates=all_rates, batch_size=batch_size):
        if isinstance(item, Refused):
            refused.append(item)
            continue
        for name, values in zip(item.record_ids, item.values, strict=True):
            assert (item.task, name) not in vectors
            vectors[item.task, name] = values.mean(axis=0)
    return vectors, refused


@pytest.fixture(scope="module")
def records() -> list[Waveform]:
    return [waveform(f"r{number}") for number in range(7)]


@pytest.fixture(scope="module")
def expected(records: list[Waveform]) -> dict[tuple[int, str], np.ndarray[Any, Any]]:
    """Return what the encoders give for one record after the other."""
    vectors = {}
    for task, name in enumerate(NAMES):
        encoder = load_encoder(name, device="cpu", precision="fp32")
        for record in records:
            windows = encoder.prepare(record.signal_mv, rate_hz=500.0, leads=record.leads)
            leads = encoder.window_leads(record.leads)
            vectors[task, record.record_id] = encoder.embed(windows, leads=leads).mean(axis=0)
    return vectors


@pytest.mark.parametrize(
    ("batch_size", "device"), [(1, "cpu"), (3, "cpu"), (64, "cpu"), (2, "cpu,cpu")]
)
def test_vectors_do_not_depend_on_batches_order_or_devices(
    records: list[Waveform],
    expected: dict[tuple[int, str], np.ndarray[Any, Any]],
    batch_size: int,
    device: str,
) -> None:
    order = np.random.default_rng(batch_size).permutation(len(records))
    shuffled = [records[row] for row in order]
    vectors, refused = run(shuffled, device=device, batch_size=batch_size)
    assert not refused
    assert vectors.keys() == expected.keys()
    for key, vector in vectors.items():
        np.testing.assert_allclose(vector, expected[key], rtol=0, atol=1e-5)


def test_each_waveform_is_asked_for_once(records: list[Waveform]) -> None:
    asked = []

    def source() -> Iterator[Waveform]:
        for record in records:
            asked.append(record.record_id)
            yield record

    devices = load_encoders(NAMES, device="cpu", precision="fp32")
    wanted = {record.record_id for record in records}
    rates = dict.fromkeys(wanted, 500.0)
    done = list(engine.run(source(), devices, [wanted] * 3, rates=rates, batch_size=4))
    assert asked == [record.record_id for record in records]
    assert sum(len(item.record_ids) for item in done if isinstance(item, engine.Vectors)) == 21


def test_every_record_is_embedded_or_refused_with_a_reason() -> None:
    flat, lost, blank = waveform("flat"), waveform("lost"), waveform("blank")
    flat.digital[:] = 80
    lost.digital[1, 5] = INVALID
    blank.digital[11] = INVALID
    mixed = [
        waveform("plain"),
        waveform("slow", rate_hz=37.0),
        waveform("fast", rate_hz=10_000.0),
        waveform("odd", rate_hz=257.0, seconds=11.3),
        waveform("short", seconds=3.0),
        waveform("five leads", leads=LIMB),
        waveform("no rate"),
        flat,
        lost,
        blank,
    ]
    rates = {"slow": 37.0, "fast": 10_000.0, "odd": 257.0, "no rate": 0.0}
    vectors, refused = run(mixed, rates=rates)
    everywhere = {"plain", "slow", "fast", "odd", "five leads", "blank"}
    for task in range(3):
        assert {name for number, name in vectors if number == task} == everywhere
        reasons = sorted(item.reason for item in refused if item.task == task)
        assert reasons == ["NaN", "flat", "no rate", "too short"]
    assert all(np.isfinite(vector).all() for vector in vectors.values())


def test_a_reader_that_leaves_early_ends_every_thread(records: list[Waveform]) -> None:
    before = threading.active_count()
    devices = load_encoders(NAMES[:1], device="cpu,cpu", precision="fp32")
    wanted = {record.record_id for record in records}
    rates = dict.fromkeys(wanted, 500.0)
    running = engine.run(iter(records), devices, [wanted], rates=rates, batch_size=1)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_records_of_all_lengths_share_batches_of_windows() -> None:
    """As many lengths as records, which is what some archives hold."""
    mixed = [waveform(f"m{number}", seconds=10 + number / 10) for number in range(10)]
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    whole, sizes = encoder.encode, []

    def encode(windows: torch.Tensor, leads: tuple[str, ...]) -> object:
        sizes.append(len(windows))
        return whole(windows, leads)

    encoder.encode = encode  # type: ignore[assignment,method-assign]
    wanted = {record.record_id for record in mixed}
    rates = dict.fromkeys(wanted, 500.0)
    found: dict[str, np.ndarray[Any, Any]] = {}
    for item in engine.run(iter(mixed), [[encoder]], [wanted], rates=rates, batch_size=4):
        assert isinstance(item, engine.Vectors)
        found |= dict(zip(item.record_ids, item.values[:, 0], strict=True))
    assert sorted(sizes) == [2, 4, 4]
    for record in mixed:
        windows = encoder.prepare(record.signal_mv, rate_hz=500.0, leads=record.leads)
        alone, _ = whole(torch.from_numpy(windows), encoder.spec.leads)
        np.testing.assert_allclose(found[record.record_id], alone[0], rtol=0, atol=1e-5)


def test_what_waits_for_company_is_bounded() -> None:
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    asked = 0

    def source() -> Iterator[Waveform]:
        nonlocal asked
        counts = np.zeros((12, 600_000), np.int16)
        counts[:, ::7] = 1
        for number in range(40):
            asked += 1
            shorter = counts[:, : 600_000 - number]  # 14 MB, each of another length
            yield Waveform(str(number), LEADS, shorter, np.ones(12), np.zeros(12, np.int32))

    names = {str(number) for number in range(40)}
    grouping = Grouping([encoder], [names], dict.fromkeys(names, 500.0), batch_size=8, pinned=False)
    batches = grouping.of(source())
    first = next(batches)
    assert isinstance(first, Batch)
    assert asked < 8
    rest = [name for batch in batches if isinstance(batch, Batch) for name in batch.record_ids]
    assert sorted([*first.record_ids, *rest]) == sorted(names)
