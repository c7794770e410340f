"""What is documented is what is there: every command has help, and the pages show it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

import ecgstore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TEST_COMMAND = next(line for line in README.splitlines() if line.endswith("bin/pytest -q"))


def walk(command: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of the app with the words that reach it."""
    yield names, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*names, name))


@pytest.fixture
def commands(app: Any) -> list[tuple[tuple[str, ...], Any]]:
    return list(walk(typer.main.get_command(app), ()))


def test_every_command_and_option_has_help(commands: list[tuple[tuple[str, ...], Any]]) -> None:
    assert len(commands) > 15
    for names, command in commands:
        assert command.help, names
        is_group = hasattr(command, "commands") and names
        assert is_group or "Example: ecgstore" in command.help, names
        for parameter in command.params:
            assert getattr(parameter, "help", None), (names, parameter.name)


def test_the_list_of_commands_is_current(
    commands: list[tuple[tuple[str, ...], Any]],
    run: Callable[..., Any],
    snapshot: Callable[[Path, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    parts = ["# Commands\n\nMade from the commands' own help; a test keeps it current.\n"]
    for names, _ in commands:
        title = " ".join(("ecgstore", *names))
        text = run(*names, "--help").out.strip()
        text = re.sub(r"^Usage: \S+", "Usage: ecgstore", text)
        parts.append(f"## {title}\n\n```text\n{text}\n```\n")
    snapshot(ROOT / "docs" / "commands.md", "\n".join(parts))


def test_every_model_is_in_the_readme() -> None:
    for spec in ecgstore.list_models():
        assert f"| `{spec.name}` |" in README
        for readout in spec.readouts:
            assert f"`{readout}`" in README


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert TEST_COMMAND in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_shows_a_session_early() -> None:
    lines = README.splitlines()
    assert lines[0] == "# ecgstore"
    assert lines[2].startswith("An embedded feature store for electrocardiograms")
    assert lines.index("```bash") < 10
    assert lines.index("```python") < 15
    assert any(line.startswith("ecgstore ingest") for line in lines[:30])
