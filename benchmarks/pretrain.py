"""What pretraining makes of the hardware: waiting for data, arithmetic, and memory.

    python benchmarks/pretrain.py                     small models from the feed, on this CPU
    python benchmarks/pretrain.py --device cuda       ST-MEM at full size and published batch
    python benchmarks/pretrain.py --memory            ... and batch 128: does it fit 40 GB?

- waits: the share of an update that the loop waits for its batch (wanted: at most 5 %), and the
  time of an update from the feed over that of one whose batch is in memory, turn about.
- of the matrix rate: operations of an update (forward and backward, as PyTorch counts them) a
  second, as a part of what a bfloat16 matrix product of 8192 reaches (wanted: at least 45 %).
- memory: on a GPU the most that was allocated over three updates. Without one, the bytes of
  weights, gradients and AdamW's moments, and of what autograd keeps for the backward pass in
  bfloat16 at batches of 1 to 4, continued along a straight line to the batch asked for: what
  single operations allocate besides, and lose again, is not in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from embed import fill, matrix_rate
from torch.utils.flop_counter import FlopCounterMode

from ecgstore.feed import Feed
from ecgstore.pretraining import Batch, Method, Ranks, methods
from ecgstore.pretraining.loader import Loader
from ecgstore.pretraining.loop import train
from ecgstore.pretraining.pieces import find_pieces
from ecgstore.pretraining.state import RunFolder
from ecgstore.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ecgstore.pretraining.state import State
    from ecgstore.warehouse import Warehouse

WARM = 3
"""Updates before the clock is started."""

GIB = 2**30


class Nowhere(RunFolder):
    """A run whose checkpoints are not written: the disk is not what is measured."""

    def save(self, state: State) -> None:
        """Do nothing."""


class Held:
    """A loader whose every batch is the same one, in memory."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.waited_s = 0.0

    def steps(self, first: int, last: int) -> Iterator[list[Batch]]:
        """Yield it as often as asked."""
        for _ in range(first, last):
            yield [self.batch]

    def records(self, step: int) -> list[str]:
        """Return the records of an update: none are known."""
        return []


def made(name: str, size: str, device: torch.device) -> Method:
    """Return a method with its starting weights."""
    kind = methods.get(name)
    method = kind(kind.sizes[size])
    method.start(0)
    return method.to(device)


def loader_of(
    warehouse: Warehouse, feed: Feed, method: Method, batch: int, device: torch.device
) -> Loader:
    """Return the batches of all records."""
    from ecgstore.models import get_spec

    leads = get_spec(method.model).leads
    rates: dict[str, float | None] = dict.fromkeys(feed.record_ids, 500.0)
    pieces = find_pieces(feed.scan(), rates, leads, method, progress=Silent())
    return Loader(feed, pieces, method, leads, batch_size=batch, ranks=Ranks(), device=device)


def timed(
    method: Method, loader: Loader | Held, steps: int, precision: str, device: torch.device
) -> tuple[float, float]:
    """Train; return the seconds of an update, and the share of them spent waiting for data."""
    began = waited = 0.0

    def clock(done: int) -> bool:
        nonlocal began, waited
        if done == WARM:
            _wait(device)
            began, waited = time.perf_counter(), loader.waited_s
        return False

    with tempfile.TemporaryDirectory() as folder:
        train(
            method,
            loader,  # type: ignore[arg-type]
            method.recipe,
            steps=WARM + steps,
            seed=0,
            folder=Nowhere(Path(folder)),
            ranks=Ranks(),
            device=device,
            precision=precision,
            every=10**9,
            progress=Silent(),
            each_step=clock,
        )
    _wait(device)
    spent = time.perf_counter() - began
    return spent / steps, (loader.waited_s - waited) / spent


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations(method: Method, batch: Batch, device: torch.device, precision: str) -> int:
    """Return the operations of one update, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        lost(method, batch, device, precision)
    method.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def lost(method: Method, batch: Batch, device: torch.device, precision: str) -> None:
    """Compute the loss of a batch and its gradients."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = method(batch, Ranks())["loss"]
    torch.autograd.backward(loss)


