"""The rules of the house: layout, imports, public names, packaging."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ecgstore

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sorted(path for folder in ("ecgstore", "cli") for path in (ROOT / folder).rglob("*.py"))

LEVELS: dict[str, float] = {
    "errors": 0,
    "settings": 1,
    "progress": 1,
    "pool": 1,
    "record": 1,
    "registry": 1,
    "corpora": 1,
    "columns": 1,
    "learning_tables": 1.5,
    "training_tables": 1.5,
    "schema": 2,
    "scaling": 3,
    "statistics": 3,
    "signal": 10,
    "deidentify": 10,
    "io": 11,
    "quality": 12,
    "paper": 12,
    "datasets": 12,
    "models": 13,
    "waveforms": 14,
    "disk": 15,
    "locks": 15,
    "keys": 15,
    "checkpoint": 15,
    "commits": 15,
    "log_files": 15.4,
    "log": 15.5,
    "layout": 15.5,
    "integrity": 15.5,
    "shards": 15.6,
    "staging": 15.7,
    "tables": 16,
    "merge": 16.5,
    "expire": 16.5,
    "warehouse": 17,
    "catalog": 18,
    "copies": 18,
    "feed": 18.5,
    "stored": 18.5,
    "history": 18,
    "mend": 1,
    "audit": 18,
    "shard_audit": 18.2,
    "findings": 18.4,
    "repair": 18.6,
    "strays": 18.6,
    "traces": 20,
    "forget": 27,
    "compact": 20,
    "gc": 20,
    "verify": 19,
    "environment": 18,
    "tasks": 18.5,
    "stratify": 3,
    "drawing": 4,
    "features": 19,
    "leakage": 19,
    "classifiers": 19,
    "sequences": 19.5,
    "supervised": 20,
    "tune": 21,
    "sinks": 19,
    "intake": 20,
    "heart": 20,
    "patients": 21,
    "variety": 21.5,
    "synthetic": 22,
    "ingest": 23,
    "labels": 24,
    "assess": 24,
    "pipe": 1,
    "grouping": 23,
    "engine": 24,
    "vector_sink": 24.2,
    "estimate": 25.5,
    "trainings": 25.5,
    "first_use": 24,
    "embed": 25,
    "codes": 25.5,
    "lead_repair": 25.5,
    "pretraining": 26,
    "finetuning": 27,
    "dividing": 25.5,
    "reshuffles": 25.5,
    "split": 26,
    "split_check": 26.5,
    "fuse": 27,
    "neighbours": 27.5,
    "protocols": 2,
    "terms": 19,
    "fitting": 22,
    "runs": 28,
    "stored_fits": 28.5,
    "folds": 28.5,
    "scored": 28.5,
    "scoring": 29,
    "predictions": 28,
    "samples": 28.5,
    "train": 29,
    "evaluate": 30,
    "predict": 30,
    "clinical": 31,
    "explain": 31,
    "compare": 31,
    "groups": 19,
    "concepts": 19,
    "shortcuts": 20,
    "task_probe": 20,
    "curve_fits": 20,
    "subgroups": 31,
    "probes": 31,
    "learning_curve": 32,
    "export_wfdb": 30,
    "fusion": 20,
    "shared_errors": 29,
    "gains": 29,
    "complementarity": 31,
    "export": 31,
    "project": 31,
    "reproduce": 31,
    "plots": 32,
    "page": 33,
    "report": 34,
    "opened": 39,
    "embedding": 39.5,
    "evaluation": 39.7,
    "teaching": 39.6,
    "store": 40,
    "demo": 41,
}
"""Where a module of the library stands; it imports only from lower ones."""

FLOORS = {"laboratory", "splitting", "storage", "upkeep"}
"""Packages whose modules stand on levels of their own."""

STRANGERS = {
    ("models", "io"),
    ("models", "datasets"),
    ("io", "models"),
    ("datasets", "models"),
    ("catalog", "tables"),
    ("catalog", "warehouse"),
    ("catalog", "shards"),
    ("warehouse", "models"),
    ("warehouse", "io"),
    ("tables", "io"),
    ("tables", "models"),
    ("shards", "io"),
    ("shards", "models"),
    ("waveforms", "models"),
    ("waveforms", "io"),
}
"""Pairs of the same floor that must not know each other."""

HEAVY = {
    "duckdb": {"catalog"},
    "deltalake": set(),
    "torch": {
        "classifiers",
        "engine",
        "environment",
        "estimate",
        "explain",
        "finetuning",
        "fusion",
        "grouping",
        "models",
        "pretraining",
        "supervised",
    },
    "optuna": {"tune"},
    "xgboost": {"classifiers", "gains", "explain"},
    "sklearn": {"classifiers", "drawing", "evaluate", "project", "report", "fusion", "task_probe"},
    "matplotlib": {"project", "paper", "explain", "pretraining"},
}
"""Which modules may import a heavy library."""


def module_of(path: Path) -> str:
    return placed(path.relative_to(ROOT / "ecgstore").with_suffix("").parts)


def placed(parts: Sequence[str]) -> str:
    """Return under which name a module of the library stands among the levels."""
    return parts[1] if parts[0] in FLOORS and len(parts) > 1 else parts[0]


def imports(path: Path) -> set[str]:
    """Return the modules a file imports when it runs; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(
    "path", [p for p in PYTHON if "ecgstore" in p.parts], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_downward_only(path: Path) -> None:
    here = module_of(path)
    if here in {"__init__", "__main__"}:
        return
    assert here in LEVELS, f"{here} has no place among the levels"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "cli" or parts[:2] == ["ecgstore", "cli"]:
            pytest.fail(f"{here} imports the command line")
        if parts[0] == "ecgstore" and len(parts) > 1 and (other := placed(parts[1:])) in LEVELS:
            assert other == here or LEVELS[other] < LEVELS[here], f"{here} imports {other}"
            assert (here, other) not in STRANGERS, f"{here} must not know {other}"
        if parts[0] in HEAVY:
            assert here in HEAVY[parts[0]], f"{here} imports {parts[0]}"


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda p: p.name)
def test_the_command_line_uses_public_names_only(path: Path) -> None:
    for name in imports(path):
        if name.split(".")[0] == "ecgstore":
            assert name == "ecgstore" or name.startswith("ecgstore.errors"), f"imports {name}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_one_subject(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_public_names_are_what_can_be_seen() -> None:
    assert dir(ecgstore) == sorted(ecgstore.__all__)
    for name in ecgstore.__all__:
        assert getattr(ecgstore, name) is not None


