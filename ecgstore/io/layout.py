"""Where the samples of a file of arrays are, and what they mean: what HDF5, MATLAB, NumPy share.

Such files hold numbers and seldom say what they are. What is missing comes from a known layout (a
public dataset's), from what arrays are called, or from the user, who wins. Nothing is guessed: a
file that leaves open which lead is which, at what rate or in what unit is refused, and the error
says what to declare.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ecgstore.io.assemble import MAX_VALUES, UNITS_PER_MV, refuse
from ecgstore.io.files import file_size
from ecgstore.record import LEADS, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ecgstore.errors import ReadError

__all__ = [
    "ALIASES",
    "KEYS",
    "STANDARD",
    "Array",
    "Layout",
    "declared",
    "is_known_lead",
    "layout_of",
    "missing",
    "per_millivolt",
    "rate_of",
    "texts",
]

KEYS: Mapping[str, str] = MappingProxyType(
    {
        "tracings": "the array of samples: a dataset or variable, such as signals/ecg",
        "ids": "the array with a name for each record",
        "rate": "samples per second, or the array or attribute that holds it, one or one a record",
        "leads": "names of the leads in order, such as I,II,V1, or the array that holds them",
        "unit": "unit of the samples, such as mV, uV, V or 0.1 mV, or the array that holds it",
        "axes": "dimensions in order, n for records, s samples, l leads: nsl, nls, ns, sl, ls, s",
        "gain": "of integers: counts per unit, one number or one a lead, or their array",
        "baseline": "of integers: the count that stands for 0, one or one a lead, or their array",
        "padding": "zeros, where short records are filled up with zeros, which are then cut off",
    }
)
"""Everything a layout may declare, with its meaning; `declared` takes nothing else."""

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tracings": ("tracings", "signal", "signals", "ecg", "ecgs", "val", "data"),
        "ids": ("ids", "id", "record_id", "record_ids", "exam_id"),
        "rate": ("rate_hz", "rate", "fs", "sampling_rate", "sample_rate", "sampling_frequency"),
        "leads": ("leads", "lead_names", "lead", "channels", "channel_names", "sig_name"),
        "unit": ("unit", "units"),
        "gain": ("gain", "adc_gain"),
        "baseline": ("baseline",),
    }
)
"""What arrays are called, in any case of letters, that mean a key of `KEYS`."""

STANDARD = ",".join(LEADS)
"""The twelve leads as a layout declares them."""

_MAX_SMALL = 4096  # leads, rates or gains; more than any ECG has
_MAX_RECORDS = 2**24  # CODE-15 has 345,779 in all; the largest archives known, 10 million
_AT_ONCE = 1024  # ids read at a time: a hostile file can repeat one long text in all of them
_MAX_NAME = 256
_UNIT = re.compile(r"(?:([\d.]+(?:e[+-]?\d+)?)\s*[*x×]?\s*)?([^\W\d]+)", re.IGNORECASE)


class Array(Protocol):
    """An array that may be on disk: a NumPy array or an HDF5 dataset."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        ...

    def __getitem__(self, index: slice | tuple[slice, ...], /) -> NDArray[Any]:
        """Load a part of it."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array of samples is to be read.

    Attributes:
        axes: A letter for each dimension: ``n`` records, ``s`` samples, ``l`` leads.
        leads: Their names.
        rates_hz: Samples per second, one number or one a record.
        n_samples: Samples of each lead.
        names: Name of each record.
        per_mv: ``(leads,)`` units of the samples in one millivolt; None where the file does not
            say and one may be assumed.
        units: Unit of each lead that is not in volts, None for those that are.
        gain: ``(leads,)`` counts per unit; None where samples are in the unit itself.
        baseline: ``(leads,)`` count that stands for 0.
        padded: Whether zeros on both sides are no ECG.
    """

    axes: str
    leads: tuple[str, ...]
    rates_hz: tuple[float, ...]
    n_samples: int
    names: Sequence[str]
    per_mv: NDArray[np.float64] | None
    units: tuple[str | None, ...] | None = None
    gain: NDArray[np.float64] | None = None
    baseline: NDArray[np.int64] | None = None
    padded: bool = False


def declared(
    path: Path, layout: Mapping[str, str], *, keys: Iterable[str] = KEYS
) -> dict[str, str]:
    """Return a layout as a user declared it, after a look at its keys.

    Args:
        path: The file.
        layout: Key to value, all texts.
        keys: Those of `KEYS` that mean something in this format.

    Raises:
        ReadError: A key is not known, or has no value.
    """
    keys = list(keys)
    for key, value in layout.items():
        if key not in keys or not str(value).strip():
            what = "has no value" if key in keys else "is not a key of a layout"
            known = "; ".join(f"{name}: {KEYS[name]}" for name in keys)
            raise refuse(path, "unknown layout", f"{key[:20]!r} {what}", hint=f"Keys: {known}.")
    return {key: str(value).strip() for key, value in layout.items()}


