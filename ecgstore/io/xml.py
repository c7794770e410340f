"""Parse XML that nobody vouches for: no entities, nothing external, no bottomless nesting.

A document type may be named, as GE MUSE does (``restecg.dtd``), but nothing is ever loaded for it
and what it declares is refused. Elements lose their namespace, which the formats do not need.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ecgstore.io.assemble import refuse

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["child_text", "parse", "root_name"]

_MAX_DEPTH = 64
_MAX_TAGS = 1_000_000  # each makes an element of some 100 bytes, or ends one


class _Forbidden(ValueError):
    """The document declares or asks for something that is never followed."""


class _Root(Exception):
    """The first element has been seen."""


def parse(path: Path, data: bytes) -> Element:
    """Return the root element of a document; names of elements are without namespace.

    Args:
        path: The file, for messages.
        data: What it holds, in any encoding that its declaration or byte-order mark names.

    Raises:
        ReadError: It is empty, not XML, declares an entity, names an external one, or is nested
            more than 64 deep.
    """
    if not data:
        raise refuse(path, "empty file", "the file is empty")
    if data.count(b"<") > _MAX_TAGS:
        raise refuse(path, "forbidden content", f"it has more than {_MAX_TAGS} tags")
    builder = TreeBuilder()
    parser = _parser()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes it by position
        return _plain(builder.close())
    except _Forbidden as error:
        raise refuse(path, "forbidden content", str(error)) from error
    except (expat.ExpatError, LookupError, ValueError) as error:
        where = f" in line {error.lineno}" if isinstance(error, expat.ExpatError) else ""
        raise refuse(path, "bad header", f"it is not well-formed XML{where}") from error


@functools.lru_cache(maxsize=8)
def root_name(head: bytes) -> str | None:
    """Return the name of the first element of what may be the head of an XML document."""
    found: list[str] = []

    def start(name: str, _: dict[str, str]) -> None:
        found.append(_bare(name))
        raise _Root

    parser = _parser()
    parser.StartElementHandler = start
    try:
        parser.Parse(head, False)  # noqa: FBT003 - expat takes it by position
    except _Root:
        return found[0]
    except (_Forbidden, expat.ExpatError, LookupError, ValueError):
        return None
    return None


def child_text(element: Element | None, path: str) -> str | None:
    """Return the stripped text of the first descendant at a path, None where there is none."""
    text = None if element is None else element.findtext(path)
    return (text or "").strip() or None


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.EntityDeclHandler = _refuse_entity
    parser.UnparsedEntityDeclHandler = _refuse_entity
    parser.ExternalEntityRefHandler = _refuse_entity
    parser.SkippedEntityHandler = _refuse_entity
    return parser


def _plain(root: Element) -> Element:
    """Return a document without namespaces, if its elements are not nested too deep."""
    level = [root]
    for _ in range(_MAX_DEPTH):
        for element in level:
            if ":" in element.tag:
                element.tag = _bare(element.tag)
        level = [child for element in level for child in element]
        if not level:
            return root
    msg = f"its elements are nested more than {_MAX_DEPTH} deep"
    raise _Forbidden(msg)


def _refuse_entity(*_: object) -> int:
    msg = "it declares or names an entity, which no ECG needs"
    raise _Forbidden(msg)


@functools.lru_cache(maxsize=4096)
def _bare(name: str) -> str:
    return name.rpartition(":")[2]
