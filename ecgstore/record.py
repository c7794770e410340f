"""What one ECG is: its leads, their order and units, and the integers as the source stored them."""

from __future__ import annotations

import functools
import hashlib
import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = [
    "COLUMNS",
    "INVALID",
    "LEADS",
    "OTHER_LEADS",
    "Annotations",
    "Record",
    "Signal",
    "lead_name",
    "lead_signals",
    "signal_name",
]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order of every table and every model."""

COLUMNS = tuple(lead.lower() for lead in LEADS)
"""The column of ``waveforms`` that holds each lead of `LEADS`."""

INVALID = -32768
"""The integer that marks an invalid sample: WFDB's code for 16-bit signals (signal(5))."""

OTHER_LEADS = (
    *(f"V{number}" for number in (7, 8, 9)),
    *(f"V{number}R" for number in range(1, 10)),
    *("X", "Y", "Z", "MLI", "MLII", "MLIII", "MCL1", "MCL6", "CM2", "CM5", "CC5", "ML5", "NASA"),
)
"""Leads beyond the twelve whose names are known: right-sided and posterior precordial leads,
Frank's corrected orthogonal leads, and those of Holter and bedside recorders."""

# PTB spells Frank's leads vx vy vz
_BY_LOWER = {lead.lower(): lead for lead in (*LEADS, *OTHER_LEADS)} | {
    "vx": "X",
    "vy": "Y",
    "vz": "Z",
}
_STANDARD = frozenset(LEADS)
_AROUND = re.compile(
    r"^(?:ecg|ekg|lead|einthoven|goldberger|wilson|frank|mdc_ecg_lead)[ _:-]+"
    r"|\s*\((?:einthoven|goldberger|wilson|frank)\)$"
)


def lead_name(raw: str) -> str | None:
    """Return the standard name of a lead however it is spelt, or None for any other signal.

    Example:
        >>> lead_name("AVR"), lead_name("Lead I (Einthoven)"), lead_name("MLII")
        ('aVR', 'I', None)
    """
    name = signal_name(raw)
    return name if name in _STANDARD else None


@functools.lru_cache(maxsize=1024)  # archives spell the same few names a million times
def signal_name(raw: str) -> str:
    """Return the usual name of a lead however it is spelt; any other name as it is, stripped.

    Example:
        >>> signal_name("MDC_ECG_LEAD_AVL"), signal_name("vx"), signal_name("v4r")
        ('aVL', 'X', 'V4R')
        >>> signal_name(" PLETH ")
        'PLETH'
    """
    bare = raw.strip().lower()
    for _ in range(3):  # such as "ECG Lead I (Einthoven)"
        bare = _AROUND.sub("", bare).strip()
    return _BY_LOWER.get(bare, raw.strip())


class Signal(NamedTuple):
    """One signal of a record; a tuple, because twelve are made for every file read.

    Attributes:
        name: Its name as the source spells it.
        counts: ``(samples,)`` integers; int16 counts use `INVALID` for a lost sample.
        gain: Counts per unit.
        baseline: Count that stands for 0 units.
        unit: ``mV`` for everything measured in volts; else as the source spells it.
        rate_hz: Samples per second; None for those of the record.
        lost: ``(samples,)`` bool, true where a sample is invalid; None where `counts` says it.
    """

    name: str
    counts: NDArray[np.signedinteger]
    gain: float
    baseline: int
    unit: str = "mV"
    rate_hz: float | None = None
    lost: NDArray[np.bool_] | None = None


