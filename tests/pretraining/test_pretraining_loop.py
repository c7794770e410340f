"""Training as users run it: it learns, it can be interrupted, and it can be traced."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.models import load_encoder
from ecgstore.pretraining import methods
from ecgstore.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from ecgstore.pretraining.training import PretrainResult

ALONE = sorted(name for name in methods if name != "anyecg")
"""Methods that need no weights to start from."""


def learn(home: Path, name: str, out: Path, **options: Any) -> PretrainResult:
    given: dict[str, Any] = {
        "size": "tiny",
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "device": "cpu",
        "precision": "fp32",
        **options,
    }
    with Store(home) as store:
        return store.pretrain(name, out=out, **given)


def history(home: Path, run_id: str) -> list[tuple[Any, ...]]:
    with Store(home) as store:
        found: list[tuple[Any, ...]] = store.sql(
            f"select step, name, value, learning_rate from losses where run_id = '{run_id}' "
            "order by all"
        ).fetchall()
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one, marks=() if one in ("stmem", "ecgfm") else pytest.mark.slow)
        for one in ALONE
    ],
)
def test_every_method_learns_and_goes_on_exactly(name: str, archive: Path, tmp_path: Path) -> None:
    rate = 1e-3 if name == "anyecg.tokeniser" else 3e-3  # at 3e-3 its loss swings
    whole = learn(archive, name, tmp_path / "out", steps=12, learning_rate=rate, checkpoint_every=4)
    assert whole.first is not None
    assert whole.loss is not None
    assert whole.loss < whole.first
    assert (whole.records, whole.pieces, whole.steps, whole.done) == (24, 24, 12, 12)
    told = history(archive, whole.run_id)
    assert len({step for step, *_ in told}) == 12
    # Its first eight steps are all that is left of the run.
    for path in (tmp_path / "out" / "checkpoints").glob("step-00000012.*"):
        path.unlink()
    (tmp_path / "out" / "model.safetensors").unlink()
    rest = learn(
        archive,
        name,
        tmp_path / "out",
        steps=12,
        learning_rate=rate,
        checkpoint_every=4,
        resume=True,
    )
    assert (rest.done, rest.loss) == (4, whole.loss)
    assert rest.weights_sha256 == whole.weights_sha256
    assert history(archive, whole.run_id) == told


def test_a_finished_run_is_left_as_it_is(archive: Path, tmp_path: Path) -> None:
    first = learn(archive, "stmem", tmp_path / "out")
    then = learn(archive, "stmem", tmp_path / "out", resume=True)
    assert (first.done, then.done) == (6, 0)
    assert then.weights_sha256 == first.weights_sha256
    with pytest.raises(UsageError, match="already"):
        learn(archive, "stmem", tmp_path / "out")


def test_changed_options_are_refused_with_the_difference(archive: Path, tmp_path: Path) -> None:
    learn(archive, "stmem", tmp_path / "out")
    with pytest.raises(UsageError, match=r"seed: 0 → 1.*\)"):
        learn(archive, "stmem", tmp_path / "out", resume=True, seed=1)
    with pytest.raises(UsageError, match="mask_ratio"):
        learn(archive, "stmem", tmp_path / "out", resume=True, settings={"mask_ratio": "0.5"})


def test_parts_of_a_batch_and_where(archive: Path, tmp_path: Path) -> None:
    whole = learn(archive, "stmem", tmp_path / "a", where="age >= 0", steps=2)
    parts = learn(archive, "stmem", tmp_path / "b", where="age >= 0", steps=2, accumulate=2)
    assert whole.run_id != parts.run_id
    with pytest.raises(UsageError, match="3 parts"):
        learn(archive, "stmem", tmp_path / "c", accumulate=3)


def test_a_dry_run_counts_and_writes_nothing(archive: Path, tmp_path: Path) -> None:
    before = sorted(archive.rglob("*"))
    done = learn(archive, "stmem", tmp_path / "out", dry_run=True, steps=None)
    assert (done.records, done.steps, done.done) == (24, 3 * methods.get("stmem").recipe.epochs, 0)
    assert not (tmp_path / "out").exists()
    assert sorted(archive.rglob("*")) == before


def test_what_was_trained_embeds(archive: Path, tmp_path: Path) -> None:
    done = learn(archive, "stmem", tmp_path / "out")
    assert done.weights is not None
    encoder = load_encoder("stmem", weights=done.weights, device="cpu", precision="fp32")
    assert encoder.trained["run"] == done.run_id
    assert encoder.trained["datasets"] == ["synthetic"]
    with Store(archive) as store:
        embedded = store.embed("stmem", weights=done.weights, device="cpu", precision="fp32")
    assert (embedded.embedded, embedded.version) == (24, encoder.version)


def test_nothing_to_train_on_is_said(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDataError, match="no records where age > 300"):
        learn(archive, "stmem", tmp_path / "out", where="age > 300")
    with pytest.raises(NotEnoughDataError, match="24 pieces of records make no batch of 512"):
        learn(archive, "stmem", tmp_path / "out", batch_size=512)
    with pytest.raises(UnknownNameError, match="tiny"):
        learn(archive, "stmem", tmp_path / "out", size="huge")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------ real processes

COMMAND = [
    *("--size", "tiny", "--steps", "6", "--batch-size", "8", "--learning-rate", "0.001"),
    *("--checkpoint-every", "2", "--device", "cpu", "--precision", "fp32", "--json"),
]


@pytest.mark.parametrize(
    "name",
    [
        "stmem",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ALONE if one not in ("stmem",)),
    ],
)
def test_two_processes_lose_what_one_does(
    name: str, archive: Path, archive_home: Path, tmp_path: Path
) -> None:
    """Dropout is drawn by each process for itself, so it is switched off."""
    calm = {"dropout": 0.0} if "dropout" in methods.get(name).defaults else {}
    one = learn(archive, name, tmp_path / "one", settings=calm)
    alone = history(archive, one.run_id)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    other = shutil.copytree(archive_home, tmp_path / "other")
    told = [part for key, value in calm.items() for part in ("--set", f"{key}={value}")]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "ecgstore", "-w", str(other), "pretrain", name),
                *(*COMMAND, *told, "-o", str(tmp_path / "two")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]
    ends = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert ends[1][0] == ""
    (row,) = json.loads(ends[0][0])
    assert row["run_id"] == one.run_id
    together = history(other, one.run_id)
    assert [row[:2] for row in together] == [row[:2] for row in alone]
    np.testing.assert_allclose(
        [row[2] for row in together], [row[2] for row in alone], rtol=2e-4, atol=1e-6
    )
