"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ecgstore.deidentify import load_key
from ecgstore.record import LEADS
from ecgstore.schema import TABLES
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
_CRASH, _MUTANTS = "crash: ", "mutant: "

# Test data are small: more threads only get into each other's way, most of all on a busy machine.
for variable in ("OMP_NUM_THREADS", "ECGSTORE_THREADS"):
    os.environ.setdefault(variable, "1")

# The key that hides patients' ids is never the user's own; processes that tests start share it.
if "ECGSTORE_KEY" not in os.environ:
    os.environ["ECGSTORE_KEY"] = str(
        Path(tempfile.mkdtemp(prefix="ecgstore-key-")) / "patients.key"
    )
    load_key(Path(os.environ["ECGSTORE_KEY"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-snapshots", action="store_true", help="Write expected files anew from results."
    )


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Return a call that adds to what the summary says of crash tests."""

    def call(what: str, number: int) -> None:
        record_property(f"{_CRASH}{what}", number)

    return call


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what all crash tests together covered, and what became of damaged files."""
    totals: dict[str, Counter[str]] = {_CRASH: Counter(), _MUTANTS: Counter()}
    for report in terminalreporter.getreports("passed"):
        for name, number in report.user_properties:
            kind = next((one for one in totals if name.startswith(one)), None)
            if kind is not None and isinstance(number, int):
                totals[kind][name.removeprefix(kind)] += number
    for kind, found in totals.items():
        if found:
            terminalreporter.section(f"{kind.partition(':')[0]} tests")
            for name, number in sorted(found.items()):
                terminalreporter.write_line(f"{number:6} {name}")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real recordings and reference values."""
    folder = Path(os.environ.get("ECGSTORE_TEST_DATA", ROOT.parent / "shared"))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the test data folder {folder.name!r} is missing; CI must have it")
        pytest.skip("real recordings are absent; set ECGSTORE_TEST_DATA to their folder")
    return folder


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Return a check that a text equals a file in the repository, or writes it when asked to."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-snapshots"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path.name} is missing; make it with --update-snapshots"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def app() -> Any:
    """Return the Typer app, installed or from a bare checkout."""
    installed = importlib.util.find_spec("ecgstore.cli") is not None
    return importlib.import_module("ecgstore.cli.app" if installed else "cli.app").app


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(app: Any) -> Callable[..., Done]:
    """Return a call that runs a command in this process: ``run("embed", "--model", "tiny")``."""

    def call(*arguments: object, stdin: str | None = None) -> Done:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Return a call that starts a command as a process of its own."""

    def call(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ecgstore", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **{"cwd": ROOT, **pipes, **options})

    return call


BY_HAND = (
    *("signals", "annotations", "quality", "measurements", "head_outputs", "pretraining"),
    *("fusions", "class_probabilities", "fused_vectors"),
    *("codes", "reconstructions"),
    *("trainings", "losses", "trained_records"),
)


@pytest.fixture(scope="session")
def fill_by_hand() -> Callable[[Warehouse, str], None]:
    """Return a call that gives the tables no small test fills a row each, as they might have it."""

    def call(warehouse: Warehouse, record_id: str) -> None:
        for name in BY_HAND:
            warehouse.append(name, row_by_hand(name, record_id), command="test")

    return call


def row_by_hand(name: str, record_id: str) -> pa.Table:
    """Return a row of a table of `BY_HAND`, about a record where the table is about records."""
    values: dict[str, dict[str, object]] = {
        "signals": {"number": 1, "name": "MLII", "unit": "mV", "rate_hz": 360.0, "gain": 200.0}
        | {"baseline": 0, "samples": [1, -2, 3]},
        "annotations": {"annotator": "atr", "number": 1, "time_s": 0.5, "sample": 180}
        | {"symbol": "N", "subtype": 0, "channel": 0, "num": 0, "text": "(AFIB"},
        "measurements": {"name": "qt", "value": 400.0, "unit": "ms", "source": "muse"},
        "quality": {"lead": "II", "flat": False, "snr_db": 12.5, "mains_hz": 50},
        "head_outputs": {"model": "ecgfounder", "version": "v1", "label": "ATRIAL FIBRILLATION"}
        | {"probability": 0.75},
        "pretraining": {"model": "ecgfounder", "dataset": "HEEDB", "source": "arXiv:2410.04133"},
        "fusions": {"run_id": "f00d", "repeat": 0, "part": "fusion", "name": "pca"}
        | {"format": "safetensors", "model": b"numbers"},
        "class_probabilities": {"run_id": "f00d", "repeat": 0, "class": 2, "split": "test"}
        | {"probability": 0.25},
        "fused_vectors": {"run_id": "f00d", "repeat": 0, "dim": 2, "vector": [0.5, -0.5]},
        "codes": {"model": "anyecg", "version": "v1", "lead": "II", "second": 3, "code": 7},
        "reconstructions": {"lead": "V3", "model": "anyecg", "version": "v1", "rate_hz": 300.0}
        | {"scale": "its own", "ssim": 0.5, "signal": [0.25, -0.5]},
        "trainings": {"run_id": "f00d", "kind": "pretrain", "method": "stmem", "state": "running"}
        | {"params": "{}", "datasets": ["mine"], "records": 1, "steps": 200, "seed": 0},
        "losses": {"run_id": "f00d", "step": 1, "name": "loss", "value": 1.25}
        | {"learning_rate": 0.001},
        "trained_records": {"run_id": "f00d", "part": "train"},
    }
    schema = TABLES[name].arrow
    about = {"record_id": record_id} if "record_id" in schema.names else {}
    return pa.Table.from_pylist([about | values[name]], schema=schema)


def vector_rows(model: str, ids: list[str], x: NDArray[np.float32]) -> pa.Table:
    """Return rows of ``embeddings`` for vectors ``(records, dim)``."""
    n = len(ids)
    return pa.table(
        {
            "record_id": pa.array(ids, pa.string()),
            "model": [model] * n,
            "version": ["v1"] * n,
            "pooling": ["mean"] * n,
            "dim": pa.array([x.shape[1]] * n, pa.int32()),
            "embedding": pa.array(list(x), pa.list_(pa.float32())),
        }
    )


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., Warehouse]:
    """Return a call that makes a warehouse of labelled vectors, task ACS, without signals.

    Patients have one to several records; the first numbers of each vector tell the label.
    """

    def call(
        name: str = "warehouse",
        *,
        records: int = 120,
        dims: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> Warehouse:
        rng = np.random.default_rng(seed)
        ids = [f"syn/{i:05d}" for i in range(records)]
        y = (rng.random(records) < 0.3).astype(np.float64)
        warehouse = Warehouse.create(tmp_path / name)
        rows: dict[str, object] = {"record_id": ids, "task": ["ACS"] * records, "label": y}
        warehouse.append("labels", pa.table(rows), command="test")
        for model, dim in (dims or {"alpha": 4, "beta": 6}).items():
            x = rng.standard_normal((records, dim), dtype=np.float32)
            x[:, :2] += y[:, None].astype(np.float32)
            warehouse.append("embeddings", vector_rows(model, ids, x), command="test")
        patients = [f"p{i}" for i in rng.integers(0, records * 2 // 3, records)]
        rows = {"record_id": ids, "patient_id": patients, "dataset": ["syn"] * records}
        warehouse.append("records", pa.table(rows), command="test")
        return warehouse

    return call


@pytest.fixture(scope="session")
def write_wfdb() -> Callable[..., Path]:
    """Return a call that writes a WFDB record of format 16 from ``(leads, samples)`` counts."""

    def call(
        folder: Path,
        name: str,
        digital: Any,
        *,
        leads: Sequence[str] = LEADS,
        rate_hz: float = 500,
        gain: str = "200(0)/mV",
        comments: Sequence[str] = (),
    ) -> Path:
        counts = np.asarray(digital, dtype="<i2")
        lines = [f"{name} {len(counts)} {rate_hz:g} {counts.shape[1]}"]
        for lead, samples in zip(leads, counts, strict=False):
            total = int(samples.sum(dtype=np.int64)) & 0xFFFF
            lines.append(f"{name}.dat 16 {gain} 16 0 {samples[0]} {total} 0 {lead}")
        header = folder / f"{name}.hea"
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text("\n".join([*lines, *(f"# {line}" for line in comments)]) + "\n")
        header.with_suffix(".dat").write_bytes(counts.T.tobytes())
        return header

    return call