def missing(path: Path, key: str, what: str) -> ReadError:
    """Return the error for something the file does not say and that must be declared."""
    example = {"leads": "I,II,V1", "rate": "500", "unit": "mV", "axes": "ls"}.get(key, "…")
    reason = "no leads" if key == "leads" else "unknown layout"
    hint = f"Declare {key!r} in the layout, such as --map {key}={example} ({KEYS[key]})."
    return refuse(path, reason, what, hint=hint)


def layout_of(
    path: Path,
    said: Mapping[str, str],
    *,
    names: Sequence[str],
    find: Callable[[str], Array | None],
    assume_unit: bool = False,
) -> tuple[Layout, str]:
    """Return how a file's array of samples is to be read, and its name.

    Args:
        path: The file.
        said: What a known layout and the user declare.
        names: Arrays and attributes of the file, whose names may say the rest.
        find: Returns the array or attribute of a name, None where there is none.
        assume_unit: Leave the unit of a file of one record open rather than refuse it.

    Raises:
        ReadError: Something is missing, contradicts itself, or is larger than any ECG.
    """
    own = {name.lower(): name for name in reversed(names)}
    called = {key: [own[one] for one in aliases if one in own] for key, aliases in ALIASES.items()}
    hints = {key: found[0] for key, found in called.items() if found}
    source = _Source(path, {**hints, **said}, find)
    if "tracings" not in source.said:
        detail = f"nothing says which of its {len(names)} arrays holds the samples"
        raise missing(path, "tracings", detail)
    name = source.said["tracings"]
    array = source.array("tracings", math.inf)
    if array.dtype.kind not in "fiu" or not 1 <= len(array.shape) <= 3:
        detail = f"{name[:20]!r} is no array of real numbers with one to three dimensions"
        raise refuse(path, "unknown layout", detail)
    if "leads" not in source.said:
        raise missing(path, "leads", f"nothing says which leads {name[:20]!r} holds")
    leads = source.leads()
    axes = _axes(path, array.shape, leads, source.said.get("axes"))
    sizes = dict(zip(axes, array.shape, strict=True))
    n_records = sizes.get("n", 1)
    if not n_records * sizes["s"]:
        raise refuse(path, "no samples", "there are no samples")
    most = min(_MAX_RECORDS, file_size(path))  # a record takes more than a byte, however packed
    if n_records > most or sizes["s"] * len(leads) > MAX_VALUES:
        raise refuse(path, "too large", f"{n_records} records of {sizes['s']} samples")
    if "rate" not in source.said:
        raise missing(path, "rate", "nothing says the sampling rate")
    rates = tuple(rate_of(path, rate) for rate in source.numbers("rate", n_records))
    if len(rates) not in {1, n_records}:
        raise refuse(path, "unknown layout", f"{len(rates)} rates for {n_records} records")
    if "unit" not in source.said and not (assume_unit and "n" not in axes):
        raise missing(path, "unit", "nothing says the unit of the samples")
    gain, baseline = source.each("gain", len(leads)), source.each("baseline", len(leads))
    if gain is not None and not gain.all():
        raise refuse(path, "bad header", "a gain is zero")
    if baseline is not None and (gain is None or (baseline % 1).any() or _beyond(baseline)):
        raise refuse(path, "bad header", "a baseline is no whole number, or has no gain")
    padding = source.said.get("padding")
    if padding not in {None, "zeros"}:
        raise refuse(path, "unknown layout", f"padding {padding[:20]!r} is not 'zeros'")
    found = Layout(
        axes=axes,
        leads=leads,
        rates_hz=rates,
        n_samples=sizes["s"],
        names=source.ids(n_records, many="n" in axes),
        per_mv=source.per_mv(len(leads)) if "unit" in source.said else None,
        gain=gain,
        baseline=None if baseline is None else baseline.astype(np.int64),
        padded=padding is not None,
    )
    return found, name


def texts(values: object) -> list[str]:
    """Return an array or value as texts, one for each element."""
    return [_text(one) for one in np.asarray(values).reshape(-1).tolist()]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip(" \0")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip(" \0")


def rate_of(path: Path, raw: float | str) -> float:
    """Return a sampling rate in Hz.

    Raises:
        ReadError: It is no number, or none that an ECG is sampled at.
    """
    try:
        rate = float(raw)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1e6:
        raise refuse(path, "bad header", "the sampling rate is no number above zero")
    return rate


def per_millivolt(unit: str) -> float | None:
    """Return how many of a unit make one millivolt, None for what is not in volts.

    Example:
        >>> per_millivolt("uV"), per_millivolt("0.1 mV"), per_millivolt("mmHg")
        (1000.0, 10.0, None)
    """
    match = _UNIT.fullmatch(unit.strip())
    factor = UNITS_PER_MV.get(match[2].lower()) if match else None
    try:
        step = float(match[1] or 1) if match else 0.0
    except ValueError:
        return None
    return factor / step if factor and 0 < step < math.inf else None