def from_feed(
    name: str, size: str, device: torch.device, precision: str, batch: int, steps: int, turns: int
) -> dict[str, object]:
    """Train from the feed and from memory, turn about."""
    waits, ratios, seconds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        warehouse = fill(Path(folder), 4 * batch, dataset="bench")
        method = made(name, size, device)
        with Feed.open(warehouse) as feed:
            loader = loader_of(warehouse, feed, method, batch, device)
            held = Held(next(loader.first(1)))
            flop = operations(method, held.batch, device, precision)
            for turn in range(turns):
                works: list[Loader | Held] = [loader, held] if turn % 2 else [held, loader]
                taken = {}
                for work in works:
                    taken[work], share = timed(method, work, steps, precision, device)
                    waits += [share] if work is loader else []
                ratios.append(taken[loader] / taken[held])
                seconds.append(taken[loader])
    rate = matrix_rate(device.type, torch.bfloat16 if precision == "bf16" else torch.float32, 1.0)
    return {
        "method": name,
        "size": size,
        "device": device.type,
        "precision": precision,
        "batch": batch,
        "waits, share of an update": float(np.median(waits)),
        "from the feed / from memory": float(np.median(ratios)),
        "updates/s": 1 / float(np.median(seconds)),
        "TFLOP an update": flop / 1e12,
        "of the matrix rate": flop / float(np.median(seconds)) / rate,
        "matrix rate, TFLOP/s": rate / 1e12,
    }


def a_batch(method: Method, items: int, device: torch.device) -> Batch:
    """Return a batch of noise as the method is fed: ten seconds at 500 Hz."""
    from ecgstore import signal
    from ecgstore.models import get_spec

    leads = get_spec(method.model).leads
    generator = torch.Generator().manual_seed(items)
    draws = method.draw(items, len(leads), generator)
    noise = np.random.default_rng(items).normal(0, 0.3, (items, len(leads), 5000))
    windows = np.ascontiguousarray(method.windows(noise, 500.0, signal, draws), np.float32)
    return Batch(
        windows=torch.from_numpy(windows).to(device),
        leads=tuple(range(len(leads))),
        records=torch.arange(items, device=device),
        facts=torch.empty((items, 0), device=device),
        draws=draws.to(device),
    )


def kept_for_backward(method: Method, items: int) -> int:
    """Return the bytes that autograd keeps of one batch, each storage once, weights left out."""
    own = {one.untyped_storage().data_ptr() for one in method.parameters()}
    own |= {one.untyped_storage().data_ptr() for one in method.buffers()}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # or the address of one could be given to another

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    batch = a_batch(method, items, torch.device("cpu"))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        method(batch, Ranks())
    return sum(found.values())


def memory_told(name: str, size: str, batch: int) -> dict[str, object]:
    """Add up what training keeps, without a GPU."""
    method = made(name, size, torch.device("cpu"))
    trained = sum(one.numel() for one in method.parameters() if one.requires_grad)
    fixed = sum(one.numel() for one in [*method.parameters(), *method.buffers()]) - trained
    weights = 4 * (4 * trained + fixed)  # weight, gradient, two moments, in float32
    items = np.arange(1, 5)
    kept = np.array([kept_for_backward(method, int(count)) for count in items])
    slope, base = np.polyfit(items, kept, 1)
    off = float(np.abs(kept / (base + slope * items) - 1).max())
    return {
        "method": name,
        "size": size,
        "batch": batch,
        "weights, gradients, moments, GiB": weights / GIB,
        "kept for backward, GiB": (base + slope * batch) / GIB,
        "kept an item, MiB": slope / 2**20,
        "largest departure from the line": off,
        "together, GiB": (weights + base + slope * batch) / GIB,
        "of 40 GB": (weights + base + slope * batch) / 40e9,
        "measured": "added up on a CPU, continued along a line",
    }


def memory_taken(name: str, size: str, batch: int, device: torch.device) -> dict[str, object]:
    """Train three updates on a GPU and ask for the most memory that was allocated."""
    method = made(name, size, device)
    held = Held(a_batch(method, batch, device))
    torch.cuda.reset_peak_memory_stats(device)
    timed(method, held, 3, "bf16", device)
    peak = torch.cuda.max_memory_allocated(device)
    return {
        "method": name,
        "size": size,
        "batch": batch,
        "most allocated, GiB": peak / GIB,
        "of 40 GB": peak / 40e9,
        "measured": f"on {torch.cuda.get_device_name(device)}",
    }


def main() -> None:
    """Measure the methods asked for and print one row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", action="append", help="default stmem, ecgfm, ecgflow")
    parser.add_argument("--size", help="default mini, on a GPU and for memory base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="default 32, on a GPU as published")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    rows: list[dict[str, object]] = []
    if options.memory:
        for name in options.method or ["stmem"]:
            what = name, options.size or "base", options.batch or 128
            rows.append(memory_taken(*what, device) if on_gpu else memory_told(*what))
    else:
        for name in options.method or (["stmem"] if on_gpu else ["stmem", "ecgfm", "ecgflow"]):
            batch = options.batch or (methods.get(name).recipe.batch_size if on_gpu else 32)
            size, precision = (options.size or "base", "bf16") if on_gpu else ("mini", "fp32")
            size = options.size or size
            what = options.steps, options.turns
            rows.append(from_feed(name, size, device, precision, batch, *what))
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        for what, value in row.items():
            print(f"{what:36}{f'{value:.4g}' if isinstance(value, float) else value}")
        print()


if __name__ == "__main__":
    main()
