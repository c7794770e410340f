"""The invented people, how each writes their names, and the search for all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JANE", "OTTO", "SAID", "STAFF", "Person", "found_in", "spellings"]


@dataclass(frozen=True)
class Person:
    """A patient who does not exist.

    Attributes:
        family: Family name.
        given: Given name.
        number: The hospital's id.
        other: Another number: of the order, account or telephone.
        born: Year, month and day.
    """

    family: str
    given: str
    number: str
    other: str
    born: tuple[int, int, int]

    @property
    def ymd(self) -> str:
        return "{:04}{:02}{:02}".format(*self.born)

    @property
    def iso(self) -> str:
        return "{:04}-{:02}-{:02}".format(*self.born)

    @property
    def dmy(self) -> str:
        """29-JUL-1931, as EDF+ has it."""
        year, month, day = self.born
        return f"{day:02}-{_MONTHS[month - 1]}-{year}"

    @property
    def us(self) -> str:
        year, month, day = self.born
        return f"{month:02}-{day:02}-{year}"


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

JANE = Person("Quenbyhart", "Xyvolta", "73190046", "58823071", (1931, 7, 29))
OTTO = Person("Vantrumble", "Ozwinn", "61428835", "90517726", (1944, 11, 8))

STAFF = ("Zorblatt", "Wexelby", "Krindlemay")
"""Physicians and technicians."""

_PLACES = ("Floonhaven", "Drubbelgate")
_NUMBERS = ("4711234", "555-0173", "12-MAR-1998")

SAID = (
    f"Confirmed by DR {STAFF[0].upper()} 4711234",
    "Compared with ECG of 12-MAR-1998",
    f"Referred by: {STAFF[1]}, Floonhaven ward, tel. 555-0173",
    "Patient {0.given} {0.family} born {0.dmy}",
    "{0.family}, {0.given}",
    "Sinus rhythm, {0.family}",
    "seen before under {0.number} and {0.other}",
    "DOB 29.07.1931 or 07/29/1931",
)
"""Statements and notes that name somebody; a person fills in the rest."""


def spellings() -> list[str]:
    """Return everything that is searched for."""
    found = [*STAFF, *_PLACES, *_NUMBERS]
    for one in (JANE, OTTO):
        year, month, day = one.born
        name = _MONTHS[month - 1]
        found += [one.family, one.given, one.number, one.other, one.iso, one.dmy, one.ymd, one.us]
        found += [f"{day:02}.{month:02}.{year}", f"{month:02}/{day:02}/{year}"]
        found += [f"{day:02}{month:02}{year}", f"{day:02} {name} {year}", f"{day:02}{name}{year}"]
    return found


_WIDE = [
    form
    for text in spellings()
    for form in (text.lower().encode(), text.lower().encode("utf-16-le"))
]
_PATTERN = re.compile(b"|".join(re.escape(one) for one in _WIDE))


def found_in(data: bytes | str) -> Iterator[str]:
    """Yield what a text or file holds of the people, in any case of letters."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    for match in _PATTERN.finditer(raw.lower()):
        yield match[0].decode("latin-1")
