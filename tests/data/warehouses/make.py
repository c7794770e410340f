"""Make a warehouse to be kept: a program of its own, run with the ecgstore of that time.

``PYTHONPATH=<checkout> python make.py OUT`` writes a warehouse of 25 invented ECGs to the folder
OUT, and to OUT.json what that ecgstore read from it. Only public names are used, so the
same program serves every later layout.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import ecgstore

RATE_HZ, SAMPLES = 100, 930  # 9.3 s: one window of the built-in model
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
FLIPS = 110
"""Commits to `labels` that change one label: enough for a checkpoint of any writer so far."""
SUMS = {
    "label": "select sum(label) from labels",
    "sample": "select sum(list_sum(ii)) from waveforms",
    "vector": "select sum(list_sum(embedding::double[])) from embeddings",
    "score": "select sum(value) from scores",
}


def dump(rows: Any, columns: list[str]) -> str:
    """Return the SHA-256 of rows of an Arrow table, whatever their order and later columns."""
    lines = sorted(
        json.dumps([plain(row[name]) for name in columns])
        for row in rows.select(columns).to_pylist()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def plain(value: object) -> object:
    """Return a value as JSON knows it; a float keeps every bit."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, dt.datetime) else value


def write_ecg(header: Path, number: int, leads: tuple[str, ...], gain: int) -> None:
    """Write slow waves as WFDB format 16, one sample of every third record marked as lost."""
    t = np.arange(SAMPLES) / RATE_HZ
    waves = [np.sin(2 * np.pi * (1.0 + 0.01 * number) * t + 0.3 * k) for k in range(len(leads))]
    counts = np.round(np.stack(waves) * (20 + number % 7)).astype("<i2")
    if number % 3 == 0:
        counts[0, 100] = -32768
    lines = [f"{header.stem} {len(leads)} {RATE_HZ} {SAMPLES}"]
    for lead, samples in zip(leads, counts, strict=True):
        total = int(samples.sum(dtype=np.int64)) & 0xFFFF
        scale = f"{gain}({number})/mV"
        lines.append(f"{header.stem}.dat 16 {scale} 16 0 {samples[0]} {total} 0 {lead}")
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text("\n".join(lines) + "\n")
    header.with_suffix(".dat").write_bytes(counts.T.tobytes())


def write_labels(path: Path, rows: list[tuple[str, float, str]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("record_id", "label", "patient"), *rows])
    return path


def make(out: Path, desk: Path) -> list[str]:
    """Fill a warehouse by the commands a user would give; return moments between them."""
    for number in range(8):
        write_ecg(desk / "north" / f"n{number:02d}.hea", number, LEADS, 200)
    for number in range(8, 24):
        write_ecg(desk / "south" / f"s{number:02d}.hea", number, ("I", "II", "V5"), 1000)
    broken = desk / "south" / "s24.hea"
    broken.write_text("this is no header\n")
    lost = desk / "south" / "s25.hea"
    lost.write_text("this is no header either\n")
    names = [f"north/n{i:02d}" if i < 8 else f"south/s{i:02d}" for i in range(24)]
    moments: list[str] = []

    def moment() -> None:
        time.sleep(0.02)
        moments.append(dt.datetime.now(dt.UTC).isoformat())
        time.sleep(0.02)

    with ecgstore.connect(out) as store:
        store.ingest(desk / "north", dataset="north", jobs=1)
        moment()
        store.ingest(desk / "south", dataset="south", jobs=1)
        write_ecg(broken, 24, ("I", "II", "V5"), 1000)  # put right: it leaves the rejects
        store.ingest(desk / "south", dataset="south", jobs=1)
        moment()
        rows = [(name, float(i % 2), f"p{i // 2}") for i, name in enumerate(names)]
        store.label(write_labels(desk / "mi.csv", rows), task="MI", patient="patient")
        store.embed("stmem.mini", device="cpu")
        store.embed("stmem.mini:centre", device="cpu", keep_windows=True)
        moment()
        store.split("mi2", task="MI", repeats=2, test_size=0.25, seed=0)
        store.fuse(["stmem.mini:three", "stmem.mini:centre"], name="both")
        few = {"n_estimators": "3"}
        store.evaluate(["both"], "mi2", classifier="xgboost", params=few)
        store.train("stmem.mini:three", "mi2", classifier="xgboost", params=few)
        moment()
        for turn in range(FLIPS):
            flip = [(names[0], float(turn % 2), "")]
            path = write_labels(desk / "flip.csv", flip)
            store.label(path, task="FLIP", overwrite=True)
        moment()
    return moments


def seen(out: Path, moments: list[str]) -> dict[str, Any]:
    """Return what this ecgstore reads: at the end, at older versions, at moments, for the run."""
    found: dict[str, Any] = {"tables": {}, "moments": {}, "runs": {}}
    with ecgstore.connect(out) as store:
        found["sums"] = {
            name: float(store.table(sql).columns[0][0].as_py()) for name, sql in SUMS.items()
        }
        for name, newest in store.warehouse.versions().items():
            table = store.warehouse.table(name)
            columns = table.schema.arrow.names
            versions = {}
            for version in sorted({0, 1, 2, 50, 99, 100, 101, newest} & set(range(newest + 1))):
                rows = type(table)(table.folder, table.schema, version=version).read()
                versions[str(version)] = {"rows": len(rows), "sha256": dump(rows, columns)}
            found["tables"][name] = {"columns": columns, "versions": versions}
        runs = store.table("select distinct run_id from scores")["run_id"].to_pylist()
    for kind, names in (("moments", moments), ("runs", runs)):
        for at in names:
            with ecgstore.connect(out, at=at) as store:
                found[kind][at] = {
                    name: store.table(f"select count(*) from {name}").columns[0][0].as_py()
                    for name in found["tables"]
                }
    return found


def main() -> None:
    sys.stderr.write(f"made by {ecgstore.code_version()} of {Path(ecgstore.__file__).parent}\n")
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as desk:
        moments = make(out, Path(desk))
    for commit in out.glob("*/_delta_log/00000000000000000000.json"):
        here = out.absolute().as_uri()  # an engine may note where a table was made
        commit.write_text(commit.read_text().replace(here, "warehouse"))
    expected = seen(out, moments)
    out.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
