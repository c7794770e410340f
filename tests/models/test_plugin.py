"""Encoders of other packages: found by their entry point, and no harm when one is broken."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ecgstore.models import Model, load_encoder, models
from ecgstore.record import LEADS
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "data" / "plugin"


def install(folder: Path, package: str, points: dict[str, str]) -> None:
    """Leave in a folder what pip leaves of a package: its name and entry points."""
    info = folder / f"{package.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    lines = [f"{name} = {where}\n" for name, where in points.items()]
    (info / "entry_points.txt").write_text("[ecgstore.models]\n" + "".join(lines))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder in which the example package is installed."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    install(tmp_path / "site", project["name"], project["entry-points"]["ecgstore.models"])
    (module,) = PLUGIN.glob("*.py")
    (tmp_path / "site" / module.name).symlink_to(module)
    return tmp_path / "site"


def test_the_command_line_has_the_models_of_other_packages(
    site: Path,
    tmp_path: Path,
    run: Callable[..., Any],
    write_wfdb: Callable[..., Path],
) -> None:
    install(site, "broken-ecg", {"broken": "no_such_module:MODEL"})
    home = tmp_path / "warehouse"
    counts = np.random.default_rng(0).integers(-200, 200, (12, 5000))
    write_wfdb(tmp_path / "ecgs", "one", counts)
    assert run("-w", home, "init").code == 0
    assert run("-w", home, "ingest", tmp_path / "ecgs", "--dataset", "x", "--jobs", 1).code == 0
    code = (
        "import runpy, sys\n"
        "for line in sys.stdin:\n"
        "    sys.argv = ['ecgstore', *line.split('|')]\n"
        "    sys.argv[-1] = sys.argv[-1].strip()\n"
        "    try: runpy.run_module('ecgstore', run_name='__main__')\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
    )
    commands = ("models|list|stats|--json", f"-w|{home}|embed|--model|stats|--json")
    paths = os.pathsep.join([str(site), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(commands),
        env={**os.environ, "PYTHONPATH": paths},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    decoder = json.JSONDecoder()
    listed, end = decoder.raw_decode(done.stdout)
    embedded, _ = decoder.raw_decode(done.stdout[end:].lstrip())
    assert [(row["model"], row["dim"], row["n_leads"]) for row in listed] == [("stats", 36, 12)]
    assert embedded[0]["embedded"] == 1
    (notice,) = [line for line in done.stderr.splitlines() if "broken" in line]
    assert "'broken-ecg'" in notice
    assert "no_such_module" in notice
    assert "Traceback" not in done.stderr


def test_the_example_does_what_it_says(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    found: Registry[Model] = Registry("model", group="ecgstore.models", of=Model)
    assert list(found) == ["stats"]
    monkeypatch.setitem(models._entries, "stats", found.get("stats"))
    encoder = load_encoder("stats", device="cpu")
    signal = np.random.default_rng(0).normal(size=(12, 1000))
    windows = encoder.prepare(signal, rate_hz=100.0, leads=LEADS)
    vectors = encoder.embed(windows)
    assert vectors.shape == (5, 36)
    np.testing.assert_allclose(vectors[1, :12], signal[:, 200:400].mean(1), atol=1e-6)
    np.testing.assert_allclose(vectors[1, 24:], abs(signal[:, 200:400]).max(1), atol=1e-6)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("no_such_module:MODEL", "no_such_module"),
        ("stranger:MODEL", "stranger"),
        ("json:dumps", "no Model"),
        ("ecg_stats:NOTHING", "NOTHING"),
    ],
    ids=["no module", "raises", "no model", "no such name"],
)
def test_a_broken_package_is_named_and_left_out(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    said: str,
) -> None:
    install(site, "broken-ecg", {"broken": where})
    (site / "stranger.py").write_text("raise RuntimeError('stranger things\\nhappen')\n")
    monkeypatch.syspath_prepend(str(site))
    found: Registry[Model] = Registry("model", group="ecgstore.models", of=Model)
    with caplog.at_level(logging.WARNING):
        assert list(found) == ["stats"]
    (notice,) = caplog.messages
    assert "'broken-ecg'" in notice
    assert said in notice
    assert "\n" not in notice


def test_a_package_cannot_take_a_name_that_is_taken(
    site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(site))
    found: Registry[Model] = Registry("model", group="ecgstore.models", of=Model)
    mine = found.add("stats", models.get("stmem.tiny"))
    assert list(found) == ["stats"]
    assert found.get("stats") is mine
    assert "registered twice" in caplog.text