LIBRARY = [p for p in PYTHON if p.parts[-1] != "__main__.py" and "ecgstore" in p.parts[:-1]]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_is_public(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(p for p in parts if p != "__init__"))
    assert module.__doc__
    for name in module.__all__:
        assert not name.startswith("_")
        assert hasattr(module, name)


def test_importing_is_light() -> None:
    heavy = sorted(HEAVY | {"scipy": set(), "pandas": set(), "wfdb": set(), "polars": set()})
    code = f"import sys, ecgstore; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_a_bare_gpu_machine_can_run_an_encoder() -> None:
    """It has PyTorch, NumPy and SciPy, and need not have what keeps a warehouse."""
    absent = ["duckdb", "deltalake", "xgboost", "sklearn", "polars", "pandas", "wfdb", "typer"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "import numpy, ecgstore\n"
        "encoder = ecgstore.load_encoder('stmem.tiny', device='cpu')\n"
        "noise = numpy.random.default_rng(0).normal(size=(12, 5000))\n"
        "windows = encoder.prepare(noise, rate_hz=500, leads=encoder.spec.leads)\n"
        "print(encoder.embed(windows).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "(3, 48)"


def test_help_is_light() -> None:
    heavy = sorted(HEAVY | {"scipy": set(), "pandas": set(), "wfdb": set(), "polars": set()})
    code = (
        "import sys, runpy; sys.argv = ['ecgstore', '--help']\n"
        "try: runpy.run_module('ecgstore', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_package_is_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "ecgstore").rglob("__init__.py")
    }
    assert set(settings["packages"]) == folders | {"ecgstore.cli", "ecgstore.sql"}
    assert not list((ROOT / "sql").rglob("*.py"))


def test_constraints_name_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    assert lines
    for line in lines:
        name, equals, version = line.partition("==")
        assert name
        assert equals == "=="
        assert version[0].isdigit()
        assert "+" not in version
