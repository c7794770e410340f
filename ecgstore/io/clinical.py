"""What carts say besides the signal, reduced to what names nobody: age, sex, numbers, statements.

A birth date becomes an age and is forgotten. A statement is free text, in which carts print names
("Confirmed by Dr. ..."): it is kept only when every word of it belongs to the vocabulary of ECG
statements (`ecgstore.io.vocabulary`), else it is withheld and counted.
"""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.io.vocabulary import is_statement

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

__all__ = ["MEASUREMENTS", "age_of", "measured", "report_of", "sex_of"]

MEASUREMENTS: Mapping[str, str] = MappingProxyType(
    {
        "heart_rate": "bpm",
        "atrial_rate": "bpm",
        "rr": "ms",
        "p_duration": "ms",
        "pr": "ms",
        "qrs": "ms",
        "qt": "ms",
        "qtc": "ms",
        "p_axis": "deg",
        "qrs_axis": "deg",
        "t_axis": "deg",
        "p_onset": "ms",
        "p_offset": "ms",
        "qrs_onset": "ms",
        "qrs_offset": "ms",
        "t_offset": "ms",
    }
)
"""Global measurements that enter the warehouse, by name, with their unit."""

_SEX = {"m": "male", "male": "male", "f": "female", "female": "female", "w": "female"}
_MAX_AGE = 130.0
_YEARS_PER = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25, "h": 1 / 8766}
_NUMBER = re.compile(r"\s*([+-]?\d+(?:[.,]\d+)?)")


def sex_of(raw: str | None) -> str | None:
    """Return ``male`` or ``female`` for a word or letter, None for anything else.

    Example:
        >>> sex_of("MALE"), sex_of(" f "), sex_of("unknown")
        ('male', 'female', None)
    """
    return _SEX.get((raw or "").strip().lower())


def age_of(
    value: float | str | None = None,
    unit: str = "y",
    *,
    born: dt.date | None = None,
    recorded: dt.date | None = None,
) -> float | None:
    """Return the age in years that a file states, or that follows from a birth date.

    Args:
        value: The age as stated; what is no number, negative or beyond 130 years says nothing.
        unit: Its unit: a word that begins with y(ears), m(onths), w(eeks), d(ays) or h(ours).
        born: Birth date, used where no age is stated and then forgotten.
        recorded: Day of the recording.

    Example:
        >>> from datetime import date
        >>> age_of("54 years"), age_of(6, "months"), age_of(999)
        (54.0, 0.5, None)
        >>> age_of(born=date(1950, 6, 30), recorded=date(2020, 6, 29))
        69.0
    """
    match = _NUMBER.match(str(value)) if value is not None else None
    if match is not None:
        per = _YEARS_PER.get(unit.strip().lower()[:1], 1.0)
        age = float(match[1].replace(",", ".")) * per
        return age if 0 <= age <= _MAX_AGE else None
    if born is None or recorded is None:
        return None
    before = (recorded.month, recorded.day) < (born.month, born.day)
    years = recorded.year - born.year - before
    return float(years) if 0 <= years <= _MAX_AGE else None


def measured(values: Mapping[str, float | str | None]) -> dict[str, float] | None:
    """Return the measurements that are numbers, None where none is.

    Args:
        values: By a name of `MEASUREMENTS`; a number, its text, or None. Durations and rates that
            are not positive, and axes beyond 360 degrees, are a cart's words for "not measured".
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        unit = MEASUREMENTS[name]
        match = _NUMBER.fullmatch(str(value).strip()) if value is not None else None
        if match is None:
            continue
        number = float(match[1].replace(",", "."))
        usable = abs(number) <= 360 if unit == "deg" else 0 < number < 32_000
        if math.isfinite(number) and usable:
            found[name] = number
    return found or None


def report_of(
    statements: Iterable[str | None], identifiers: Iterable[str] = ()
) -> tuple[str | None, list[str]]:
    """Return the statements that name nobody, a line each, and the flag that tells of the others.

    Args:
        statements: As the file has them, in order.
        identifiers: Names and ids that the file holds elsewhere: a statement with one of them is
            withheld whatever its words.
    """
    said = [" ".join(text.split()) for text in statements if text and text.strip()]
    names = {part.lower() for one in identifiers for part in re.split(r"\W+", one) if len(part) > 1}
    kept = [
        text
        for text in said
        if is_statement(text) and not names & set(re.split(r"\W+", text.lower()))
    ]
    withheld = len(said) - len(kept)
    flags = [f"withheld_statements:{withheld}"] if withheld else []
    return "\n".join(kept) or None, flags
