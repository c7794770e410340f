"""Building blocks of a self-contained HTML page: safe text, tables, figures, one style sheet.

A page asks nothing of the network and needs no script. Whatever is not `Html` already is escaped,
so a dataset may be called anything. The look follows the reader's light or dark setting, fits a
telephone and prints on paper.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ecgstore.report.plots import STYLE as PLOT_STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Column",
    "Html",
    "code",
    "details",
    "document",
    "facts",
    "figure",
    "join",
    "legend",
    "note",
    "section",
    "shell",
    "table",
    "tag",
]


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        head: What stands above it.
        kind: ``words`` (left), ``figures`` (right, digits of one width), ``aside`` (figures that
            are not the page's own), ``bar`` or ``code``.
        group: A heading it shares with its neighbours, or None.
    """

    head: str
    kind: Literal["words", "figures", "aside", "bar", "code"] = "words"
    group: str | None = None


def join(parts: Iterable[object], separator: str = "") -> Html:
    """Put parts one after the other, escaping those that are not `Html`."""
    return Html(
        separator.join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts)
    )


def tag(name: str, *children: object, **attributes: str | int | None) -> Html:
    """Make one element; a trailing underscore of an attribute name is dropped (``class_``).

    Example:
        >>> tag("p", "a < b", class_="lead")
        '<p class="lead">a &lt; b</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def code(words: object) -> Html:
    """Set words as code within a line."""
    return tag("code", words)


def shell(*lines: str) -> Html:
    """Set commands to type, one a line."""
    return tag("pre", tag("code", "\n".join(lines)), tabindex=0)


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[object]],
    *,
    strong: int | None = None,
    foot: Iterable[object] = (),
) -> Html:
    """Make a table whose first cell of a row is the row's heading.

    Args:
        caption: What the table says.
        columns: Its columns; neighbours of one group get a heading over both.
        rows: Cells, as many a row as there are columns.
        strong: Index of a row to set off, or None.
        foot: Notes under the table.
    """
    body = [
        tag(
            "tr",
            *(
                tag(
                    "td" if place else "th",
                    cell,
                    class_=column.kind,
                    scope=None if place else "row",
                )
                for place, (column, cell) in enumerate(zip(columns, row, strict=True))
            ),
            class_="strong" if index == strong else None,
        )
        for index, row in enumerate(rows)
    ]
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", *_heads(columns)),
        tag("tbody", *body),
    )
    notes = [tag("p", words, class_="foot") for words in foot]
    # The frame scrolls by itself where the screen is narrow, and the keyboard can reach it.
    frame = tag("div", whole, class_="scroll", role="region", aria_label=caption, tabindex=0)
    return tag("div", frame, *notes, class_="block")


def _heads(columns: Sequence[Column]) -> list[Html]:
    if not any(column.group for column in columns):
        return [
            tag(
                "tr",
                *(tag("th", column.head, scope="col", class_=column.kind) for column in columns),
            )
        ]
    upper: list[Html] = []
    lower: list[Html] = []
    for index, column in enumerate(columns):
        if column.group is None:
            upper.append(tag("th", column.head, scope="col", rowspan=2, class_=column.kind))
            continue
        lower.append(tag("th", column.head, scope="col", class_=column.kind))
        if index == 0 or columns[index - 1].group != column.group:
            span = sum(other.group == column.group for other in columns)
            upper.append(tag("th", column.group, scope="colgroup", colspan=span, class_="group"))
    return [tag("tr", *upper), tag("tr", *lower)]


def facts(pairs: Iterable[tuple[object, object]], *, large: bool = False) -> Html:
    """Make a list of names with their values; ``large`` sets the values as headline figures."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs),
        class_="figures" if large else "facts",
    )


def figure(picture: str, caption: object, *above: object) -> Html:
    """Make a figure from the markup of a picture, a caption, and what stands above it."""
    below = [tag("figcaption", caption)] if caption else []
    return tag("figure", *above, Html(picture), *below)


def legend(entries: Iterable[tuple[str, object]]) -> Html:
    """Make the legend of pictures from pairs of the markup of a key and a name."""
    return tag(
        "ul",
        *(tag("li", Html(key), " ", tag("span", name)) for key, name in entries),
        class_="legend",
    )


