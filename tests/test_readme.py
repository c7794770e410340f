"""Every session in the README runs as it stands there, on real recordings and small weights."""

from __future__ import annotations

import contextlib
import csv
import doctest
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.S)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
SHELL = [text for kind, text in BLOCKS if kind == "bash" and not text.startswith("python3 -m venv")]
COUNT = 60
"""Records of PTB-XL at the desk."""
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "ecgstore").rglob("*.py")
    if not path.name.startswith("__")
)


@pytest.fixture(scope="module")
def desk(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as a reader of the README would have it."""
    folder = tmp_path_factory.mktemp("desk")
    goldens = test_data / "goldens"
    ptbxl = test_data / "data" / "ptbxl"
    (folder / "ptb-xl").mkdir()
    for path in ptbxl.iterdir():
        (folder / "ptb-xl" / path.name).symlink_to(path)
    table = (folder / "ptb-xl" / "ptbxl_database.csv").read_text().splitlines(keepends=True)
    (folder / "ptb-xl" / "ptbxl_database.csv").unlink()
    (folder / "ptb-xl" / "ptbxl_database.csv").write_text("".join(table[: COUNT + 1]))
    for name, source in {
        "st_mem_vit_base_encoder.pth": goldens / "stmem_tiny" / "st_mem_tiny_encoder.pth",
        "mimic_iv_ecg_physionet_pretrained.pt": goldens / "ecgfm_tiny" / "pretrained.pt",
    }.items():
        (folder / name).symlink_to(source)
    (folder / "my-ecgs").mkdir()
    headers = sorted((test_data / "data" / "ptbxl" / "records100").rglob("*.hea"))[:40]
    with (folder / "acs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ecg", "acs", "patient"])
        for number, header in enumerate(headers):
            for source in (header, header.with_suffix(".dat")):
                shutil.copy(source, folder / "my-ecgs")
            writer.writerow([header.stem, int(number % 3 == 0), f"P{number // 2}"])
    return folder


def call(command: list[str], desk: Path) -> str:
    """Run a command at the desk with this environment's programs first on the path."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command,
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed(session: str, desk: Path, run: Callable[..., Any]) -> str:
    """Run lines of one command each in this process, which saves a start for each."""
    out = ""
    with contextlib.chdir(desk):
        for line in session.strip().splitlines():
            program, *words = shlex.split(line)
            assert program == "ecgstore"
            done = run(*words)
            assert done.code == 0, (line, done.err)
            out += done.out
    return out


def log_of(desk: Path) -> set[Path]:
    return set((desk / "warehouse").rglob("_delta_log/*.json"))


def test_the_sessions_run_and_agree(desk: Path, run: Callable[..., Any]) -> None:
    session, encoder = PYTHON
    printed = call([sys.executable, "-W", "error", "-c", session], desk)
    for name in ("stmem", "ecgfm", "fusion"):
        assert name in printed
    call([sys.executable, "-W", "error", "-c", encoder], desk)

    commits = log_of(desk)
    main, encoders, training, gate, cohort, protocols, clients, care = SHELL
    lines = typed(main, desk, run).splitlines()
    assert log_of(desk) == commits, "the shell session repeats the Python one and adds nothing"
    assert (desk / "fusion.png").read_bytes().startswith(b"\x89PNG")
    assert "</html>" in (desk / "mi10.html").read_text()
    outcomes = [json.loads(line) for line in lines[:2]]
    assert [(row["outcome"], row["records"]) for row in outcomes] == [
        ("ingested", 0),
        ("existing", COUNT),
    ]

    assert "record_mean" not in (compared := typed(encoders, desk, run))
    assert "centre" in compared

    trained, embedded = map(json.loads, typed(training, desk, run).splitlines())
    assert (trained["done"], trained["loss"] < trained["first"]) == (20, True)
    assert embedded["embedded"] == COUNT

    assert (desk / "00004.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(call(["bash", "-euo", "pipefail", "-c", gate], desk))["good"] > 0

    call(["bash", "-euo", "pipefail", "-c", cohort], desk)
    assert log_of(desk) > commits
    less = " --repeats 2 --test-size 0.4 --out-of-fold 2 --set n_estimators=5"  # for time's sake
    told, page = protocols.strip().rsplit(" -o ", 1)
    assert page == "mi.html"  # pages are written by the session above
    rows = [json.loads(line) for line in typed(told + less, desk, run).splitlines()]
    assert [row["protocol"] for row in rows] == ["paper"] * 3 + ["sound"] * 3
    call(["bash", "-euo", "pipefail", "-c", clients], desk)
    assert (desk / "tasks.parquet").exists()
    client = (
        "import duckdb\n"
        "with duckdb.connect() as client:\n"
        "    client.execute(open('init.sql').read())\n"
        "    print(client.sql('select count(*) from records').fetchone()[0])"
    )
    assert call([sys.executable, "-c", client], desk).strip() == str(COUNT + 40)
    call(["bash", "-euo", "pipefail", "-c", care], desk)
    assert json.loads((desk / "erased.json").read_text())["records"] == 2
    with (desk / "records.csv").open() as stream:
        assert sum(1 for _ in csv.DictReader(stream)) == COUNT + 38


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
