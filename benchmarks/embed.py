"""How much of the bare network's speed is left when a warehouse is embedded.

Makes full-size weights at random, writes them to a file and loads that file the public way. Then
times in turn the network alone on prepared batches, and `ecgstore.embed` of as many records: read
from Parquet, prepared, embedded, written and committed. Prints the ratio of the two (1 is no
loss), and that of bfloat16 to float32 where the CPU multiplies bfloat16 matrices itself.

    python benchmarks/embed.py --model ecgfm --records 16
    python benchmarks/embed.py --memory          peak memory for 1,000 and 10,000 records
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from ecgstore.embed import embed
from ecgstore.models import Configuration, Encoder, load_encoder, models
from ecgstore.models.ecgfm_keys import EcgFmConfiguration
from ecgstore.models.stmem import StMemConfiguration
from ecgstore.models.weights import write_safetensors
from ecgstore.record import COLUMNS, LEADS
from ecgstore.warehouse import Warehouse
from ecgstore.waveforms import scan

Array = np.ndarray[Any, Any]

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


def fill(warehouse: Warehouse, count: int, *, dataset: str) -> None:
    """Put records of 10 s at 500 Hz, 12 leads, into a warehouse."""
    rng = np.random.default_rng(count)
    for start in range(0, count, 500):
        names = [f"{dataset}/{i:06d}" for i in range(start, min(start + 500, count))]
        counts = rng.normal(0, 40, (12, len(names) * 5000)).astype(np.int16)
        offsets = pa.array(np.arange(len(names) + 1, dtype=np.int32) * 5000)
        waveforms = {
            "record_id": names,
            "gain": [[200.0] * 12] * len(names),
            "baseline": [[0] * 12] * len(names),
            **{
                column: pa.ListArray.from_arrays(offsets, pa.array(lead))
                for column, lead in zip(COLUMNS, counts, strict=True)
            },
        }
        records = {"record_id": names, "dataset": [dataset] * len(names)}
        records |= {"rate_hz": [RATE_HZ] * len(names), "n_samples": [5000] * len(names)}
        warehouse.append("waveforms", pa.table(waveforms), command="benchmark")
        warehouse.append("records", pa.table(records), command="benchmark")


def bare(encoder: Encoder, windows: Array, batch: int) -> float:
    """Return the seconds the network alone takes for prepared windows."""
    network: Any = encoder.network
    start = time.perf_counter()
    with torch.inference_mode():
        for at in range(0, len(windows), batch):
            x = torch.from_numpy(windows[at : at + batch])
            if encoder.spec.arch == "stmem":
                network.norm(network.pool(network(x, range(12)), 12))
            else:
                network.pool(network(x))
    return time.perf_counter() - start


def from_warehouse(encoder: Encoder, folder: Path, records: int, batch: int) -> float:
    """Return the speed of embedding a warehouse as a part of the bare network's."""
    warehouse = Warehouse.create(folder / "warehouse")
    ratios = []
    for turn in range(4):
        dataset = f"{encoder.spec.name}{turn}"
        fill(warehouse, records, dataset=dataset)
        signals = [w.signal_mv for w in scan(warehouse.table("waveforms").files()[:1])]
        prepared = [encoder.prepare(x, rate_hz=RATE_HZ, leads=LEADS) for x in signals]
        alone = bare(encoder, np.concatenate(prepared)[: records * len(prepared[0])], batch)
        start = time.perf_counter()
        done = embed(warehouse, encoder, where=f"dataset = '{dataset}'", batch_size=batch)
        ours = time.perf_counter() - start
        assert done.embedded == records
        ratios.append(alone / ours)
    return float(np.median(ratios[1:]))


def peak_memory(count: int) -> float:
    """Return the peak memory, MB, of a process that embeds so many records."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Warehouse.create(Path(folder)), count, dataset="memory")
        command = [sys.executable, "-m", "ecgstore", "-w", folder, "embed"]
        command += ["--model", "ecgfm.mini", "--device", "cpu"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        return usage.ru_maxrss / 1024


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
    parser.add_argument("--records", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.memory:
        small, large = peak_memory(1_000), peak_memory(10_000)
        print(f"peak memory: {small:.0f} MB for 1,000 records, {large:.0f} MB for 10,000")
        print(f"ratio {large / small:.2f}")
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.model or CONFIGURATIONS:
            encoder = full_size(name, Path(temporary), "fp32")
            part = from_warehouse(encoder, Path(temporary), options.records, options.batch)
            gain = bfloat16_gain(Path(temporary), name, options.batch)
            rows.append({"model": name, "warehouse / bare, fp32": part, "bf16 / fp32": gain})
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        for what, value in row.items():
            none = "not measured: this CPU has no bfloat16 matrix units"
            shown = value if isinstance(value, str) else none if value is None else f"{value:.3f}"
            print(f"{what:26}{shown}")


if __name__ == "__main__":
    main()
