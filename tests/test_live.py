"""What a terminal shows while a command works."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def output_module(app: Any) -> Any:
    """Return the module that draws, installed or from a bare checkout."""
    name = app.registered_commands[0].callback.__module__.rpartition(".")[0]
    return sys.modules[f"{name}.output"]


def test_a_bar_shows_what_is_done_and_the_newest_text(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def listen() -> None:
        while b"the end" not in b"".join(seen):
            seen.append(os.read(master, 4096))

    listener = threading.Thread(target=listen)
    listener.start()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with output_module(app).live(quiet=False) as progress:
            progress.start(3, "steps")
            progress.advance(2)
            progress.tell("█▅▂ 1.25")
            progress.tell("█▄▁ 0.5")
        terminal.write("the end")
        terminal.flush()
        listener.join()
    os.close(master)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(seen).decode()).splitlines()
    last = next(line for line in reversed(lines) if "2/3" in line)
    assert last.rstrip().endswith("█▄▁ 0.5")


def test_no_terminal_no_bar(app: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with output_module(app).live(quiet=False) as progress:
        progress.start(3, "steps")
        progress.advance()
        progress.tell("█▄▁ 0.5")
        progress.note("a licence")
    assert capsys.readouterr().err == "a licence\n"
