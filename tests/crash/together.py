"""One of several processes that work on the same warehouse until a time is up.

    python together.py ROLE FOLDER SECONDS NUMBER

Prints how often it did its work as JSON. Errors that a user would be asked to answer by running the
command again are counted; any other ends the process.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore.catalog import Catalog
from ecgstore.errors import EcgStoreError, UsageError, WarehouseError
from ecgstore.ingest import ingest
from ecgstore.labels import label
from ecgstore.upkeep.gc import gc
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

_MORE_S = 60.0  # for whoever got nothing done on a busy machine
_HALF = """
select count(*) as n from records
left join waveforms using (record_id)
where waveforms.ii is null or waveforms.gain is null
"""
_TWICE = """
select coalesce(sum(n - 1), 0)::bigint as n from (
    select count(*) as n from records group by record_id having count(*) > 1
    union all select count(*) from waveforms group by record_id having count(*) > 1
    union all select count(*) from labels group by record_id, task having count(*) > 1
    union all
    select count(*) from embeddings group by record_id, model, version, pooling
    having count(*) > 1
)
"""


def ingesting(folder: Path, number: int) -> Callable[[], bool]:
    """Take in more and more of a folder that another process takes in as well."""
    seen = 0

    def turn() -> bool:
        nonlocal seen
        seen += 3
        source = folder / ("first", "second")[number % 2]
        done = ingest(Warehouse(folder / "w"), [source], dataset="ds", jobs=1, limit=seen)
        return done.ingested > 0

    return turn


def embedding(folder: Path, number: int) -> Callable[[], bool]:
    """Embed what has no vector yet with two models in turn."""
    from ecgstore.embed import embed
    from ecgstore.models import load_encoder

    models = [load_encoder(name, device="cpu") for name in ("stmem.tiny", "ecgfm.tiny")]

    def turn() -> bool:
        counts = [embed(Warehouse(folder / "w"), model).embedded for model in models]
        return sum(counts) > 0

    return turn


def forgetting(folder: Path, number: int) -> Callable[[], bool]:
    """Tell records their patients, then erase one."""
    from ecgstore.upkeep.forget import forget

    chance = random.Random(number)

    def turn() -> bool:
        warehouse = Warehouse(folder / "w")
        label(warehouse, folder / "labels.csv", task="T", patient="who", overwrite=True)
        patient = f"patient-{chance.randrange(6):04d}"
        try:
            done = forget(warehouse, [patient], yes=True)
        except UsageError:  # none of theirs has come back yet
            return False
        return done.erased

    return turn


def reading(folder: Path, number: int) -> Callable[[], bool]:
    """Look at all tables at one moment: every record whole, every key once."""

    def turn() -> bool:
        with Catalog(Warehouse(folder / "w").relations()) as catalog:
            half, twice = (int(catalog.table(q)["n"][0].as_py()) for q in (_HALF, _TWICE))
        if half or twice:
            msg = f"{half} records are half there, {twice} rows are double"
            raise AssertionError(msg)
        return True

    return turn


def collecting(folder: Path, number: int) -> Callable[[], bool]:
    """Remove litter without grace."""
    return lambda: gc(Warehouse(folder / "w"), grace_s=0).files >= 0


def main() -> None:
    """Work until the time is up."""
    role, folder, seconds, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    turn = globals()[role](folder, number)
    counts = {"turns": 0, "done": 0, "again": 0}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    until = time.monotonic() + float(seconds)
    while (now := time.monotonic()) < until or (not counts["done"] and now < until + _MORE_S):
        counts["turns"] += 1
        try:
            counts["done"] += bool(turn())
        except WarehouseError as error:
            if "again" not in (error.hint or ""):
                raise
            counts["again"] += 1
        except EcgStoreError as error:
            if "went while" not in str(error):
                raise
            counts["again"] += 1
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
