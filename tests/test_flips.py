"""One bit of one file: no command of ours may answer with a wrong number, and verify finds it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.embed import embed
from ecgstore.errors import DamagedError, ErasedError
from ecgstore.evaluate import evaluate
from ecgstore.export import export
from ecgstore.feed import Feed
from ecgstore.fuse import fuse
from ecgstore.models import load_encoder
from ecgstore.schema import TABLES
from ecgstore.storage.log import Log
from ecgstore.store import Store
from ecgstore.upkeep.verify import verify
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecgstore.models import Encoder
    from ecgstore.upkeep.findings import Finding

Asks = dict[str, Callable[[], Any]]

RECORDS, LEADS, SAMPLES, RATE_HZ = 12, 12, 1000, 100
MODEL = "stmem.tiny"


@dataclass
class House:
    """A small warehouse of which every table is filled, and what it answers."""

    root: Path
    encoder: Encoder
    middle: datetime
    newest: dict[str, int] = field(default_factory=dict, repr=False)
    truth: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def now(self) -> Warehouse:
        return Warehouse(self.root)

    @property
    def asks(self) -> Asks:
        """What reads more than one table."""
        middle = {"at": self.middle}
        return {
            "sql": self.sql,
            "evaluate": lambda: (
                evaluate(self.now, ["fusion"], "halves", classifier="logistic", dry_run=True).rows
            ),
            "fuse": lambda: fuse(self.now, [MODEL], name="fusion", dry_run=True).rows,
            "embed": lambda: embed(self.now, self.encoder, dry_run=True).existing,
            "feed": self.feed,
            "export": self.export,
            "at": lambda: Warehouse(self.root, **middle).table("labels").read().to_pydict(),
        }

    def sql(self) -> Any:
        parts = [f"select '{t}', count(*), bit_xor(hash(t)) from {t} as t" for t in TABLES]
        with Store(self.root) as store:
            return store.table(" union all ".join(parts)).to_pydict()

    def export(self) -> Any:
        out = self.root.with_name("exported")
        export(self.now, "waveforms", out, form="wfdb", overwrite=True)
        return {path.name: path.read_bytes() for path in sorted(out.rglob("*.dat"))}

    def feed(self) -> Any:
        with Feed.open(self.now) as feed:
            return {one.record_id: one.digital.tobytes() for one in feed.scan()}

    def reads(self, table: str) -> Asks:
        """Everything that reads one table: its rows at each version, and what was done to it."""
        log = Log(self.root / table)

        def at(version: int) -> Any:
            return Warehouse(self.root, at={table: version}).table(table).read().to_pydict()

        reads: Asks = {f"{table}@{v}": partial(at, v) for v in range(self.newest[table] + 1)}
        reads[table] = lambda: self.now.table(table).read().to_pydict()
        reads[f"log {table}"] = lambda: [*log.commits()]
        return reads

    def check(self, table: str) -> tuple[Finding, ...]:
        return verify(self.now, tables=[table]).findings


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory,
    write_wfdb: Callable[..., Path],
    fill_by_hand: Callable[..., None],
) -> House:
    home = tmp_path_factory.mktemp("flips")
    rng = np.random.default_rng(0)
    for i in range(RECORDS):
        counts = rng.integers(-300, 300, (LEADS, SAMPLES)).cumsum(axis=1) // 10
        write_wfdb(home / "ecgs", f"r{i:02d}", counts, rate_hz=RATE_HZ)
    (home / "ecgs" / "broken.hea").write_text("broken 1 500\n")
    rows = "\n".join(f"own/r{i:02d},{i % 2},p{i}" for i in range(RECORDS))
    (home / "labels.csv").write_text(f"record_id,label,patient\n{rows}\n")
    with Store(home / "warehouse") as store:
        store.ingest(home / "ecgs", dataset="own", jobs=1)
        store.label(home / "labels.csv", task="ACS", patient="patient")
        fill_by_hand(store.warehouse, "own/r00")
        encoder = load_encoder(MODEL)
        embed(store.warehouse, encoder, keep_windows=True)
        store.split("halves", task="ACS", repeats=2, test_size=0.5)
        store.fuse([MODEL], name="fusion")
        store.evaluate(["fusion"], "halves", classifier="logistic")
        store.train("fusion", "halves", classifier="logistic")
        house = House(store.root, encoder, datetime.now(UTC))
        log = Log(store.root / "labels")
        log.checkpoint(log.snapshot())
        flipped = rows.replace(",1,", ",2,").replace(",0,", ",1,").replace(",2,", ",0,")
        (home / "labels.csv").write_text(f"record_id,label,patient\n{flipped}\n")
        store.label(home / "labels.csv", task="ACS", patient="patient", overwrite=True)
    house.newest = {table: Log(house.root / table).newest() for table in TABLES}
    reads = [*house.asks.items(), *(one for t in TABLES for one in house.reads(t).items())]
    house.truth = {name: ask() for name, ask in reads}
    assert all(house.newest.values()), "a table is empty"
    assert not verify(house.now).findings
    return house


def harms(
    path: Path, *, flips: int, cuts: int, chance: random.Random
) -> Iterator[tuple[str, bytes | None]]:
    """Yield what may become of a file: some flipped bits, some lengths, none at all."""
    data = path.read_bytes()
    if not data:
        return
    for place in [0, len(data) * 8 - 1, *(chance.randrange(len(data) * 8) for _ in range(flips))]:
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield f"bit {place} flipped", bytes(changed)
    for length in [0, *(chance.randrange(len(data)) for _ in range(cuts))]:
        yield f"cut to {length} bytes", data[:length]
    yield "gone", None


def answers(house: House, asks: Asks, file: str) -> list[str]:
    """Ask, hold every answer against the truth, and return what was answered by an error."""
    failed = []
    for name, ask in asks.items():
        answer, error = outcome(ask)
        if error is None:
            assert answer == house.truth[name], name
            continue
        failed.append(name)
        assert file.startswith(f"{error.table}/"), (name, str(error))
        if isinstance(error, DamagedError):
            assert f"{error.table}/{error.file}" == file, (name, str(error))
            assert f"Table {error.table!r}, version {error.version}: " in str(error), name
            assert error.file.rpartition("/")[2] in str(error), name
        else:
            assert not (house.root / file).exists(), (name, str(error))
    return failed


def outcome(ask: Callable[[], Any]) -> tuple[Any, DamagedError | ErasedError | None]:
    try:
        return ask(), None
    except (DamagedError, ErasedError) as error:
        return None, error


@contextmanager
def harmed(path: Path, data: bytes | None) -> Iterator[None]:
    """Let a file be what it is not for as long as the block runs."""
    whole = path.read_bytes()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def some(house: House, chance: random.Random) -> Asks:
    """Pick now and then a command that reads many tables; each takes a while."""
    picked = chance.sample(sorted(house.asks.items()), 1)
    return dict(picked) if chance.random() < 0.1 else {}


@pytest.mark.parametrize("table", TABLES)
def test_a_changed_shard_is_an_error_that_names_it(house: House, table: str) -> None:
    chance, reads = random.Random(table), house.reads(table)
    for path in sorted((house.root / table).glob("*.parquet")):
        file = str(path.relative_to(house.root))
        for what, data in harms(path, flips=5, cuts=1, chance=chance):
            with harmed(path, data):
                (found,) = house.check(table)
                assert (found.file, found.table) == (file, table), what
                assert found.severity in ("damage", "history"), what
                assert answers(house, reads | some(house, chance), file), what
    assert not house.check(table)
    assert not answers(house, reads, "")


@pytest.mark.parametrize("table", TABLES)
def test_a_changed_log_file_is_an_error_that_names_it(house: House, table: str) -> None:
    chance, reads = random.Random(table), house.reads(table)
    log = house.root / table / "_delta_log"
    spare = {f"{house.newest[table]:020d}.json", "_last_checkpoint"}
    if any(log.glob("*.checkpoint.parquet")):
        spare.add(f"{0:020d}.json")  # cleaned, for all that can be known
    for path in sorted(log.iterdir()):
        file = str(path.relative_to(house.root))
        for what, data in harms(path, flips=3, cuts=1, chance=chance):
            if data is None and path.name in spare:
                continue  # without it the log is that of another moment, or as good
            with harmed(path, data):
                found = {one.file for one in house.check(table)}
                asks = reads | some(house, chance)
                if data is None:  # as after a cleaning, the log tells of what it has
                    del asks[f"log {table}"]
                failed = answers(house, asks, file)
                if path.suffix == ".json":
                    assert file in found, what
                else:  # a checkpoint, whose bytes do not all mean something
                    assert found or not failed, what
    assert not house.check(table)
    assert not answers(house, reads, "")


def test_a_lost_last_commit_is_seen_by_what_it_left(house: House) -> None:
    """Without its last file a log is whole, one version younger; no reader can tell."""
    for table, newest in house.newest.items():
        with harmed(house.root / table / "_delta_log" / f"{newest:020d}.json", None):
            assert house.now.table(table).version == newest - 1
            assert house.check(table), "its shard is named by no version"


def test_caches_and_locks_change_no_answer(house: House) -> None:
    chance = random.Random(0)
    asks = {"feed": house.feed, "labels": house.reads("labels")["labels"]}
    asks["feed"]()
    derived = [path for name in ("_cache", "_locks") for path in (house.root / name).rglob("*")]
    assert len(derived) > 3
    for path in derived:
        if path.is_file():
            for what, data in harms(path, flips=4, cuts=1, chance=chance):
                with harmed(path, data):
                    found = verify(house.now).findings
                    assert {one.severity for one in found} <= {"leftover"}, what
                    assert ("feed" in path.parts) == bool(found) or data is None, what
                    assert not answers(house, asks, ""), what