def is_known_lead(name: str) -> bool:
    """Tell whether a name is that of a lead, standard or other."""
    lower = name.strip().lower()
    return signal_name(lower) != lower


def _beyond(values: NDArray[np.float64]) -> bool:
    return bool((np.abs(values) >= 2**31).any())


def _axes(path: Path, shape: Sequence[int], leads: Sequence[str], said: str | None) -> str:
    """Return what each dimension is: as declared, or the one order that the leads leave."""
    n_leads = len(leads)

    def fits(axes: str) -> bool:
        return (dict(zip(axes, shape, strict=True)).get("l", 1)) == n_leads

    if said is not None:
        letters = set(said)
        if len(letters) != len(said) or not {"s"} <= letters <= set("nsl"):
            raise missing(path, "axes", f"axes {said[:20]!r} are not s with n or l, each once")
        if len(said) != len(shape) or not fits(said):
            detail = f"axes {said!r} with {n_leads} leads do not fit the shape {tuple(shape)}"
            raise refuse(path, "unknown layout", detail)
        return said
    usual = {1: ("s",), 2: ("ls", "sl"), 3: ("nls", "nsl")}[len(shape)]
    found = [axes for axes in usual if fits(axes)]
    if len(found) != 1:
        detail = f"the shape {tuple(shape)} does not tell where the {n_leads} leads are"
        raise missing(path, "axes", detail)
    return found[0]


@dataclass(frozen=True, slots=True)
class _Source:
    """Looks up in a file what its layout refers to."""

    path: Path
    said: Mapping[str, str]
    find: Callable[[str], Array | None]

    def array(self, key: str, most: float = _MAX_SMALL) -> Array:
        found = self.find(self.said[key])
        if found is None:
            raise missing(self.path, key, f"there is no array {self.said[key][:40]!r} in it")
        if found.dtype.itemsize > _MAX_SMALL or math.prod(found.shape) > most:
            raise refuse(self.path, "too large", f"the array of {key!r} is larger than any")
        return found

    def small(self, key: str) -> list[str]:
        return texts(self.array(key)[()])

    def leads(self) -> tuple[str, ...]:
        said = self.said["leads"]
        if "," not in said and self.find(said) is not None:
            found = self.small("leads")
            if len(found) == 1:  # one text with all of them
                found = re.split(r"\s*[,;]\s*", found[0])
        elif "," in said or is_known_lead(said):
            found = [name.strip() for name in said.split(",")]
        else:
            detail = f"{said[:40]!r} is neither an array in it nor the name of a lead"
            raise missing(self.path, "leads", detail)
        if not found or not all(found):
            raise missing(self.path, "leads", "a lead has no name")
        return tuple(name[:_MAX_NAME] for name in found)

    def numbers(self, key: str, most: int = _MAX_SMALL) -> list[float]:
        said = self.said[key]
        try:
            found = [float(one) for one in said.split(",")]
        except ValueError:
            found = [_float(one) for one in texts(self.array(key, most)[()])]
        if not all(map(math.isfinite, found)):
            raise refuse(self.path, "bad header", f"{key!r} is not a number")
        return found

    def each(self, key: str, n_leads: int) -> NDArray[np.float64] | None:
        """Return a number for every lead, None where nothing is said."""
        if key not in self.said:
            return None
        found = self.numbers(key)
        if len(found) not in {1, n_leads}:
            detail = f"{key!r} has {len(found)} values for {n_leads} leads"
            raise refuse(self.path, "unknown layout", detail)
        return np.broadcast_to(np.array(found, np.float64), (n_leads,))

    def per_mv(self, n_leads: int) -> NDArray[np.float64]:
        said = self.said["unit"]
        plain = per_millivolt(said)
        found = [said] if plain is not None or self.find(said) is None else self.small("unit")
        steps = [per_millivolt(unit) for unit in found]
        if len(steps) not in {1, n_leads} or None in steps:
            detail, hint = "the unit of its samples is not one of volts", f"unit: {KEYS['unit']}."
            raise refuse(self.path, "unknown unit", detail, hint=hint)
        return np.broadcast_to(np.array(steps, np.float64), (n_leads,))

    def ids(self, n_records: int, *, many: bool) -> list[str]:
        stem = self.path.stem
        if "ids" not in self.said or not many:
            return [f"{stem}_{row}" for row in range(n_records)] if many else [stem]
        array = self.array("ids", math.inf)
        if math.prod(array.shape) != n_records or array.shape[0] != n_records:
            detail = f"'ids' has shape {tuple(array.shape)} for {n_records} records"
            raise refuse(self.path, "unknown layout", detail)
        names: list[str] = []
        for start in range(0, n_records, _AT_ONCE):
            names += texts(array[start : start + _AT_ONCE])
            if any(not name or len(name) > _MAX_NAME for name in names[start:]):
                detail = f"an id is empty or longer than {_MAX_NAME} characters"
                raise refuse(self.path, "unknown layout", detail)
        return names


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
