"""Tell by what fields and comments are called which of them name people.

What is found is only looked for where it must not stand, such as in the name of a file.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ecgstore.errors import ReadError
from ecgstore.io.layout import ALIASES, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ecgstore.io.layout import Array

__all__ = ["identities", "is_identity", "naming"]

_PEOPLE = re.compile(
    r"patient|subject|mrn|\bssn\b|physician|doctor|\b(?:dr|md|dob|born)\b|operator|technician|birth|"
    r"institution|hospital|clinic\b|referr|confirm|address|phone|accession|surname|(?:first|last)name",
    re.IGNORECASE,
)
_NAMES = re.compile(r"name|(?:\b|_)id\b", re.IGNORECASE)
_OF_THINGS = re.compile(
    r"lead|channel|sig|column|file|record|exam|data|device|model|unit", re.IGNORECASE
)
# One of these stands in all that matches: most headers have none, which is cheap to see.
_HINTS = (
    "patient", "subject", "mrn", "ssn", "physician", "doctor", "dr", "md", "dob", "born", "birth",
    "operator", "technician", "institution", "hospital", "clinic", "referr", "confirm", "address",
    "phone", "accession", "name", "id",
)  # fmt: skip
_KEYED = re.compile(r"([^:=]{1,40})[:=](.*)", re.DOTALL)
_NO_ONE = frozenset(alias for aliases in ALIASES.values() for alias in aliases)
_FAILURES = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError),
    ArithmeticError,
)
_MAX_FIELDS = 32  # of a file that name people: a hostile one has any number of them
_MAX_VALUES = 2**17
_MAX_COMMON = 1024
_MAX_TEXT = 256


def is_identity(key: str) -> bool:
    """Tell whether a field of this name holds who somebody is, or where.

    Example:
        >>> is_identity("Patient ID"), is_identity("lead_names"), is_identity("rate_hz")
        (True, False, False)
    """
    if key.strip().lower() in _NO_ONE:
        return False
    named = _NAMES.search(key) is not None and _OF_THINGS.search(key) is None
    return named or _PEOPLE.search(key) is not None


def naming(comments: Iterable[str]) -> tuple[str, ...]:
    """Return what may name people in lines of comments: of ``key: value`` the value.

    Example:
        >>> naming(["Age: 85", "Name: Jane Roe", "seen by Dr. Roe"])
        ('Jane Roe', 'seen by Dr. Roe')
    """
    lines = list(comments)
    text = "\n".join(lines).lower()
    if not any(hint in text for hint in _HINTS):
        return ()
    found = []
    for line in lines:
        keyed = _KEYED.fullmatch(line)
        if keyed is not None and is_identity(keyed[1]):
            found.append(keyed[2].strip())
        elif _PEOPLE.search(line):
            found.append(line.strip())
    return tuple(one for one in found if one)


def identities(
    names: Iterable[str], find: Callable[[str], Array | None], n_records: int
) -> Callable[[int], tuple[str, ...]]:
    """Return what tells of each row of a file the texts that name people.

    An array as long as there are records has one for each; others are of all records.

    Args:
        names: Arrays and attributes of the file.
        find: Returns the array or attribute of a name, None where there is none.
        n_records: Records in the file.
    """
    each: list[Sequence[str]] = []
    common: list[str] = []
    fields = [name for name in dict.fromkeys(names) if is_identity(re.split(r"[/.]", name)[-1])]
    for name in fields[:_MAX_FIELDS]:
        try:
            values = _values(find(name))
        except (ReadError, *_FAILURES):
            continue  # what cannot be read names nobody
        if len(values) == n_records > 1:
            each.append(values)
        else:
            common += values[:_MAX_COMMON]
    shared = tuple(one for one in common if one)
    return lambda row: (*shared, *(values[row] for values in each if values[row]))


def _values(array: Array | None) -> list[str]:
    if array is None:
        return []
    if not array.shape:
        return [text[:_MAX_TEXT] for text in texts(array[()])]
    if math.prod(array.shape) > _MAX_VALUES or array.dtype.itemsize > 4 * _MAX_TEXT:
        return []
    at_once = 64 if array.dtype.kind == "O" else 1024  # of texts that may be of any length
    return [
        text[:_MAX_TEXT]
        for start in range(0, array.shape[0], at_once)
        for text in texts(array[start : start + at_once])
    ]
