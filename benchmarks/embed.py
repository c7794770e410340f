"""How much of the bare network's speed is left when records are prepared and embedded one by one.

Makes full-size weights at random, writes them to a file and loads that file the public way. Then
times, batch by batch and in turn, the network alone on prepared batches and a stream that prepares
records and embeds them. Prints the ratio of the two (1 is no loss), and that of bfloat16 to
float32 where the CPU multiplies bfloat16 matrices itself.

    python benchmarks/embed.py --model ecgfm --records 8
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ecgstore.models import Configuration, Encoder, load_encoder, models
from ecgstore.models.ecgfm_keys import EcgFmConfiguration
from ecgstore.models.stmem import StMemConfiguration
from ecgstore.models.weights import write_safetensors
from ecgstore.record import LEADS

Array = np.ndarray[Any, Any]
Stream = Callable[[Encoder, Sequence[Array], int], Iterator[Array]]
"""Gives the vectors of records, ``(windows, dim)`` a batch, in order."""

CONFIGURATIONS: dict[str, Configuration] = {
    "ecgfm": EcgFmConfiguration(),
    "stmem": StMemConfiguration(),
}
RATE_HZ = 500.0


def full_size(name: str, folder: Path, precision: Literal["auto", "fp32", "bf16"]) -> Encoder:
    """Load a model with random weights of published size from a file."""
    configuration = CONFIGURATIONS[name]
    path = folder / f"{name}.safetensors"
    if not path.exists():
        tensors = configuration.untrained(0)
        write_safetensors(path, tensors, settings=configuration.settings(), source="random")
    readout = "centre" if "centre" in models.get(name).spec.readouts else None
    return load_encoder(name, weights=path, device="cpu", precision=precision, readout=readout)


def from_memory(encoder: Encoder, records: Sequence[Array], batch: int) -> Iterator[Array]:
    """Prepare records one by one and embed their windows in batches."""
    windows = (w for r in records for w in encoder.prepare(r, rate_hz=RATE_HZ, leads=LEADS))
    while chunk := list(islice(windows, batch)):
        yield encoder.embed(np.stack(chunk))


def bare(encoder: Encoder, records: Sequence[Array], batch: int) -> Iterator[Array]:
    """Run the network alone on windows prepared beforehand; `measure` starts the clock late."""
    prepared = [encoder.prepare(record, rate_hz=RATE_HZ, leads=LEADS) for record in records]
    windows = np.concatenate(prepared)
    network: Any = encoder.network
    yield np.empty((0, encoder.dim))
    with torch.inference_mode():
        for start in range(0, len(windows), batch):
            x = torch.from_numpy(windows[start : start + batch])
            if encoder.spec.arch == "stmem":
                out = network.norm(network.pool(network(x, range(12)), 12))
            else:
                out = network.pool(network(x))
            yield out.numpy()


def measure(encoder: Encoder, stream: Stream, records: Sequence[Array], batch: int) -> float:
    """Return the speed of a stream as a part of the bare network's, batch by batch in turn."""
    alone, whole = bare(encoder, records, batch), stream(encoder, records, batch)
    next(alone)
    next(bare(encoder, records[:1], batch))
    encoder.embed(np.zeros((batch, 12, encoder.window_samples), np.float32))
    ratios: list[float] = []
    while True:
        start = time.perf_counter()
        exact = next(alone, None)
        middle = time.perf_counter()
        ours = next(whole, None)
        end = time.perf_counter()
        if exact is None or ours is None:
            return float(np.median(ratios))
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-4)
        ratios.append((middle - start) / (end - middle))


def bfloat16_gain(folder: Path, name: str, batch: int) -> float | None:
    """Return how many times faster bfloat16 is, or None where the CPU has no units for it."""
    narrow = full_size(name, folder, "auto")
    if narrow.precision != "bf16":
        return None
    wide = full_size(name, folder, "fp32")
    windows = np.random.default_rng(0).standard_normal((batch, 12, wide.window_samples))
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(4):
        for encoder in (wide, narrow):
            start = time.perf_counter()
            encoder.embed(windows.astype(np.float32))
            seconds[encoder.precision].append(time.perf_counter() - start)
    return float(np.median(seconds["fp32"][1:]) / np.median(seconds["bf16"][1:]))


def main() -> None:
    """Measure the models asked for and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=CONFIGURATIONS, action="append")
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    records = [rng.standard_normal((12, 5000)) for _ in range(options.records)]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.model or CONFIGURATIONS:
            encoder = full_size(name, Path(temporary), "fp32")
            part = measure(encoder, from_memory, records, options.batch)
            gain = bfloat16_gain(Path(temporary), name, options.batch)
            rows.append({"model": name, "stream / bare, fp32": part, "bf16 / fp32": gain})
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        for what, value in row.items():
            none = "not measured: this CPU has no bfloat16 matrix units"
            shown = value if isinstance(value, str) else none if value is None else f"{value:.3f}"
            print(f"{what:22}{shown}")


if __name__ == "__main__":
    main()
