"""Read the XML of Philips carts (PageWriter, HeartStart, TraceMasterVue): schema 1.03 to 1.04.01.

Samples are one text for all leads: XLI-compressed (`ecgstore.io.xli`), plain 16-bit in Base64, or
decimal numbers. Parameters stand in the attributes of ``parsedwaveforms`` (1.04) or in
``signalcharacteristics`` (1.03). In compressed files III, aVR, aVL and aVF are what is left of them
after a prediction from I and II. Many carts let every lead end in a calibration pulse.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.assemble import assemble, refuse
from ecgstore.io.clinical import age_of, measured, report_of, sex_of
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.xli import MAX_CHUNKS, XliError, decompress
from ecgstore.io.xml import child_text, parse, root_name
from ecgstore.record import LEADS, Signal, lead_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from ecgstore.record import Record

__all__ = ["READER", "read"]

_ROOT = "restingecgdata"
_TYPES = ("SierraECG", "PhilipsECG")
_VERSIONS = ("1.03", "1.04", "1.04.01")
_MAX_FILE_BYTES = 2**24  # XML takes many times its size in memory; carts write 0.25 MB
_NO_COMPRESSION = frozenset({"", "none", "uncompressed", "false"})
_STANDARD_SETS = ("STD-12", "10-WIRE")  # acquisition of the twelve leads, by ten electrodes
_PREDICTED = ("III", "aVR", "aVL", "aVF")
_PULSE_S = 0.1  # the pulse lasts 0.2 s in the files seen

# Where a file may have a measurement, in order of preference: the interpretation's own (1.04, 1.03)
# comes before the means over all beats.
_MEASURED = {
    "heart_rate": ("heartrate", "meanventrate"),
    "atrial_rate": ("atrialrate",),
    "rr": ("rrint",),
    "p_duration": ("pdur",),
    "pr": ("print", "meanprint"),
    "qrs": ("qrsdur", "meanqrsdur"),
    "qt": ("qtint", "meanqtint"),
    "qtc": ("qtc", "qtcb", "meanqtc"),
    "p_axis": ("pfrontaxis",),
    "qrs_axis": ("qrsfrontaxis",),
    "t_axis": ("tfrontaxis",),
}
# Sections that hold names and ids, and the elements in them that do. Names of departments and
# institutions are left out: they say "Heart Station", as statements do.
_SECTIONS = ("documentinfo", "userdefines", "orderinfo", "dataacquisition/acquirer", "patient")
_IDENTITY = re.compile(
    r"(?!department|institution|facility).*(?:id|number|editor|physician|clinician|operator)"
    r"|(?:last|first|middle)name|(?:ordering|referring|attending).*|mrn|ssn|value|filename"
)


def read(path: Path) -> Record:
    """Return the record of a file.

    Counts are those of the cart; the calibration pulse at the end of all leads is cut off and
    flagged ``calibration_removed:<samples>``. Beats that the cart averaged (``repbeats``) are no
    part of it. Channels beyond the named leads that hold a signal are flagged
    ``unnamed_signals:<n>``, further sets of waveforms ``other_waveforms:<n>``.

    Args:
        path: The ``.xml`` file.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path, limit=_MAX_FILE_BYTES)
    root = parse(path, data)
    _check_version(path, root)
    blocks = root.findall("waveforms/parsedwaveforms")
    if not blocks:
        raise refuse(path, "no signals", "it has no parsed waveforms")
    source = _Waveforms(path, root, blocks[0])
    counts, flags = source.counts()
    if len(blocks) > 1:
        flags.append(f"other_waveforms:{len(blocks) - 1}")
    identifiers = tuple(_identifiers(root))
    report, withheld = report_of(_statements(root), identifiers)
    recorded_at = _recorded_at(root)
    patient = root.find("patient/generalpatientdata")
    meta = {
        "source_format": "philips",
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "recorded_at": recorded_at,
        "age": _age(patient, recorded_at),
        "sex": sex_of(child_text(patient, "sex")),
        "device": child_text(root, "dataacquisition/machine"),
        "patient_id": child_text(patient, "patientid"),
        "measurements": _measurements(root),
        "report": report,
        "identifiers": identifiers,
    }
    signals = [
        Signal(name, row, source.gain, 0) for name, row in zip(source.names, counts, strict=True)
    ]
    return assemble(path, signals, rate_hz=source.rate_hz, meta=meta, quality=[*flags, *withheld])


