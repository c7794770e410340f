"""What the engine makes of the hardware, as ratios of two things timed side by side in one run.

Full-size random weights, ten-second records at 500 Hz with twelve leads. For each model:

- plain: the model written down plainly in eager float32 (`plain.py`), the base of the ratios;
- fp32, bf16: the engine's encoder on prepared windows in memory;
- of the matrix rate: the arithmetic it does a second, as a part of what a matrix product of 8192
  (2048 on a CPU) reaches in bf16, or in fp32 where there are no bf16 units;
- prepared: from ADC counts in memory, with preparation on the device;
- warehouse: `ecgstore.embed` of records from Parquet to committed vectors.

    python benchmarks/embed.py --device cuda              on a GPU, batch 256
    python benchmarks/embed.py --model ecgfm --records 16
    python benchmarks/embed.py --no-warehouse             needs PyTorch, NumPy and SciPy only
    python benchmarks/embed.py --memory                   peak memory, of records and of loading
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plain
import torch
from torch.utils.flop_counter import FlopCounterMode

from ecgstore.models import Configuration, Encoder, Weights, models
from ecgstore.models.device import exact_float32, has_bfloat16
from ecgstore.models.ecgfm_keys import EcgFmConfiguration
from ecgstore.models.stmem import StMemConfiguration
from ecgstore.models.weights import write_safetensors
from ecgstore.record import COLUMNS, LEADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ecgstore.warehouse import Warehouse

CONFIGURATIONS: dict[str, Configuration] = {
    "ecgfm": EcgFmConfiguration(),
    "stmem:centre": StMemConfiguration(),
}
RATE_HZ = 500.0
SAMPLES = 5000


def encoder_of(name: str, device: str, precision: str) -> Encoder:
    """Return a model with random weights of published size."""
    bare, _, variant = name.partition(":")
    model, configuration = models.get(bare), CONFIGURATIONS[name]
    weights = Weights("random", "0" * 64, configuration, configuration.untrained(0))
    return model.encoder(
        model.spec, weights, variant=variant or None, device=device, precision=precision
    )


def seconds(work: Callable[[], object], device: str, least_s: float) -> float:
    """Return the seconds of one call, over as many as fill the time."""
    _wait(device)
    began, count = time.perf_counter(), 0
    while True:
        work()
        count += 1
        _wait(device)
        if (spent := time.perf_counter() - began) > least_s:
            return spent / count


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def matrix_rate(device: str, dtype: torch.dtype, least_s: float) -> float:
    """Return the operations a second of a square matrix product."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * n**3 / seconds(lambda: a @ b, device, least_s)


def in_memory(name: str, device: str, batch: int, least_s: float, turns: int) -> dict[str, object]:
    """Time the encoder against its plain form, turn about."""
    c: Any = CONFIGURATIONS[name]
    tensors = {key: value.to(device) for key, value in c.untrained(0).items()}
    plainly = getattr(plain, name.partition(":")[0])
    encoders = {"fp32": encoder_of(name, device, "fp32")}
    if has_bfloat16(torch.device(device)):
        encoders["bf16"] = encoder_of(name, device, "bf16")
    best = encoders.get("bf16", encoders["fp32"])
    windows = torch.randn(batch, len(LEADS), best.window_samples, device=device)
    counts = (torch.randn(batch, len(LEADS), SAMPLES, device=device) * 100).to(torch.int16)
    gain = torch.full((batch, len(LEADS)), 200.0, device=device)
    zero = torch.zeros(batch, len(LEADS), device=device)

    @torch.inference_mode()
    def reference() -> Tensor:
        with exact_float32():
            vectors: Tensor = plainly(tensors, c, windows)
        return vectors

    def whole() -> None:
        prepared = best.prepare_batch(counts, gain, zero, rate_hz=RATE_HZ, leads=LEADS)
        for part in prepared.flatten(0, 1).split(batch):
            best.encode(part, LEADS)

    gap = (reference() - encoders["fp32"].encode(windows, LEADS)[0]).abs().max().item()
    with FlopCounterMode(display=False) as counter:
        reference()
    flop = counter.get_total_flops()
    works: dict[str, Callable[[], object]] = {"plain": reference}
    for precision, one in encoders.items():
        works[precision] = functools.partial(one.encode, windows, LEADS)
    works["prepared"] = whole
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {what: [] for what in works}
    for turn in range(turns):
        for what in works if turn % 2 else reversed(works):
            taken[what].append(seconds(works[what], device, least_s))
    dtype = torch.bfloat16 if "bf16" in encoders else torch.float32
    rate = matrix_rate(device, dtype, least_s)
    middle = {what: float(np.median(values)) for what, values in taken.items()}
    per_record = len(best.window_starts(SAMPLES, rate_hz=RATE_HZ))
    return {
        "model": name,
        "device": device,
        "batch": batch,
        "largest difference, fp32 to plain": gap,
        "gflop a window": flop / batch / 1e9,
        "fp32 / plain": _ratio(taken, "fp32"),
        "bf16 / plain": _ratio(taken, "bf16") if "bf16" in taken else None,
        "windows/s, plain": batch / middle["plain"],
        "windows/s, best": batch / middle[best.precision],
        "records/s, best, prepared": batch / middle["prepared"],
        "windows a record": per_record,
        "of the matrix rate": flop / middle[best.precision] / rate,
        "matrix rate, TFLOP/s": rate / 1e12,
    }


