"""What an embedding will cost, told before it is begun: records, arithmetic and time."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ecgstore.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.embed import Plan
    from ecgstore.models import Encoder
    from ecgstore.warehouse import Warehouse

__all__ = ["Estimate", "estimate"]

_PROBE_S = 2.0


@dataclass(frozen=True)
class Estimate:
    """What is to be expected of embedding with one model.

    Attributes:
        model: Registry name.
        pooling: Variant and read-out.
        device: Where it would run.
        precision: In which arithmetic.
        records: Records to embed, those that will be refused included.
        windows: Windows of those that are long enough.
        gflop_per_window: Arithmetic of the network for one window, a multiply-add counting two.
        windows_per_s: Measured on this device by embedding made-up records for two seconds, with
            their preparation, without reading and writing.
        seconds: Expected time, devices together.
    """

    model: str
    pooling: str
    device: str
    precision: str
    records: int
    windows: int
    gflop_per_window: float
    windows_per_s: float
    seconds: float

    @property
    def row(self) -> dict[str, object]:
        """The estimate as a flat row."""
        return {
            "model": self.model,
            "pooling": self.pooling,
            "device": self.device,
            "precision": self.precision,
            "records": self.records,
            "windows": self.windows,
            "gflop_per_window": round(self.gflop_per_window, 3),
            "tflop": round(self.gflop_per_window * self.windows / 1000, 3),
            "windows_per_s": round(self.windows_per_s, 2),
            "seconds": round(self.seconds, 1),
        }


def estimate(
    warehouse: Warehouse, plans: Sequence[Plan], *, devices: int, batch_size: int
) -> list[Estimate]:
    """Estimate what plans will cost on the devices of their encoders.

    Args:
        warehouse: Where the records are.
        plans: What is left to do, one a model; see `ecgstore.embed.plan`.
        devices: Devices that share the work.
        batch_size: Windows a network takes at once.
    """
    with Catalog(warehouse.relations()) as catalog:
        rows = catalog.table("select record_id, n_samples, rate_hz from records")
    names, samples, rates = (column.to_pylist() for column in rows.columns)
    shape_of = dict(zip(names, zip(samples, rates, strict=True), strict=True))
    return [
        _estimate(plan, Counter(shape_of[name] for name in plan.todo), devices, batch_size)
        for plan in plans
    ]


def _estimate(
    plan: Plan, shapes: Counter[tuple[int | None, float | None]], devices: int, batch_size: int
) -> Estimate:
    encoder = plan.encoder
    windows = sum(
        count * len(encoder.window_starts(samples, rate_hz=rate_hz))
        for (samples, rate_hz), count in shapes.items()
        if samples and rate_hz and rate_hz > 0
    )
    speed, flop = _probe(encoder, batch_size)
    return Estimate(
        model=encoder.spec.name,
        pooling=encoder.pooling,
        device=str(encoder.device),
        precision=encoder.precision,
        records=len(plan.todo),
        windows=windows,
        gflop_per_window=flop / 1e9,
        windows_per_s=speed * devices,
        seconds=windows / (speed * devices),
    )


def _probe(encoder: Encoder, batch_size: int) -> tuple[float, float]:
    """Return windows a second, and the operations of one window."""
    rate_hz = 500.0
    leads = encoder.spec.leads
    samples = int(np.ceil(10.0 * rate_hz))
    per_record = max(1, len(encoder.window_starts(samples, rate_hz=rate_hz)))
    records = max(1, batch_size // per_record)
    noise = np.random.default_rng(0).normal(0, 100, (records, len(leads), samples))
    counts = torch.from_numpy(noise.astype(np.int16)).to(encoder.device)
    gain = torch.full(counts.shape[:2], 200.0, dtype=torch.float64, device=encoder.device)
    baseline = torch.zeros(counts.shape[:2], dtype=torch.int32, device=encoder.device)

    def once(count: int) -> int:
        prepared = encoder.prepare_batch(
            counts[:count], gain[:count], baseline[:count], rate_hz=rate_hz, leads=leads
        ).flatten(0, 1)
        encoder.encode(prepared, leads)[0].cpu()
        return len(prepared)

    # what is compiled does not pass by the counter
    on_gpu = encoder.device.type == "cuda"
    eager = torch.compiler.set_stance("force_eager") if on_gpu else contextlib.nullcontext()
    with eager, FlopCounterMode(display=False) as counter:
        first = once(1)
    flop = counter.get_total_flops() / first
    once(records)
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < _PROBE_S:
        done += once(records)
    return done / spent, flop