def _matches(head: bytes, path: Path) -> bool:
    return root_name(head) == _ROOT


READER = Reader(
    name="philips",
    summary="Philips PageWriter and Sierra XML, schema 1.03, 1.04 and 1.04.01",
    suffixes=(".xml",),
    matches=_matches,
    read=read,
)


def _check_version(path: Path, root: Element) -> None:
    if root.tag != _ROOT:
        raise refuse(path, "bad header", f"it is no Philips XML, which begins with <{_ROOT}>")
    kind = child_text(root, "documentinfo/documenttype") or ""
    version = child_text(root, "documentinfo/documentversion") or ""
    if kind not in _TYPES or version not in _VERSIONS:
        found = f"document type {kind[:20]!r}, version {version[:20]!r}"
        known = f"{' or '.join(_TYPES)}, version {', '.join(_VERSIONS)}"
        detail = f"its {found} cannot be read, only {known}"
        hint = "Export it from the archive again as one of these, or as DICOM or HL7 aECG."
        raise refuse(path, "unsupported format", detail, hint=hint)


class _Waveforms:
    """The samples of all leads, and what the file says of them.

    Attributes:
        names: Of the leads, in the order of their samples.
        rate_hz: Samples per second.
        gain: Counts per millivolt.
    """

    def __init__(self, path: Path, root: Element, block: Element) -> None:
        self._path, self._block = path, block
        self._general = root.find("dataacquisition/signalcharacteristics")
        if not (
            _float(self._said("nbitspersample", "bitspersample") or "16") == 16
            and _float(self._said("signaloffset") or "0") == 0
            and (self._said("signalsigned") or "true").lower() == "true"
        ):
            detail = "its samples are not signed, of 16 bits and without offset"
            raise refuse(path, "unsupported format", detail)
        self.rate_hz = self._number("samplespersecond", "samplespersec", "samplingrate")
        self.gain = 1000 / self._number("resolution", "signalresolution")  # microvolts per count
        self.names = self._names(root)

    def counts(self) -> tuple[NDArray[np.int32], list[str]]:
        """Return ``(leads, samples)`` counts, and flags on what was left out."""
        n_leads, n_samples = len(self.names), self._n_samples()
        method = self._said("compressmethod", "compression") or ""
        if (self._said("compressflag") or "").lower() == "false":
            method = ""
        compressed = method.lower() not in _NO_COMPRESSION
        if compressed and method.upper() != "XLI":
            detail = f"its compression {method[:20]!r} is not XLI"
            raise refuse(self._path, "unsupported format", detail)
        channels = self._decompressed() if compressed else self._plain(n_samples)
        if len(channels) < n_leads:
            detail = f"it has {len(channels)} channels for {n_leads} leads"
            raise refuse(self._path, "truncated", detail)
        lengths = {len(one) for one in channels}
        if len(lengths) > 1 or (n_samples is not None and lengths != {n_samples}):
            found = " or ".join(str(length) for length in sorted(lengths)[:3])
            detail = f"its leads have {found} samples instead of {n_samples or 'one number'}"
            raise refuse(self._path, "truncated", detail)
        values = np.array(channels, np.int32)
        leads, others = values[:n_leads], values[n_leads:]
        if compressed:
            self._rebuild(leads)
        end = self._end_of_ecg(leads, compressed=compressed)
        flags = []
        if end < leads.shape[1]:
            flags.append(f"calibration_removed:{leads.shape[1] - end}")
        unnamed = int(others[:, :end].any(axis=1).sum())
        if unnamed:
            flags.append(f"unnamed_signals:{unnamed}")
        return leads[:, :end], flags

    def _said(self, *names: str) -> str | None:
        """Return the first of some parameters that is there: of the block, else in general."""
        for name in names:
            value = (self._block.get(name) or "").strip() or child_text(self._general, name)
            if value:
                return value
        return None

    def _number(self, *names: str) -> float:
        value = _float(self._said(*names) or "")
        if not 0 < value < 1e6:
            raise refuse(self._path, "bad header", f"its {names[0]} is missing or no number")
        return value

    def _names(self, root: Element) -> Sequence[str]:
        """Return the leads' names: in 1.03 the standard ones, or those of the measurements.

        The order of leads on paper (``mainwaveformformat``) says nothing of the samples.
        """
        names: Sequence[str] = (self._block.get("leadlabels") or "").split()
        announced = self._said("numberofleads", "numberchannelsvalid")
        standard = {self._said("leadset"), self._said("acquisitiontype")} & set(_STANDARD_SETS)
        if not names and standard and announced in {None, str(len(LEADS))}:
            names = LEADS
        if not names:
            measured_leads = (one.get("leadname") for one in root.iter("leadmeasurement"))
            names = list(dict.fromkeys(name for name in measured_leads if name))
        if not names or announced not in {None, str(len(names))}:
            raise refuse(self._path, "no leads", f"it names {len(names)} leads, not all")
        return names

    def _n_samples(self) -> int | None:
        duration_ms = self._said("durationperchannel")
        if duration_ms is None:
            return None
        return round(self._number("durationperchannel") * self.rate_hz / 1000)

    def _decoded(self) -> bytes:
        encoding = (self._said("dataencoding") or "Base64").lower()
        if encoding != "base64":
            detail = f"its encoding {encoding[:20]!r} is neither Base64 nor Plain"
            raise refuse(self._path, "unsupported format", detail)
        try:
            text = (self._block.text or "").encode("ascii").translate(None, b" \t\r\n")
            return base64.b64decode(text, validate=True)
        except ValueError as error:
            raise refuse(self._path, "bad samples", "its samples are not Base64") from error

    def _decompressed(self) -> list[NDArray[np.int16]]:
        try:
            return decompress(self._decoded())
        except XliError as error:
            raise refuse(self._path, "bad samples", f"XLI: {error}") from error

    def _plain(self, n_samples: int | None) -> Sequence[NDArray[np.integer]]:
        """Return uncompressed channels, one after the other as compressed ones are."""
        values: NDArray[np.integer]
        if (self._said("dataencoding") or "").lower() == "plain":
            values = self._written_out()
        else:
            raw = self._decoded()
            if len(raw) % 2:
                raise refuse(self._path, "truncated", "its samples end within a number")
            values = np.frombuffer(raw, "<i2")
        n_channels = len(values) // n_samples if n_samples else len(self.names)
        if not 0 < n_channels <= MAX_CHUNKS or len(values) % n_channels:
            detail = f"it has {len(values)} samples for {len(self.names)} leads"
            raise refuse(self._path, "truncated", detail)
        return values.reshape(n_channels, -1)  # type: ignore[return-value]

    def _written_out(self) -> NDArray[np.int64]:
        words = (self._block.text or "").replace(",", " ").split()
        try:
            values = np.array(words, np.int64)
        except (ValueError, OverflowError):
            values = None
        if values is None:  # raised here, without an error that quotes the sample
            raise refuse(self._path, "bad samples", "a sample is no whole number")
        if len(values) and max(-int(values.min()), int(values.max())) > 2**15:
            raise refuse(self._path, "bad samples", "its samples do not fit 16 bits")
        return values

    def _rebuild(self, leads: NDArray[np.int32]) -> None:
        """Put limb leads in the place of what is left of them after their prediction.

        The prediction is that of Einthoven and Goldberger in whole counts, halves cut towards
        zero; what is stored is to be taken from it. This follows from files: by this rule alone
        the pulse is +1 mV in all leads, and aVL and aVF are never more than half a count off
        (I - III) / 2 and (II + III) / 2 where III was stored as zeros; by another rounding 1.5.
        """
        row = {lead_name(name): leads[at] for at, name in enumerate(self.names)}
        if not row.keys() & set(_PREDICTED):
            return
        if not row.keys() >= {"I", "II", "III"}:
            detail = "its limb leads cannot be rebuilt without I, II and III"
            raise refuse(self._path, "unknown layout", detail)
        one, two, three = row["I"], row["II"], row["III"]
        three[:] = two - one - three
        for lead, twice in (("aVR", -one - two), ("aVL", one - three), ("aVF", two + three)):
            if lead in row:
                row[lead][:] = ((twice + (twice < 0)) >> 1) - row[lead]

    def _end_of_ecg(self, leads: NDArray[np.int32], *, compressed: bool) -> int:
        """Return where the calibration begins, the number of samples where there is none.

        It is 0 mV, then 1 mV, then 0 mV again up to the end, in all leads at once. Where leads
        are compressed, each sample is summed up from all before: one that misses the pulse of
        the others was not decoded rightly.
        """
        n_samples: int = leads.shape[1]
        pulses = [_pulse(lead, round(self.gain), self.rate_hz * _PULSE_S) for lead in leads]
        found = [pulse for pulse in pulses if pulse is not None]
        if not found or len(set(pulses)) > 1:
            if found and compressed:
                detail = f"XLI: only {len(found)} of {len(pulses)} leads end in a calibration pulse"
                raise refuse(self._path, "bad samples", detail)
            return n_samples
        rise, _ = found[0]
        ecg = np.flatnonzero(leads[:, :rise].any(axis=0))
        return int(ecg[-1]) + 1 if ecg.size else rise


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _pulse(lead: NDArray[np.int32], height: int, at_least: float) -> tuple[int, int] | None:
    """Return where the pulse in which a lead ends begins and ends, None where there is none."""
    busy = np.flatnonzero(lead)
    if not busy.size:
        return None
    after = int(busy[-1]) + 1
    other = np.flatnonzero(lead[:after] != height)
    rise = int(other[-1]) + 1 if other.size else 0
    flat = rise > 0 and lead[rise - 1] == 0
    return (rise, after) if flat and after - rise >= at_least else None