def note(title: str, *words: object) -> Html:
    """Make a warning that cannot be overlooked."""
    return tag("div", tag("strong", title), " ", *words, class_="note", role="note")


def details(summary: str, *parts: object) -> Html:
    """Make a part that opens on request; on paper it is always open."""
    return tag("details", tag("summary", summary), *parts)


def section(name: str, heading: str, *parts: object) -> Html:
    """Make a section that the contents at the top can point to."""
    return tag(
        "section",
        tag("h2", heading, id=f"{name}-heading"),
        *parts,
        id=name,
        aria_labelledby=f"{name}-heading",
    )


def document(
    title: str, *, header: Html, contents: Sequence[tuple[str, str]], main: Html, footer: Html
) -> str:
    """Return the page: header, contents as ``(section name, words)``, sections, footer."""
    links = [tag("li", tag("a", words, href=f"#{name}")) for name, words in contents]
    body = join(
        [
            tag("a", "Skip to the result", href="#main", class_="skip"),
            tag("header", header),
            tag("nav", tag("ul", *links), aria_label="Contents"),
            tag("main", main, id="main", tabindex=-1),
            tag("footer", footer),
        ],
        "\n",
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{PLOT_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


_STYLE = """
:root { color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  --surface: #ffffff; --raised: #f5f6f7; --text: #1b1e22; --muted: #565d66;
  --rule: #e3e6e9; --rule-strong: #878e97; --link: #00558c;
  --warn: #8a4300; --warn-surface: #fff3e2; --warn-rule: #d9822b;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #00835f; --series-3: #a8478f;
  --series-4: #8f6f00; --series-5: #4a5058; }
@media screen and (prefers-color-scheme: dark) { :root {
  --surface: #14171a; --raised: #1d2125; --text: #e7e9eb; --muted: #a5acb4;
  --rule: #2b3036; --rule-strong: #6f7780; --link: #7cc0f0;
  --warn: #ffc98a; --warn-surface: #2f2212; --warn-rule: #c77d2e;
  --series-0: #56b4e9; --series-1: #f5894a; --series-2: #34c79b; --series-3: #e290ca;
  --series-4: #e3c34a; --series-5: #c3c9cf; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 3rem 1.5rem 4rem; max-width: 62rem; background: var(--surface);
  color: var(--text); font: 1rem/1.55 var(--sans); }
h1 { margin: 0 0 .5rem; font-size: clamp(1.6rem, 1.2rem + 1.8vw, 2.25rem); line-height: 1.15;
  letter-spacing: -.015em; font-weight: 680; text-wrap: balance; overflow-wrap: anywhere; }
h2 { margin: 0 0 1rem; font-size: 1.35rem; line-height: 1.25; font-weight: 650;
  letter-spacing: -.008em; }
h3 { margin: 2rem 0 .6rem; font-size: 1.05rem; line-height: 1.3; font-weight: 650;
  overflow-wrap: anywhere; }
p { margin: 0 0 1rem; max-width: 44rem; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; top: .5rem; padding: .4rem .8rem; z-index: 1;
  background: var(--raised); border-radius: 6px; } .skip:focus { left: .5rem; }
main:focus { outline: none; }
.asked { color: var(--muted); }
.answer { font-size: 1.2rem; line-height: 1.45; max-width: 46rem; text-wrap: pretty; }
nav { margin: 2rem 0 0; border-block: 1px solid var(--rule); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0; padding: .6rem 0;
  list-style: none; font-size: .925rem; }
section { margin-top: 3.25rem; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--rule);
  color: var(--muted); font-size: .875rem; }
code { font: .875em var(--mono); overflow-wrap: anywhere; }
pre { margin: 0 0 1.25rem; padding: .8rem 1rem; overflow-x: auto; background: var(--raised);
  border-radius: 6px; line-height: 1.5; }
pre code { overflow-wrap: normal; }
.block { margin: 0 0 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .925rem; line-height: 1.4; }
caption { text-align: left; padding: 0 0 .5rem; font-weight: 600;
  max-width: calc(100vw - 2rem); }
th, td { padding: .42rem 1.1rem .42rem 0; text-align: left; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 600; color: var(--muted); font-size: .85rem; vertical-align: bottom;
  border-bottom: 1px solid var(--rule-strong); }
thead th.group { border-bottom: 1px solid var(--rule); text-align: center; }
tbody th { font-weight: 500; overflow-wrap: break-word; min-width: 6rem; }
tbody tr > * { border-bottom: 1px solid var(--rule); }
tbody tr:last-child > * { border-bottom-color: var(--rule-strong); }
.strong > * { background: var(--raised); } .strong > :not(.aside) { font-weight: 680; }
.figures, .aside { text-align: right; font-variant-numeric: tabular-nums lining-nums;
  white-space: nowrap; }
.aside { color: var(--muted); } .mark { position: absolute; line-height: 1; font-size: .8em; }
thead th.figures, thead th.aside { text-align: right; white-space: normal; }
td code, th code, time { white-space: nowrap; }
td.bar { width: 30%; min-width: 6rem; vertical-align: middle; }
td.code { font: .85em/1.5 var(--mono); }
.foot { margin: .5rem 0 0; color: var(--muted); font-size: .875rem; line-height: 1.5; }
dl { margin: 0 0 1.5rem; } dt { color: var(--muted); } dd { margin: 0; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr));
  gap: 1.25rem 2rem; margin: 2rem 0 0; text-align: left; white-space: normal; }
dl.figures > div { display: flex; flex-direction: column; justify-content: end; }
dl.figures dt { overflow-wrap: anywhere; font-size: .85rem; line-height: 1.3; }
dl.figures dd { font-size: 1.55rem; line-height: 1.25; font-weight: 620; letter-spacing: -.01em; }
dl.facts > div { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: 0 1.5rem;
  padding: .35rem 0; border-bottom: 1px solid var(--rule); font-size: .925rem; }
dl.facts dd { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: .5rem; color: var(--muted); font-size: .875rem; line-height: 1.5;
  max-width: 44rem; }
figure h3 { margin: 0 0 .5rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1.75rem 2.5rem; margin: 0 0 1.5rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr));
  gap: 1.5rem; margin: 0 0 1.5rem; }
.panels figure { max-width: 24rem; }
.wide { max-width: 46rem; margin: 0 0 2rem; }
.stack { display: grid; gap: 1.75rem; margin: 0 0 2rem; }
.stack svg { display: block; width: 100%; height: auto; border-radius: 3px; }
.single { max-width: 34rem; margin: 0 0 2rem; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin: 0 0 1rem; padding: 0;
  list-style: none; font-size: .925rem; font-variant-numeric: tabular-nums; }
.legend li { display: flex; align-items: baseline; gap: .5rem; overflow-wrap: anywhere; }
.note { margin: 1.5rem 0; padding: .75rem 1rem; max-width: 46rem; border-left: 4px solid
  var(--warn-rule); background: var(--warn-surface); border-radius: 0 6px 6px 0; }
.note strong { color: var(--warn); }
.tag { display: inline-block; padding: 0 .5em; border: 1px solid var(--warn-rule);
  border-radius: 4px; background: var(--warn-surface); color: var(--warn); font-weight: 620;
  font-size: .85em; white-space: nowrap; }
details { margin: 0 0 1.25rem; }
summary { cursor: pointer; color: var(--link); margin-bottom: .6rem; }
@media (max-width: 40rem) { body { padding: 1.5rem 1rem 3rem; } .answer { font-size: 1.1rem; }
  dl.facts > div { grid-template-columns: 1fr; } th, td { padding-right: .8rem; }
  dl.figures { grid-template-columns: 1fr 1fr; } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@page { size: A4; margin: 16mm 15mm; }
@media print { body { padding: 0; max-width: none; font-size: 10pt; } nav, .skip { display: none; }
  section { margin-top: 1.8rem; } h2, h3, caption, .legend { break-after: avoid; }
  figure, tr, .note, dl div, pre { break-inside: avoid; } a { color: inherit; }
  h2 + *, h3 + * { break-before: avoid; } h3 + .foot { break-after: avoid; }
  .stack { display: block; } .stack figure { margin: 0 0 4mm; } .stack svg { max-width: 145mm; }
  pre { white-space: pre-wrap; } .scroll { overflow: visible; }
  .pair { grid-template-columns: 1fr 1fr; } .panels { grid-template-columns: repeat(3, 1fr); }
  footer { margin-top: 1.5rem; }
  details::details-content { content-visibility: visible; display: block; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
