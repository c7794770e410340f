"""What training does about records and options that are no good."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch

from ecgstore.errors import NotEnoughDataError, UsageError, WeightsError
from ecgstore.pretraining.course import Course, teach
from ecgstore.pretraining.ecgflow import EcgFlowPretraining
from ecgstore.pretraining.loop import NotFiniteError
from ecgstore.pretraining.training import find_records
from ecgstore.progress import Silent
from ecgstore.record import COLUMNS, INVALID
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from torch import Tensor

    from ecgstore.pretraining import Batch, Ranks
    from ecgstore.pretraining.training import PretrainResult

ROOT = Path(__file__).resolve().parent.parent.parent
RATE_HZ = 100
BAD_SECOND = 1
"""A seed with which the sixth of eight records is in the second batch of four."""


def row(name: str, *, seconds: float = 10, gain: float = 200.0, lost: int = 0) -> dict[str, Any]:
    """Return a record of noise as it is stored."""
    rng = np.random.default_rng(sum(name.encode()))
    counts = rng.integers(-99, 99, (12, round(seconds * RATE_HZ))).astype(np.int16)
    counts[0, :lost] = INVALID
    return {
        "record_id": name,
        "gain": [gain] * 12,
        "baseline": [0] * 12,
        **dict(zip(COLUMNS, counts, strict=True)),
    }


def filled(home: Path, rows: list[dict[str, Any]]) -> Path:
    """Return a warehouse with these records."""
    warehouse = Warehouse.create(home)
    add(warehouse, rows)
    return home


def add(warehouse: Warehouse, rows: list[dict[str, Any]]) -> None:
    warehouse.append("waveforms", pa.Table.from_pylist(rows), command="test")
    records = {
        "record_id": [one["record_id"] for one in rows],
        "dataset": ["ds"] * len(rows),
        "rate_hz": [float(RATE_HZ)] * len(rows),
        "n_samples": [len(one[COLUMNS[0]]) for one in rows],
    }
    warehouse.append("records", pa.table(records), command="test")


def learn(home: Path, out: Path, name: str = "ecgflow", **options: Any) -> PretrainResult:
    given: dict[str, Any] = {
        "size": "tiny",
        "steps": 2,
        "batch_size": 4,
        "checkpoint_every": 1,
        "device": "cpu",
        "precision": "fp32",
        **options,
    }
    with Store(home) as store:
        return store.pretrain(name, out=out, **given)


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("*.json"))


def all_finite(path: Path) -> bool:
    tensors = safetensors.torch.load_file(path)
    return all(bool(one.isfinite().all()) for one in tensors.values())


def test_a_loss_that_is_nan_names_the_records_and_keeps_what_was_good(tmp_path: Path) -> None:
    """With a gain so small, the squares of its millivolts have no number in float32."""
    rows = [row(f"ds/{i}", gain=1e-30 if i == 5 else 200.0) for i in range(8)]
    home, out = filled(tmp_path / "w", rows), tmp_path / "out"
    with pytest.raises(NotFiniteError, match=r"The loss of step 2 is nan.*step 1 is kept") as told:
        learn(home, out, seed=BAD_SECOND)
    named = [word for word in str(told.value).split() if word.startswith("ds/")]
    assert len(named) == 4
    assert any("ds/5" in word for word in named)
    assert checkpoints(out) == ["step-00000001.json"]
    assert all_finite(out / "checkpoints" / "step-00000001.safetensors")
    assert not (out / "model.safetensors").exists()
    with pytest.raises(NotFiniteError, match=r"The loss of step 2 is nan.*step 1 is kept"):
        learn(home, out, seed=BAD_SECOND, resume=True)


class Steep(EcgFlowPretraining):
    """A method whose loss is 0 and whose gradient is not a number."""

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        return {"loss": (0 * self.decoder.mask).sum().sqrt()}


def test_weights_that_are_nan_are_never_kept(tmp_path: Path) -> None:
    """The last loss is a number, but the update after it left none in the weights."""
    home, out = filled(tmp_path / "w", [row(f"ds/{i}") for i in range(4)]), tmp_path / "out"
    method = Steep(Steep.sizes["tiny"])
    method.start(0)
    course = Course(
        kind="pretrain",
        method=method,
        recipe=replace(Steep.recipe, batch_size=4),
        size="tiny",
        steps=1,
        device="cpu",
        precision="fp32",
    )
    warehouse = Warehouse(home)
    rates, facts = find_records(warehouse, None, ())
    with pytest.raises(NotFiniteError):
        teach(warehouse, warehouse, course, rates=rates, facts=facts, out=out, progress=Silent())
    assert not (out / "model.safetensors").exists()
    assert not checkpoints(out)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_a_learning_rate_that_makes_no_sense_is_refused(rate: float, tmp_path: Path) -> None:
    home = filled(tmp_path / "w", [row(f"ds/{i}") for i in range(4)])
    with pytest.raises(UsageError, match="learning rate"):
        learn(home, tmp_path / "out", learning_rate=rate)
    assert not (tmp_path / "out").exists()


def test_records_are_cut_into_pieces_and_short_ones_left_out(tmp_path: Path) -> None:
    rows = [row("ds/long", seconds=35), row("ds/short", seconds=8.9), row("ds/lost", lost=3)]
    rows += [row(f"ds/{i}") for i in range(3)]
    home = filled(tmp_path / "w", rows)
    done = learn(home, tmp_path / "out", "stmem", batch_size=2, steps=1)
    assert (done.records, done.pieces) == (4, 6)
    assert done.left_out == {"too short": 1, "lost samples": 1}
    with Store(home) as store:
        used = store.sql("select record_id from trained_records order by all").fetchall()
    assert used == [("ds/0",), ("ds/1",), ("ds/2",), ("ds/long",)]


def test_pieces_that_no_batch_can_hold_are_counted_and_not_learned_from(tmp_path: Path) -> None:
    """A batch has the same leads throughout; one record alone has the limb leads only."""
    limb = {**row("ds/limb"), **dict.fromkeys(COLUMNS[6:], np.full(10 * RATE_HZ, INVALID))}
    home = filled(tmp_path / "w", [*(row(f"ds/{i}") for i in range(4)), limb])
    done = learn(home, tmp_path / "two", "anyecg.tokeniser", batch_size=2, steps=1)
    assert (done.records, done.pieces) == (4, 4)
    assert done.left_out == {"fewer than a batch with their leads": 1}
    with Store(home) as store:
        assert store.sql("select count(*) from trained_records").fetchone() == (4,)
    all_of_them = learn(home, tmp_path / "one", "anyecg.tokeniser", batch_size=1, steps=5)
    assert (all_of_them.records, all_of_them.left_out) == (5, {})


def test_records_that_are_all_too_short_are_said_and_nothing_is_begun(tmp_path: Path) -> None:
    home = filled(tmp_path / "w", [row(f"ds/{i}", seconds=5) for i in range(4)])
    with pytest.raises(NotEnoughDataError, match="4 too short") as told:
        learn(home, tmp_path / "out")
    assert told.value.counts == {"too short": 4}
    assert not (tmp_path / "out").exists()
    with Store(home) as store:
        assert store.sql("select count(*) from trainings").fetchone() == (0,)


def test_a_run_goes_on_though_the_archive_has_grown(tmp_path: Path) -> None:
    """What came later is not trained on: the run goes on with the records it began with."""
    home = filled(tmp_path / "w", [row(f"ds/{i}") for i in range(4)])
    whole = learn(home, tmp_path / "whole", steps=3)
    again = learn(home, tmp_path / "cut", steps=3)
    for path in (tmp_path / "cut" / "checkpoints").glob("step-00000003.*"):
        path.unlink()
    (tmp_path / "cut" / "model.safetensors").unlink()
    add(Warehouse(home), [row("ds/later")])
    rest = learn(home, tmp_path / "cut", steps=3, resume=True)
    assert (rest.done, rest.records) == (1, 4)
    assert rest.weights_sha256 == again.weights_sha256 == whole.weights_sha256


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    home = filled(tmp_path / "w", [row(f"ds/{i}") for i in range(4)])
    whole = learn(home, tmp_path / "out", steps=3)
    (tmp_path / "out" / "model.safetensors").unlink()
    newest = tmp_path / "out" / "checkpoints" / "step-00000003.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    rest = learn(home, tmp_path / "out", steps=3, resume=True)
    assert (rest.done, rest.weights_sha256) == (1, whole.weights_sha256)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    home = filled(tmp_path / "w", [row(f"ds/{i}") for i in range(4)])
    made = learn(home, tmp_path / "out", "stmem", steps=1)
    with pytest.raises(WeightsError, match="expected ECGFlow"):
        learn(home, tmp_path / "other", size=None, weights=made.weights)


@pytest.mark.slow
def test_a_full_disk_stops_a_run_with_one_error_and_it_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    """The disk of the run's folder is a real one, with room for the first checkpoint only."""
    home = filled(tmp_path / "w", [row(f"ds/{i}") for i in range(4)])
    whole = learn(home, tmp_path / "whole", steps=4)
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["pretrain", "ecgflow", "--size", "tiny", "--steps", "4", "--batch-size", "4"]
    words += ["--checkpoint-every", "1", "--device", "cpu", "--precision", "fp32", "--json"]
    # The other warehouse has not seen such a run yet.
    other = filled(tmp_path / "other", [row(f"ds/{i}") for i in range(4)])
    command = shlex.join([sys.executable, "-m", "ecgstore", "-w", str(other), *words])
    size = sum(one.stat().st_size for one in (tmp_path / "whole/checkpoints").glob("*3.s*"))
    script = f"""
        mount -t tmpfs -o size={size // 1024 * 3 // 2}k none {shlex.quote(str(disk))}
        {command} -o {shlex.quote(str(disk))}/out 2>&1 && echo exit 0 || echo exit $?
        echo ---
        mount -o remount,size=64m {shlex.quote(str(disk))}
        {command} -o {shlex.quote(str(disk))}/out --resume || echo exit $?
        """
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-euc", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    except subprocess.CalledProcessError as error:
        if "unshare" in error.stderr:
            pytest.skip(f"no namespaces here: {error.stderr.strip()}")
        raise AssertionError(error.stderr) from error
    full, _, after = done.stdout.partition("---\n")
    (said,) = [line for line in full.splitlines() if line.startswith("error:")]
    assert "No space left on device" in said
    assert "The checkpoint of step 1 is kept" in said
    assert "exit 1" in full
    assert "Traceback" not in full
    (rest,) = json.loads(after) if after.startswith("[") else [json.loads(after)]
    assert (rest["done"], rest["weights_sha256"]) == (3, whole.weights_sha256)
