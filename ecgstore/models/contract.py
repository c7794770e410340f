"""Contracts as plain rows: what a model does with a record, and how two models differ in it."""

from __future__ import annotations

import dataclasses
import difflib
from itertools import zip_longest
from typing import TYPE_CHECKING

from ecgstore.models.model import models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecgstore.models.spec import ModelSpec, Variant

__all__ = ["contracts", "describe", "diff", "show"]

_FEEDING = (
    "units",
    "resampler",
    "filters",
    "normalisation",
    "windows",
    "preparation",
    "least_rate_hz",
)
"""What a variant says."""

_HEAD = (
    "arch",
    "summary",
    "rate_hz",
    "window_s",
    "leads",
    "missing_leads",
    "lost_samples",
)
_TAIL = (
    "readouts",
    "dim",
    "licence",
    "licence_note",
    "commercial",
    "pretraining",
    "weights_source",
    "hub",
    "citations",
)


def describe(name: str) -> dict[str, object]:
    """Return the contract of a model as one row of plain values.

    Args:
        name: Registry name, with ``:variant`` where not the default, as in ``stmem:centre``.

    Raises:
        UnknownNameError: There is no such model or variant.
    """
    spec, variant = _named(name)
    return {
        "model": f"{spec.name}:{variant.name}".rstrip(":"),
        **_fields(spec, _HEAD),
        "variants": [one.name for one in spec.variants if one.name],
        **_fields(variant, _FEEDING),
        **_fields(spec, _TAIL),
        "known_weights": [f"{sha256}  {file}" for sha256, file in spec.known_weights],
    }


def contracts(pattern: str = "*") -> list[dict[str, object]]:
    """Return the contract of every model whose name matches, with the number of its leads."""
    rows = []
    for name in models.names(pattern):
        facts = {**describe(name), "model": name}
        rows.append({"model": name, "n_leads": len(models.get(name).spec.leads), **facts})
    return rows


def show(name: str) -> list[dict[str, object]]:
    """Return a contract as rows of ``field`` and ``value``, with all variants unless one is named.

    Raises:
        UnknownNameError: There is no such model or variant.
    """
    spec, facts = _named(name)[0], describe(name)
    if ":" not in name and len(spec.variants) > 1:
        facts = {**facts, "model": spec.name}
        for field in _FEEDING:
            del facts[field]
        for one in spec.variants:
            facts |= {f"{one.name}: {k}": value for k, value in _fields(one, _FEEDING).items()}
    return [{"field": field, "value": value} for field, value in facts.items()]


def diff(a: str, b: str, *, same: bool = False) -> list[dict[str, object]]:
    """Compare two contracts field by field, and their preparation line by line.

    Args:
        a: A model, ``model`` or ``model:variant``.
        b: Another one, or another variant.
        same: Whether to return what is equal too.

    Returns:
        Rows of ``field``, ``a`` and ``b``. A step of the preparation that only one has is None on
        the other side. With ``same`` a further column, ``equal``, tells the rows apart.

    Raises:
        UnknownNameError: There is no such model or variant.
    """
    rows: list[dict[str, object]] = []
    first, second = describe(a), describe(b)
    for field in first:
        pairs: list[tuple[str, object, object]] = [(field, first[field], second[field])]
        if field == "preparation":
            steps = _aligned(_named(a)[1].preparation, _named(b)[1].preparation)
            pairs = [(f"step {number}", *pair) for number, pair in enumerate(steps, start=1)]
        for name, one, other in pairs:
            equal = one == other
            if same:
                rows.append({"field": name, "a": one, "b": other, "equal": equal})
            elif not equal:
                rows.append({"field": name, "a": one, "b": other})
    return rows


def _named(name: str) -> tuple[ModelSpec, Variant]:
    """Return the spec and the variant that a name stands for."""
    bare, _, variant = name.partition(":")
    spec = models.get(bare).spec
    return spec, spec.variant(variant or None)


def _fields(facts: ModelSpec | Variant, names: Sequence[str]) -> dict[str, object]:
    return {name: _plain(getattr(facts, name)) for name in names}


def _plain(value: object) -> object:
    """Return a value as JSON knows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _aligned(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """Yield the lines of two texts side by side, equal ones beside each other."""
    for _, i, k, j, n in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        yield from zip_longest(a[i:k], b[j:n])
