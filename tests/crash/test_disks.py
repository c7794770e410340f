"""Commands on real disks that are full, cannot be written, or are not one's own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ecgstore.store import Store

from .content import content
from .sources import write_sources

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = shlex.quote(sys.executable)
READING = {
    "sql": ("select count(*) from waveforms", "--format", "csv"),
    "verify": ("--json",),
    "log": (),
    "export": ("records", "-o", "/dev/shm/ignored.csv", "--dry-run"),
}
HOW = {
    "a disk mounted read-only": (
        "mount --bind $w $w; mount -o remount,bind,ro $w",
        "Read-only file system",
        "",
    ),
    "a folder that may only be read": (
        "chmod -R a-w $w",
        "Permission denied",
        "-dac_override,-dac_read_search",  # or root may write it all the same
    ),
}


def inside(script: str, *, without: str = "") -> str:
    """Run a script where it may mount as it likes; what it mounts goes with it."""
    command = ["unshare", "--map-root-user", "--mount", "sh", "-euc", script]
    if without:
        command[3:3] = ["setpriv", f"--bounding-set={without}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    except subprocess.CalledProcessError as error:
        if "unshare" in error.stderr:
            pytest.skip(f"no namespaces here: {error.stderr.strip()}")
        raise AssertionError(error.stderr) from error
    return done.stdout


def ecgstore(root: Path | str, *words: object) -> str:
    """Return a line of script that runs a command and prints its output and exit code."""
    text = " ".join(shlex.quote(str(word)) for word in words)
    return f"{PYTHON} -m ecgstore -w {root} {text} 2>&1 && echo exit 0 || echo exit $?"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sources and a warehouse that holds the first of them."""
    made = tmp_path_factory.mktemp("made")
    write_sources(made)
    Store(made / "w").init()
    Store(made / "w").ingest(made / "first", dataset="ds", jobs=1)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("free_kb", [8, 88])
def test_a_full_disk_ends_an_ingest_with_one_error_and_it_goes_on_when_there_is_space(
    free_kb: int, made: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    ingest = ecgstore("$disk/w", "ingest", made / "second", "--dataset", "ds", "--jobs", "1")
    count = ecgstore("$disk/w", "sql", "select count(*) as n from records", "--format", "csv")
    told = inside(f"""
        disk={shlex.quote(str(disk))}
        mount -t tmpfs -o size=64m none $disk
        cp -r {shlex.quote(str(made / "w"))} $disk/w
        used=$(df -k --output=used $disk | tail -1)
        mount -o remount,size=$((used + {free_kb}))k $disk
        {ingest}
        echo ---
        {ecgstore("$disk/w", "verify")}
        {count}
        echo ---
        mount -o remount,size=64m $disk
        {ingest}
        {ecgstore("$disk/w", "gc", "--grace", "0")}
        {ecgstore("$disk/w", "verify")}
        cp -r $disk/w {shlex.quote(str(tmp_path / "after"))}
        """)
    full, still, after = told.split("---\n")
    assert "exit 1" in full
    (error,) = [line for line in full.splitlines() if line.startswith("error:")]
    assert "No space left on device" in error
    assert str(disk / "w") in error
    assert "Traceback" not in told
    assert "exit 1" not in still
    assert "exit 1" not in after
    before, now = (content(root) for root in (made / "w", tmp_path / "after"))
    assert f"n\n{len(before['records'])}\nexit 0" in still
    assert len(now["records"]) == len(now["waveforms"]) == 13
    assert now["records"].items() >= before["records"].items()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("a disk mounted read-only", marks=pytest.mark.slow),
        pytest.param("a folder that may only be read", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_written_is_read_all_the_same_and_a_writer_says_so(
    how: str, made: Path, tmp_path: Path
) -> None:
    made_w = shlex.quote(str(made / "w"))
    root = shlex.quote(str(tmp_path / "w"))
    writing = {
        "ingest": (made / "second", "--dataset", "ds"),
        "compact": (),
        "gc": ("--grace", "0"),
        "labels": (made / "labels.csv", "--task", "ACS"),
    }
    lock, reason, without = HOW[how]
    every = [*READING.items(), *writing.items()]
    lines = "\n".join(f"{ecgstore('$w', name, *words)}; echo ---" for name, words in every)
    told = inside(f"w={root}; cp -r {made_w} $w; {lock}; {lines}", without=without)
    for (name, _), said in zip(every, told.split("---\n"), strict=False):
        assert "Traceback" not in said, (name, said)
        if name in READING:
            assert "exit 0" in said, (name, said)
            continue
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, (name, said)
        assert reason in errors[0], (name, said)
        assert str(tmp_path / "w") in errors[0], (name, said)
        assert "exit 1" in said, (name, said)
