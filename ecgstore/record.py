"""What one ECG is: its leads, their order and units, and the integers as the source stored them."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["COLUMNS", "INVALID", "LEADS", "Record", "lead_name"]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order of every table and every model."""

COLUMNS = tuple(lead.lower() for lead in LEADS)
"""The column of ``waveforms`` that holds each lead of `LEADS`."""

INVALID = -32768
"""The integer that marks an invalid sample: WFDB's code for 16-bit signals (signal(5))."""

_BY_LOWER = {lead.lower(): lead for lead in LEADS}
_PREFIX = re.compile(r"^(?:lead|ecg|mdc_ecg_lead)[ _-]+|\s*\(einthoven\)$")


def lead_name(raw: str) -> str | None:
    """Return the standard name of a lead however it is spelt, or None for any other signal.

    Example:
        >>> lead_name("AVR"), lead_name("Lead I (Einthoven)"), lead_name("MLII")
        ('aVR', 'I', None)
    """
    bare = _PREFIX.sub("", raw.strip().lower())
    return _BY_LOWER.get(_PREFIX.sub("", bare))


@dataclass(frozen=True, eq=False)
class Record:
    """One ECG acquisition, as WFDB uses the word.

    Attributes:
        name: Name within its dataset, such as ``00001_hr``.
        leads: Standard lead names in the order of `LEADS`; only those present.
        rate_hz: Samples per second of every lead.
        digital: ``(leads, samples)`` int16 ADC counts as stored; `INVALID` marks a lost sample.
        gain: ``(leads,)`` float64 ADC counts per millivolt.
        baseline: ``(leads,)`` int32 ADC count that stands for 0 mV.
        meta: What the source says besides: ``source_format``, ``recorded_at``, ``age``, …
        quality: Flags such as ``quantised``; see ``records.quality``.
    """

    name: str
    leads: tuple[str, ...]
    rate_hz: float
    digital: NDArray[np.int16]
    gain: NDArray[np.float64]
    baseline: NDArray[np.int32]
    meta: Mapping[str, object] = field(default_factory=dict)
    quality: tuple[str, ...] = ()

    @property
    def n_samples(self) -> int:
        """Samples per lead."""
        return int(self.digital.shape[1])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.rate_hz

    @property
    def signal_mv(self) -> NDArray[np.float64]:
        """The signal, ``(leads, samples)`` float64 millivolts, NaN where a sample is invalid."""
        mv = (self.digital.astype(np.float64) - self.baseline[:, None]) / self.gain[:, None]
        mv[self.digital == INVALID] = np.nan
        return mv

    @functools.cached_property
    def signal_sha256(self) -> str:
        """Digest of what the signal is: rate, leads, gain, baseline and every count."""
        head = f"{self.rate_hz!r}|{','.join(self.leads)}|{self.n_samples}|"
        digest = hashlib.sha256(head.encode())
        digest.update(np.ascontiguousarray(self.gain, dtype="<f8").data)
        digest.update(np.ascontiguousarray(self.baseline, dtype="<i4").data)
        digest.update(np.ascontiguousarray(self.digital, dtype="<i2").data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        return (
            f"Record({self.name!r}, {len(self.leads)} leads × {self.n_samples} samples, "
            f"{self.rate_hz:g} Hz)"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{self.name}</b>: {', '.join(self.leads)}; {self.duration_s:g} s, "
            f"{self.rate_hz:g} Hz"
        )
