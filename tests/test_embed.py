"""Embedding: what is missing and nothing else, resumable, counted, equal to the bare encoder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from ecgstore.embed import embed, embed_all
from ecgstore.errors import DeviceError, QueryError, UsageError
from ecgstore.models import load_encoder, load_encoders
from ecgstore.record import COLUMNS, INVALID, LEADS
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from ecgstore.models import Encoder

RATE_HZ, GAIN = 500.0, 200.0


def signals(count: int, *, seconds: float = 10, seed: int = 0) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(seed).normal(0, 60, (count, 12, int(seconds * RATE_HZ)))
    return noise.cumsum(axis=2).clip(-20_000, 20_000).astype(np.int16)


def fill(warehouse: Warehouse, digital: np.ndarray[Any, Any], *, prefix: str = "x") -> list[str]:
    """Put records with these counts into a warehouse; returns their ids."""
    names = [f"{prefix}/{i:05d}" for i in range(len(digital))]
    n, _, samples = digital.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * samples)
    waveforms = {
        "record_id": names,
        "gain": [[GAIN] * 12] * n,
        "baseline": [[0] * 12] * n,
        **{
            column: pa.ListArray.from_arrays(offsets, pa.array(digital[:, k].ravel()))
            for k, column in enumerate(COLUMNS)
        },
    }
    records = {
        "record_id": names,
        "dataset": [prefix] * n,
        "rate_hz": [RATE_HZ] * n,
        "n_samples": [samples] * n,
        "leads": [list(LEADS)] * n,
        "age": [20.0 + i for i in range(n)],
    }
    warehouse.append("waveforms", pa.table(waveforms), command="test")
    warehouse.append("records", pa.table(records), command="test")
    return names


def vectors(warehouse: Warehouse) -> dict[str, np.ndarray[Any, Any]]:
    rows = warehouse.table("embeddings").read().to_pylist()
    return {row["record_id"]: np.asarray(row["embedding"]) for row in rows}


@pytest.fixture(params=["ecgfm.tiny", "stmem.tiny"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return load_encoder(request.param, device="cpu", precision="fp32")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse.create(tmp_path / "w")


def test_vectors_are_the_mean_of_the_bare_encoders_windows(
    warehouse: Warehouse, encoder: Encoder
) -> None:
    digital = signals(5)
    names = fill(warehouse, digital)
    result = embed(warehouse, encoder, batch_size=2)
    assert (result.embedded, result.existing, result.rejected) == (5, 0, 0)
    stored = vectors(warehouse)
    for name, counts in zip(names, digital, strict=True):
        windows = encoder.prepare(counts / GAIN, rate_hz=RATE_HZ, leads=LEADS)
        expected = encoder.embed(windows).mean(axis=0)
        assert np.abs(stored[name] - expected).max() < 1e-5
    row = warehouse.table("models").read().to_pylist()[0]
    assert row["weights_sha256"] == encoder.weights_sha256
    assert json.loads(row["contract"]) == json.loads(json.dumps(encoder.contract))


def test_a_second_run_changes_nothing(warehouse: Warehouse, encoder: Encoder) -> None:
    fill(warehouse, signals(3))
    embed(warehouse, encoder)
    before = warehouse.versions()
    again = embed(warehouse, encoder)
    assert (again.embedded, again.existing) == (0, 3)
    assert warehouse.versions() == before


def test_only_what_is_missing_is_embedded(warehouse: Warehouse) -> None:
    encoder = load_encoder("ecgfm.tiny", device="cpu", precision="fp32")
    fill(warehouse, signals(4))
    assert embed(warehouse, encoder, where="age < 22").embedded == 2
    fill(warehouse, signals(2, seed=1), prefix="y")
    plan = embed(warehouse, encoder, dry_run=True)
    assert (plan.embedded, plan.existing) == (4, 2)
    assert embed(warehouse, encoder).embedded == 4
    assert len(vectors(warehouse)) == 6


def test_a_bad_predicate_is_one_clear_error(warehouse: Warehouse) -> None:
    encoder = load_encoder("ecgfm.tiny", device="cpu", precision="fp32")
    with pytest.raises(QueryError, match="agee"):
        embed(warehouse, encoder, where="agee > 3")


def test_records_that_do_not_fit_are_counted_by_reason(
    warehouse: Warehouse, encoder: Encoder
) -> None:
    lost = signals(1, seed=1)
    lost[0, 3, 100] = INVALID
    fill(warehouse, signals(2))
    fill(warehouse, lost, prefix="nan")
    fill(warehouse, signals(2, seconds=3), prefix="short")
    result = embed(warehouse, encoder)
    assert result.embedded == 2
    assert result.skipped == {"NaN": 1, "too short": 2}
    assert set(vectors(warehouse)) == {"x/00000", "x/00001"}


def test_windows_are_kept_on_request(warehouse: Warehouse) -> None:
    encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
    fill(warehouse, signals(2))
    embed(warehouse, encoder)
    embed(warehouse, encoder, keep_windows=True)
    rows = warehouse.table("windows").read().to_pylist()
    assert [(row["record_id"], row["window"], row["start_s"]) for row in rows] == [
        (name, k, start) for name in ("x/00000", "x/00001") for k, start in enumerate((0, 0.5, 1))
    ]
    mean = np.mean([row["embedding"] for row in rows[:3]], axis=0)
    assert np.abs(mean - vectors(warehouse)["x/00000"]).max() < 1e-6
    assert embed(warehouse, encoder, keep_windows=True).embedded == 0


def test_overwriting_gives_the_same_vectors_again(warehouse: Warehouse) -> None:
    encoder = load_encoder("ecgfm.tiny", device="cpu", precision="fp32")
    fill(warehouse, signals(3))
    embed(warehouse, encoder)
    first = vectors(warehouse)
    assert embed(warehouse, encoder, overwrite=True).embedded == 3
    second = vectors(warehouse)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


class _Meter:
    """Counts records and can act after some of them."""

    def __init__(self, action: Callable[[], None] | None = None, *, after: int = 0) -> None:
        self.done, self.rejected, self.notes = 0, 0, [""]
        self._action, self._after = action, after

    def start(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        self.done += done
        self.rejected += rejected
        if self._action is not None and self.done >= self._after:
            self._action()

    def tell(self, text: str) -> None:
        raise AssertionError(text)

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_progress_and_terms_are_told_once(warehouse: Warehouse) -> None:
    encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
    fill(warehouse, signals(3))
    first, second = _Meter(), _Meter()
    embed(warehouse, encoder, where="age = 20", progress=first)
    embed(warehouse, encoder, progress=second)
    assert (first.done, first.total, first.unit) == (1, 1, "records")
    assert "untrained" in first.notes[-1]
    assert all(citation in first.notes[-1] for citation in encoder.spec.citations)
    assert second.notes == [""]
    packaged = _Meter()
    embed(warehouse, load_encoder("stmem.mini", device="cpu"), where="age = 20", progress=packaged)
    assert "stmem.mini: weights under MIT." in packaged.notes[-1]


def test_an_interrupted_run_keeps_what_was_done(warehouse: Warehouse) -> None:
    encoder = load_encoder("ecgfm.tiny", device="cpu", precision="fp32")
    fill(warehouse, signals(6))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(warehouse, encoder, batch_size=2, progress=_Meter(interrupt, after=4))
    assert 0 < len(vectors(warehouse)) < 6
    done = embed(warehouse, encoder)
    assert done.existing + done.embedded == 6
    assert done.existing > 0
    assert len(vectors(warehouse)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_is_finished_by_the_next(
    warehouse: Warehouse, start: Callable[..., subprocess.Popen[str]], blow: signal.Signals
) -> None:
    names = fill(warehouse, signals(150))
    process = start("-w", warehouse.root, "embed", "--model", "stmem.tiny", "--batch-size", "2")
    deadline = time.monotonic() + 60
    while not warehouse.table("models").files() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(blow)
    _, told = process.communicate()
    assert process.returncode in (-blow, 128 + blow)
    assert blow is signal.SIGKILL or "interrupted" in told
    with Store(warehouse.root) as store:
        store.embed("stmem.tiny", device="cpu", precision="fp32")
        before = store.warehouse.versions()
        assert store.embed("stmem.tiny", device="cpu", precision="fp32").existing == 150
        assert store.warehouse.versions() == before
    assert sorted(warehouse.table("embeddings").read()["record_id"].to_pylist()) == names


@pytest.mark.slow
def test_two_processes_embed_each_record_once(
    warehouse: Warehouse, start: Callable[..., subprocess.Popen[str]]
) -> None:
    names = fill(warehouse, signals(60))
    arguments = ("-w", warehouse.root, "embed", "--model", "ecgfm.tiny", "--json")
    both = [start(*arguments), start(*arguments)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert sorted(warehouse.table("embeddings").read()["record_id"].to_pylist()) == names


THREE = ("ecgfm.tiny", "stmem.tiny", "ecgjepa.tiny")


class _FailingGpu:
    """Stands for a GPU that fails in the middle of a run, as its driver would tell."""

    def __init__(self, encoder: Encoder, *, after: int) -> None:
        self._encode = encoder.encode
        self._left = after

    def __call__(self, windows: Tensor, leads: tuple[str, ...]) -> object:
        if not self._left:
            msg = "CUDA error: an illegal memory access was encountered\nCompile with …"
            raise RuntimeError(msg)
        self._left -= 1
        return self._encode(windows, leads)


def filled(folder: Path, count: int) -> Warehouse:
    warehouse = Warehouse.create(folder)
    fill(warehouse, signals(count))
    return warehouse


def test_a_lost_device_costs_nothing_that_was_done(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, 6)
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    encoder.encode = _FailingGpu(encoder, after=2)  # type: ignore[assignment,method-assign]
    with pytest.raises(DeviceError, match=r"'cpu' stopped working.*illegal memory") as caught:
        embed(warehouse, encoder, batch_size=2)
    assert "run the same command again" in str(caught.value)
    assert 2 <= len(vectors(warehouse)) <= 4
    whole = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    assert embed(warehouse, whole, batch_size=2).embedded < 6
    assert len(vectors(warehouse)) == 6


def test_what_is_not_finite_is_counted_and_never_stored(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, 3)
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    for parameter in encoder.network.parameters():
        parameter.mul_(1e30)  # finite, but the products are not
    result = embed(warehouse, encoder)
    assert (result.embedded, result.skipped) == (0, {"vector not finite": 3})
    assert not vectors(warehouse)


_SCARCE = """
import resource, sys
from pathlib import Path
from ecgstore import connect
from ecgstore.embed import embed
from ecgstore.models import load_encoder

encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
warehouse = connect(sys.argv[1]).warehouse
embed(warehouse, encoder, where="record_id = 'x/00000'")  # all libraries are loaded
whole, sizes = encoder.encode, []

def encode(windows, leads):
    found = whole(windows, leads)
    sizes.append(len(windows))
    return found

encoder.encode = encode
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 150 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
result = embed(warehouse, encoder, batch_size=512)
print(result.embedded, result.rejected, max(sizes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on memory and /proc")
def test_scarce_memory_halves_the_batch_and_goes_on(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, 60)
    done = subprocess.run(
        [sys.executable, "-c", _SCARCE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr[-2000:]
    embedded, rejected, largest = map(int, done.stdout.split())
    assert (embedded, rejected) == (59, 0)
    assert largest < 3 * 59
    assert len(vectors(warehouse)) == 60


def test_several_models_in_one_pass_are_each_as_alone(tmp_path: Path) -> None:
    together, apart = filled(tmp_path / "a", 5), filled(tmp_path / "b", 5)
    for name in THREE:
        embed(apart, load_encoder(name, device="cpu", precision="fp32"))
    results = embed_all(together, load_encoders(THREE, device="cpu", precision="fp32"))
    assert [(one.model, one.embedded) for one in results] == [(name, 5) for name in THREE]
    first, second = (
        {(row["model"], row["record_id"]): np.array(row["embedding"]) for row in rows.to_pylist()}
        for rows in (one.table("embeddings").read() for one in (together, apart))
    )
    assert first.keys() == second.keys()
    assert len(first) == 15
    assert all(np.abs(first[key] - second[key]).max() < 1e-5 for key in first)
    again = embed_all(together, load_encoders(THREE, device="cpu", precision="fp32"))
    assert [(one.embedded, one.existing) for one in again] == [(0, 5)] * 3


def test_a_model_cannot_be_given_twice(tmp_path: Path) -> None:
    twice = load_encoders(("stmem.tiny", "stmem.tiny:three"), device="cpu", precision="fp32")
    with pytest.raises(UsageError, match="twice"):
        embed_all(filled(tmp_path, 1), twice)


def test_parts_make_the_whole(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, 40)
    encoder = load_encoder("ecgjepa.tiny", device="cpu", precision="fp32")
    for part in ("1/3", "2/3"):
        assert embed(warehouse, encoder, shard=part).embedded
    after_two = vectors(warehouse)
    assert 0 < len(after_two) < 40
    assert embed(warehouse, encoder, shard="1/3").embedded == 0
    assert embed(warehouse, encoder, shard="3/3").embedded == 40 - len(after_two)
    assert embed(warehouse, encoder).embedded == 0
    for part in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UsageError, match="such as 2/8"):
            embed(warehouse, encoder, shard=part)


def test_an_estimate_counts_and_writes_nothing(tmp_path: Path) -> None:
    warehouse = filled(tmp_path, 4)
    before = warehouse.versions()
    with Store(tmp_path) as store:
        (told,) = store.estimate(["stmem.tiny"], device="cpu")
    assert (told.records, told.windows) == (4, 12)
    assert told.gflop_per_window > 0
    assert told.seconds == pytest.approx(told.windows / told.windows_per_s)
    assert warehouse.versions() == before