def _recorded_at(root: Element) -> dt.datetime | None:
    source = root.find("dataacquisition")
    if source is None:
        return None
    try:
        found = dt.datetime.fromisoformat(f"{source.get('date')}T{source.get('time')}")
    except ValueError:
        return None
    return found.replace(tzinfo=None)


def _age(patient: Element | None, recorded_at: dt.datetime | None) -> float | None:
    for unit in ("years", "months", "weeks", "days", "hours"):
        stated = age_of(child_text(patient, f"age/{unit}"), unit)
        if stated is not None:
            return stated
    try:
        born = dt.date.fromisoformat(child_text(patient, "age/dateofbirth") or "")
    except ValueError:
        return None
    return age_of(born=born, recorded=recorded_at.date() if recorded_at else None)


def _interpretation(root: Element) -> Element | None:
    """Return the latest interpretation: a physician's follows the cart's."""
    found = root.findall("interpretations/interpretation")
    return max(found, key=lambda one: (one.get("date", ""), one.get("time", "")), default=None)


def _statements(root: Element) -> Iterator[str | None]:
    latest = _interpretation(root)
    if latest is not None:
        yield from (child_text(one, "leftstatement") for one in latest.findall("statement"))
        yield child_text(latest, "severity")


def _measurements(root: Element) -> dict[str, float] | None:
    latest = _interpretation(root)
    sources = [
        None if latest is None else latest.find("globalmeasurements"),
        None if latest is None else latest.find("interpretationmeasurements"),
        root.find("internalmeasurements/crossleadmeasurements"),
        root.find("measurements/globalmeasurements"),
    ]
    found: dict[str, float] = {}
    for source in sources:
        for name, tags in _MEASURED.items():
            for tag in tags:
                found = (measured({name: child_text(source, tag)}) or {}) | found
    return found or None


def _identifiers(root: Element) -> Iterator[str]:
    for section in _SECTIONS:
        for one in root.iterfind(f"{section}//*"):
            if _IDENTITY.fullmatch(one.tag.lower()):
                texts = ((text or "").strip() for text in (one.text, one.get("id")))
                yield from (text for text in texts if len(text) > 1)
