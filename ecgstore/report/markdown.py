"""The page as Markdown: its own markup read back and written as plain text with tables.

Both forms come from the same page, so they cannot say different things. A picture is replaced by
its text alternative, which holds its figures.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

__all__ = ["markdown"]

_HIDDEN = {"head", "nav", "svg", "style"}
"""Elements whose words are left out; of a picture its text alternative is taken instead."""

_SKIPPED = {"legend", "skip"}
"""Classes of elements that mean nothing without the page: keys of colours, the link to the top."""

_VOID = {"br", "link", "meta"}
_BLOCKS = {"p", "h1", "h2", "h3", "figcaption", "summary", "caption", "pre", "dt", "dd", "li"}
_ACTIVE = re.compile(r"([\\`*\[\]|]|(?<![^\W_])_|_(?![^\W_]))")


def markdown(page: str) -> str:
    """Return a page of `ecgstore.report.page` as Markdown."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return "\n\n".join(part for part in reader.parts if part) + "\n"


class _Reader(HTMLParser):
    """Collects the blocks of a page in order.

    Attributes:
        parts: Finished blocks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._open: list[tuple[str, str]] = []
        self._hidden = 0  # elements left out that are open
        self._words: list[str] = []
        self._name = ""  # of a pair whose value is still to come
        self._quoted = False
        self._heads: list[list[tuple[str, int, int]]] = []
        self._rows: list[list[str]] = []
        self._spans = (1, 1)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "svg" and not self._hidden and given.get("aria-label"):
            self.parts.append(f"*Figure: {_text(given['aria-label'])}*")
        if tag == "br":
            self._words.append(" ")
        if tag in _VOID:
            return
        style = given.get("class", "")
        self._open.append((tag, style))
        if self._hidden or tag in _HIDDEN or style in _SKIPPED:
            self._hidden += 1
            return
        if tag in _BLOCKS or style == "note":
            self._words = []
        elif tag in {"td", "th"}:
            self._words = []
            self._spans = int(given.get("rowspan", 1)), int(given.get("colspan", 1))
        elif tag == "table":
            self._heads, self._rows = [], []
        elif tag == "tr":
            if self._within("thead"):
                self._heads.append([])
            else:
                self._rows.append([])
        self._quoted = self._quoted or style == "note"
        self._mark(tag)

    def handle_endtag(self, tag: str) -> None:
        _, style = self._open.pop()
        if self._hidden:
            self._hidden -= 1
            return
        self._mark(tag)
        if tag in {"td", "th"}:
            self._cell()
        elif tag == "table":
            self._table()
        elif style == "note":
            self.parts.append(f"> {self._taken()}")
            self._quoted = False
        elif tag in _BLOCKS and not self._quoted:
            self._block(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._within("pre"):
            self._words.append(data)
        elif self._within("code"):
            self._words.append(re.sub(r"\s+", " ", data).replace("`", "'"))
        else:
            self._words.append(_text(data))

    def _within(self, name: str) -> bool:
        return any(tag == name for tag, _ in self._open)

    def _mark(self, tag: str) -> None:
        if tag in {"b", "strong"}:
            self._words.append("**")
        elif tag == "code" and not self._within("pre"):
            self._words.append("`")

    def _taken(self) -> str:
        words, self._words = "".join(self._words), []
        return re.sub(r"[ \n\t]+", " ", words).strip()

    def _block(self, tag: str) -> None:
        if tag == "pre":
            code, self._words = "".join(self._words).strip("\n"), []
            longest = max(map(len, re.findall("`+", code)), default=0)
            fence = "`" * max(3, longest + 1)
            self.parts.append(f"{fence}sh\n{code}\n{fence}")
            return
        words = self._taken()
        if tag == "dt":
            self._name = words
        elif tag == "dd":
            self._listed(f"- {self._name}: {words}")
        elif tag == "li":
            self._listed(f"- {words}")
        elif tag in {"h1", "h2", "h3"}:
            self.parts.append(f"{'#' * int(tag[1])} {words}")
        elif words:
            self.parts.append(f"**{words}**" if tag in {"caption", "summary"} else words)

    def _listed(self, line: str) -> None:
        """Put a line at the end of the list that is being written, or begin one."""
        if self.parts and self.parts[-1].startswith("- "):
            self.parts[-1] += f"\n{line}"
        else:
            self.parts.append(line)

    def _cell(self) -> None:
        words = self._taken().replace("|", "\\|").replace("\\\\|", "\\|")
        if self._within("thead"):
            self._heads[-1].append((words, *self._spans))
        else:
            self._rows[-1].append(words)

    def _table(self) -> None:
        heads: list[str] = []
        lower = iter(self._heads[1] if len(self._heads) > 1 else [])
        for words, rows, columns in self._heads[0]:
            if rows < len(self._heads):  # a heading over several
                heads += [f"{next(lower)[0]} ({words})" for _ in range(columns)]
            else:
                heads.append(words)
        lines = [heads, ["---"] * len(heads), *self._rows]
        self.parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _text(words: str) -> str:
    """Escape what Markdown, or HTML within it, would take for markup."""
    return _ACTIVE.sub(r"\\\1", words).replace("&", "&amp;").replace("<", "&lt;")
