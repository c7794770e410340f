"""Training killed, or its disk failing, at any step, and gone on with."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ecgstore.errors import EcgStoreError
from ecgstore.progress import Silent
from ecgstore.record import COLUMNS
from ecgstore.storage import disk
from ecgstore.store import Store
from ecgstore.warehouse import Warehouse

from .forks import Tell, forked
from .steps import At, die, place, sampled, sides

if TYPE_CHECKING:
    from ecgstore.progress import Progress
    from ecgstore.storage.disk import Step

    from .steps import Side

IMPORTS = (
    "ecgstore.pretraining.training",
    "ecgstore.upkeep.gc",
    "ecgstore.upkeep.verify",
    "matplotlib.backends.backend_agg",
    "scipy.signal",
    "torch._dynamo",  # which the first optimiser imports
)
STEPS = 4
Way = Callable[[Path, Tell], Any]
"""Trains in a warehouse until something happens."""

_RECORDS, _RATE_HZ = 8, 100


def break_training_off(scratch: Path, *, seed: int, most: int | None) -> dict[str, Any]:
    """Break a run off, go on with it, and compare with an undisturbed one.

    Args:
        scratch: A folder to work in.
        seed: Of what is drawn.
        most: How many steps of the disk are drawn, each of another sort, to be killed or failed
            at in turn; None takes every step, both ways.

    Returns:
        ``kills`` and ``faults`` counted, and ``problems`` told.
    """
    stage = _Stage(Path(tempfile.mkdtemp(dir=scratch)))
    forked(lambda _: stage.make()).result()
    wanted = forked(lambda _: stage.whole()).result()
    steps = forked(lambda _: stage.counted()).result()
    points = sides(steps) if most is None else sampled(steps, seed=seed, most=most)
    updates = range(1, STEPS + 1) if most is None else [1 + seed % STEPS]
    kills: dict[str, Way] = {
        f"killed in update {count}": functools.partial(stage.killed_in, count) for count in updates
    }
    faults: dict[str, Way] = {}
    for turn, (number, side) in enumerate(points):
        where = f"{side} step {number} of the disk ({steps[number]})"
        if most is None or turn % 2:
            kills[f"killed {where}"] = functools.partial(stage.killed_at, number, side)
        if most is None or not turn % 2:
            faults[f"no space {where}"] = functools.partial(stage.fails_at, number, side)
    problems = []
    for name, way in (kills | faults).items():
        root = stage.copy()
        ended = forked(functools.partial(way, root))
        found = ended.value or []
        if ended.killed != (name in kills):
            found = [f"it ended with {ended.code} {ended.error}"]
        problems += [f"{name}: {one}" for one in found]
        again = forked(functools.partial(stage.gone_on, root))
        if again.error:
            problems.append(f"{name}: then {again.error}")
        else:
            problems += [
                f"{name}: then {key} {again.value[key]}, not {one}"
                for key, one in wanted.items()
                if again.value[key] != one
            ]
        stage.drop(root)
    return {"kills": len(kills), "faults": len(faults), "problems": problems}


@dataclass(frozen=True)
class _Stage:
    """A warehouse with records to train on, and ways to do so.

    Attributes:
        home: Where it and its copies are.
    """

    home: Path

    def make(self) -> None:
        """Make the warehouse, and the feed of it."""
        warehouse = Warehouse.create(self.home / "base" / "warehouse")
        rng = np.random.default_rng(0)
        names = [f"ds/{i}" for i in range(_RECORDS)]
        samples = 10 * _RATE_HZ
        rows = [
            {
                "record_id": name,
                "gain": [200.0] * 12,
                "baseline": [0] * 12,
                **{column: rng.integers(-99, 99, samples).astype(np.int16) for column in COLUMNS},
            }
            for name in names
        ]
        warehouse.append("waveforms", pa.Table.from_pylist(rows), command="test")
        records: dict[str, list[Any]] = {"record_id": names, "dataset": ["ds"] * len(names)}
        records |= {"rate_hz": [float(_RATE_HZ)] * len(names), "n_samples": [samples] * len(names)}
        warehouse.append("records", pa.table(records), command="test")
        from ecgstore import feed

        feed.build(warehouse)

    def copy(self) -> Path:
        """Return a fresh copy of the warehouse."""
        root = Path(tempfile.mkdtemp(dir=self.home)) / "warehouse"
        shutil.copytree(self.home / "base" / "warehouse", root)
        return root

    def drop(self, root: Path) -> None:
        """Remove a copy with its run."""
        shutil.rmtree(root.parent, ignore_errors=True)

    def train(self, root: Path, progress: Progress | None = None) -> None:
        """Train, or go on with it."""
        from ecgstore.pretraining.training import pretrain

        pretrain(
            Warehouse(root),
            "stmem",
            size="tiny",
            steps=STEPS,
            batch_size=4,
            out=root.parent / "out",
            resume=True,
            device="cpu",
            precision="fp32",
            checkpoint_every=2,
            progress=progress,
        )

    def counted(self) -> list[str]:
        """Return the steps of the disk of a whole run."""
        root, steps = self.copy(), list[str]()

        def note(step: Step, done: bool) -> None:  # noqa: FBT001
            if done:
                steps.append(place(step, root))

        with disk.watch(note):
            self.train(root)
        self.drop(root)
        return steps

    def whole(self) -> dict[str, object]:
        """Return what an undisturbed run leaves."""
        root = self.copy()
        self.train(root)
        return _left(root)

    def killed_at(self, number: int, side: Side, root: Path, _: Tell) -> None:
        """Train and be killed at a step of the disk."""
        with disk.watch(At(number, side, die)):
            self.train(root)

    def killed_in(self, count: int, root: Path, _: Tell) -> None:
        """Train and be killed once so many updates were told."""
        self.train(root, _Deadly(count))

    def fails_at(self, number: int, side: Side, root: Path, _: Tell) -> list[str]:
        """Train with a disk that is full at one step; return what is wrong with the error."""
        reason = os.strerror(errno.ENOSPC)

        def fail(step: Step) -> None:
            raise OSError(errno.ENOSPC, reason, str(step.path))

        try:
            with disk.watch(At(number, side, fail)):
                self.train(root)
        except (EcgStoreError, OSError) as error:
            return [] if reason in str(error) else [f"it says {str(error)!r}"]
        return []  # what only tidies up may fail

    def gone_on(self, root: Path, _: Tell) -> dict[str, object]:
        """Go on with a run and return what it leaves."""
        self.train(root)
        return _left(root)


class _Deadly(Silent):
    """Kills the process when so many updates are done."""

    def __init__(self, count: int) -> None:
        self._left, self._unit = count, ""

    def start(self, total: int, unit: str) -> None:
        self._unit = unit

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        self._left -= done * (self._unit == "steps")
        if self._left == 0:
            die(None)  # type: ignore[arg-type]


def _left(root: Path) -> dict[str, object]:
    """Return what a run has left: its files, and its rows but for times."""
    out = root.parent / "out"
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    digests = {name: hashlib.sha256((out / name).read_bytes()).hexdigest()[:8] for name in files}
    tables = {
        "losses": "select step, name, value, learning_rate from losses order by all",
        "trainings": "select run_id, steps, state, weights_sha256 from trainings order by all",
        "trained_records": "select run_id, record_id, part from trained_records order by all",
    }
    with Store(root) as store:
        store.gc(grace_s=0)
        rows = {name: store.sql(query).fetchall() for name, query in tables.items()}
        problems = [str(one) for one in store.verify().rows]
    return {"files": digests, **rows, "verify": problems}
