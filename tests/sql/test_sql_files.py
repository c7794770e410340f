"""SQL files keep the house style."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SQL_FILES = sorted((Path(__file__).resolve().parent.parent.parent / "sql").rglob("*.sql"))
KEYWORDS = re.compile(r"\b(SELECT|FROM|WHERE|JOIN|GROUP|ORDER|BY|WITH|AND|CASE|WHEN|CREATE|AS)\b")


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.stem)
def test_sql_files_keep_the_house_style(path: Path) -> None:
    text = path.read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert text.startswith("-- ")
    assert not KEYWORDS.search(code)
    assert "select *" not in code
    assert max(map(len, text.splitlines())) <= 100
    if path.parent.name == "views":
        assert f"create or replace view {path.stem} as" in code