def _ratio(taken: dict[str, list[float]], what: str) -> float:
    """Return how many times faster than the plain form, the median over turns."""
    return float(np.median(np.array(taken["plain"]) / np.array(taken[what])))


def fill(folder: Path, count: int, *, dataset: str) -> Warehouse:
    """Put records of 10 s at 500 Hz, 12 leads, into a warehouse."""
    import pyarrow as pa

    from ecgstore.warehouse import Warehouse

    warehouse = Warehouse.create(folder)
    rng = np.random.default_rng(count)
    for start in range(0, count, 500):
        names = [f"{dataset}/{i:06d}" for i in range(start, min(start + 500, count))]
        counts = rng.normal(0, 40, (12, len(names) * SAMPLES)).astype(np.int16)
        offsets = pa.array(np.arange(len(names) + 1, dtype=np.int32) * SAMPLES)
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
        records |= {"rate_hz": [RATE_HZ] * len(names), "n_samples": [SAMPLES] * len(names)}
        warehouse.append("waveforms", pa.table(waveforms), command="benchmark")
        warehouse.append("records", pa.table(records), command="benchmark")
    return warehouse


def from_warehouse(name: str, device: str, batch: int, records: int, turns: int) -> float:
    """Return the speed from a warehouse as a part of that in memory, preparation included."""
    from ecgstore.embed import embed

    encoder = encoder_of(name, device, "auto")
    counts = (torch.randn(batch, len(LEADS), SAMPLES, device=device) * 100).to(torch.int16)
    gain = torch.full((batch, len(LEADS)), 200.0, device=device)
    zero = torch.zeros(batch, len(LEADS), device=device)

    def whole() -> None:
        prepared = encoder.prepare_batch(counts, gain, zero, rate_hz=RATE_HZ, leads=LEADS)
        for part in prepared.flatten(0, 1).split(batch):
            encoder.encode(part, LEADS)

    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns):
            dataset = f"turn{turn}"
            warehouse = fill(Path(folder), records, dataset=dataset)
            whole()
            alone = seconds(whole, device, 1.0) * records / batch
            began = time.perf_counter()
            done = embed(warehouse, encoder, where=f"dataset = '{dataset}'", batch_size=batch)
            ratios.append(alone / (time.perf_counter() - began))
            assert done.embedded == records
    return float(np.median(ratios))


def peak_of_records(count: int) -> float:
    """Return the peak memory, MB, of a process that embeds so many records."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), count, dataset="memory")
        command = [sys.executable, "-m", "ecgstore", "-w", folder, "embed"]
        command += ["--model", "ecgfm.mini", "--device", "cpu"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        return usage.ru_maxrss / 1024


_LOADING = """
import sys, torch
from pathlib import Path
from ecgstore.models import load_encoder
load_encoder("ecgfm.mini", device="cpu")  # everything is imported

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("RssAnon")).split()[1])

import threading, time
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.001)

watcher = threading.Thread(target=watch)
watcher.start()
encoder = load_encoder(sys.argv[1], weights=sys.argv[2], device="cpu", precision="fp32")
done.set(); watcher.join()
size = sum(x.numel() * x.element_size() for x in encoder.network.state_dict().values()) / 1024
print((peak[0] - before) / size)
"""


def peak_of_loading(name: str) -> float:
    """Return the most memory that loading takes of its own, in sizes of the weights.

    Pages of the file that are mapped are the system's to drop, and do not count.
    """
    bare, configuration = name.partition(":")[0], CONFIGURATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(
            path, configuration.untrained(0), settings=configuration.settings(), source=""
        )
        command = [sys.executable, "-c", _LOADING, bare, str(path)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure the models asked for and print one row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=CONFIGURATIONS, action="append")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="default 8, on a GPU 256")
    parser.add_argument("--records", type=int, help="from a warehouse; default 32, on a GPU 20000")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--least-s", type=float, default=2.0, help="seconds of each measurement")
    parser.add_argument("--no-warehouse", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    on_gpu = options.device != "cpu"
    batch = options.batch or (256 if on_gpu else 8)
    rows: list[dict[str, object]] = []
    if options.memory:
        small, large = peak_of_records(1_000), peak_of_records(10_000)
        rows.append({"peak MB, 1,000 records": small, "10,000": large, "ratio": large / small})
        rows += [
            {"model": name, "peak of loading / weights": peak_of_loading(name)}
            for name in options.model or CONFIGURATIONS
        ]
    else:
        for name in options.model or CONFIGURATIONS:
            row = in_memory(name, options.device, batch, options.least_s, options.turns)
            if not options.no_warehouse:
                records = options.records or (20_000 if on_gpu else 32)
                part = from_warehouse(name, options.device, batch, records, 3)
                row["warehouse / in memory"] = part
            rows.append(row)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        for what, value in row.items():
            none = "not measured: this device has no bfloat16 matrix units"
            shown = none if value is None else f"{value:.4g}" if isinstance(value, float) else value
            print(f"{what:36}{shown}")
        print()


if __name__ == "__main__":
    main()