def lead_signals(
    leads: Sequence[str],
    digital: NDArray[np.int16],
    gain: NDArray[np.float64],
    baseline: NDArray[np.int32],
) -> list[Signal]:
    """Return a signal for each lead of a record, at the record's rate."""
    scales = zip(gain.tolist(), baseline.tolist(), strict=True)
    return [
        Signal(lead, counts, own_gain, own_baseline)
        for lead, counts, (own_gain, own_baseline) in zip(leads, digital, scales, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """What an annotator said of a record: beats, rhythms, waves, or events of a Holter.

    Attributes:
        annotator: Who: the suffix of a WFDB annotation file, such as ``atr``; ``edf``.
        time_s: ``(n,)`` float64 seconds from the first sample, ascending.
        sample: ``(n,)`` int64 sample as the source counts them; -1 where it gives times only.
        symbol: ``n`` codes in WFDB's letters (``N``, ``V``, ``+``, …); `"` for free text.
        subtype: ``(n,)`` int8.
        channel: ``(n,)`` int8, the signal it belongs to.
        number: ``(n,)`` int8, WFDB's ``num`` field.
        text: ``n`` auxiliary strings such as ``(AFIB``, None where there is none.
    """

    annotator: str
    time_s: NDArray[np.float64]
    sample: NDArray[np.int64]
    symbol: tuple[str, ...]
    subtype: NDArray[np.int8]
    channel: NDArray[np.int8]
    number: NDArray[np.int8]
    text: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.symbol)


@dataclass(frozen=True, eq=False)
class Record:
    """One ECG acquisition, as WFDB uses the word.

    Attributes:
        name: Name within its dataset, such as ``00001_hr``.
        leads: The signals in volts at the record's rate: standard leads in the order of `LEADS`,
            then the others in the order of the source; only those present.
        rate_hz: Samples per second of every lead.
        digital: ``(leads, samples)`` int16 ADC counts as stored; `INVALID` marks a lost sample.
        gain: ``(leads,)`` float64 ADC counts per millivolt.
        baseline: ``(leads,)`` int32 ADC count that stands for 0 mV.
        meta: What the source says besides: ``source_format``, ``recorded_at``, ``age``, …
        quality: Flags such as ``quantised``; see ``records.quality``.
        signals: What is not in volts, or sampled at another rate; `Signal.rate_hz` is given and
            counts are int16.
        annotations: What annotators said of it.
    """

    name: str
    leads: tuple[str, ...]
    rate_hz: float
    digital: NDArray[np.int16]
    gain: NDArray[np.float64]
    baseline: NDArray[np.int32]
    meta: Mapping[str, object] = field(default_factory=dict)
    quality: tuple[str, ...] = ()
    signals: tuple[Signal, ...] = ()
    annotations: tuple[Annotations, ...] = ()

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

    def plot(
        self,
        path: str | Path | None = None,
        *,
        start_s: float = 0.0,
        title: str | None = None,
        rhythm: str = "II",
        dpi: int = 150,
    ) -> Figure:
        """Draw the record on ECG paper, 25 mm/s and 10 mm/mV; see `ecgstore.paper.draw`.

        Args:
            path: PNG, SVG or PDF file to write, if any.
            start_s: Where to begin in a longer record, in seconds.
            title: What stands above, instead of the record's name.
            rhythm: The lead of the strip under the twelve.
            dpi: Dots an inch of a PNG.

        Returns:
            The matplotlib figure, which a notebook shows.

        Raises:
            UnknownNameError: The record has no such rhythm lead.
            UsageError: It has no leads, ends before ``start_s``, or cannot be written there.
        """
        paper = importlib.import_module("ecgstore.paper")  # which stands on this module
        figure: Figure = paper.draw(self, start_s=start_s, title=title, rhythm=rhythm, dpi=dpi)
        if path is not None:
            paper.save(figure, path)
        return figure

    @functools.cached_property
    def signal_sha256(self) -> str:
        """Digest of what the signal is: rate, leads, gain, baseline and every count.

        Signals in other units or at other rates count too, annotations do not.
        """
        head = f"{self.rate_hz!r}|{','.join(self.leads)}|{self.n_samples}|"
        digest = hashlib.sha256(head.encode())
        digest.update(np.ascontiguousarray(self.gain, dtype="<f8").data)
        digest.update(np.ascontiguousarray(self.baseline, dtype="<i4").data)
        digest.update(np.ascontiguousarray(self.digital, dtype="<i2").data)
        for one in self.signals:
            scale = f"{one.gain!r}|{one.baseline}|{one.unit}"
            digest.update(f"|{one.name}|{one.rate_hz!r}|{scale}|{len(one.counts)}|".encode())
            digest.update(np.ascontiguousarray(one.counts, dtype="<i2").data)
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
