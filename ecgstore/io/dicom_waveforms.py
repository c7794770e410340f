"""Decode the multiplex groups of a DICOM waveform object (PS3.3, C.10.9) into signals.

Groups of the continuous ECG become the record, averaged beats do not. Where the ECG is spread over
several groups, such as the four of a 3 x 4 printout, each lead is put on the common time axis at
the time its group states, and is invalid outside: nothing is shifted to look simultaneous.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.assemble import MAX_VALUES
from ecgstore.io.dicom_file import DicomError
from ecgstore.io.dicom_leads import channel_name
from ecgstore.io.scale import Scale, decimal, scale_of
from ecgstore.record import INVALID, LEADS, Signal, signal_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.io.dicom_file import Node

__all__ = ["Waveforms", "waveforms"]

_MAX_GROUPS = 64
_MAX_CHANNELS = 512
# PS3.3, C.10.9.1.5: waveform sample interpretation. The 8-bit companded ones (MB, AB) are of sound.
_DTYPES: Mapping[str, str] = MappingProxyType(
    {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
)
_BEAT_WORDS = ("BEAT", "MEDIAN", "AVERAGE", "MEAN", "TEMPLATE", "REPRESENTATIVE")
_UNSCALED = Scale(1.0, 0, "", exact=True)
# PS3.3, C.10.9.1.4.2: channel status; OK is the one left out.
_STATUSES = frozenset(
    ["TEST DATA", "DISCONNECTED", "QUESTIONABLE", "INVALID", "UNCALIBRATED", "UNZEROED"]
)


@dataclass(frozen=True)
class Waveforms:
    """The continuous ECG of a file.

    Attributes:
        signals: One for each lead.
        rate_hz: Samples per second of the first group.
        flags: What a user should know.
    """

    signals: list[Signal]
    rate_hz: float
    flags: list[str]


@dataclass(frozen=True)
class _Group:
    """One multiplex group: signals of one rate and length that begin at one time.

    The offset is None where the file does not relate its groups in time (PS3.3, C.10.9.1.1).
    """

    signals: list[Signal]
    rate_hz: float
    offset_s: float | None
    n_samples: int


def waveforms(root: Node) -> Waveforms:
    """Return the continuous ECG of a waveform object.

    Flags: ``padding_value:0`` where samples equal to the padding value are kept because they
    cannot be told from signal; ``channel_skew:<lead>,…``; ``baseline_rounded``;
    ``sequential_groups:<n>`` where leads were recorded one group after the other;
    ``unsynchronised_groups:<n>`` where nothing says so, and they are taken to begin together;
    ``repeated_lead:<lead>`` where another group holds the same time of a lead, which is left out;
    ``derived_waveform`` where the only continuous ECG was computed by the device;
    ``left_out_groups:<n>``; ``disconnected:<lead>`` and so on for what a channel says of itself.

    Raises:
        DicomError: No continuous ECG, or one that contradicts itself.
    """
    nodes = root.items("WaveformSequence", limit=2**31)
    if len(nodes) > _MAX_GROUPS:
        msg = f"it has {len(nodes)} multiplex groups"
        raise DicomError(msg, "too large")
    if not nodes:
        msg = "it has no waveforms"
        raise DicomError(msg, "no signals")
    chosen, flags = _continuous(nodes)
    groups = [_group(node, flags) for node in chosen]
    signals = [
        signal
        for rate in dict.fromkeys(group.rate_hz for group in groups)
        for signal in _joined([one for one in groups if one.rate_hz == rate], flags)
    ]
    return Waveforms(signals, groups[0].rate_hz, list(dict.fromkeys(flags)))


def _continuous(nodes: Sequence[Node]) -> tuple[list[Node], list[str]]:
    """Return the groups that are no averaged beats, and flags."""
    whole = [node for node in nodes if not _is_beat(node)]
    original = [node for node in whole if node.text("WaveformOriginality").upper() != "DERIVED"]
    if original:
        left_out = len(whole) - len(original)
        return original, [f"left_out_groups:{left_out}"] if left_out else []
    rhythm = [node for node in whole if "RHYTHM" in node.text("MultiplexGroupLabel").upper()]
    if not rhythm:
        msg = "it holds averaged beats and no continuous ECG"
        raise DicomError(msg, "no signals")
    return rhythm, ["derived_waveform"]


def _is_beat(node: Node) -> bool:
    label = node.text("MultiplexGroupLabel").upper()
    return any(word in label for word in _BEAT_WORDS)


def _group(node: Node, flags: list[str]) -> _Group:
    n_channels = node.integer("NumberOfWaveformChannels") or 0
    n_samples = node.integer("NumberOfWaveformSamples", size=4) or 0
    rate_hz = node.number("SamplingFrequency") or 0.0
    channels = node.items("ChannelDefinitionSequence")
    if not 0 < n_channels <= _MAX_CHANNELS or len(channels) != n_channels:
        msg = f"{n_channels} channels announced, {len(channels)} described"
        raise DicomError(msg)
    if n_samples == 0:
        msg = "a group has no samples"
        raise DicomError(msg, "no samples")
    if not 0 < rate_hz < 1e6:
        msg = "a sampling frequency is missing or out of range"
        raise DicomError(msg)
    frames, lost = _decode(node, n_channels, n_samples, flags)
    _check_bits(node, channels, frames, lost)
    signals = [
        _signal(channel, number, rate_hz, frames[number - 1], lost[number - 1], flags)
        for number, channel in enumerate(channels, 1)
    ]
    offset_ms = node.number("MultiplexGroupTimeOffset")
    return _Group(signals, rate_hz, None if offset_ms is None else offset_ms / 1000, n_samples)


def _decode(
    node: Node, n_channels: int, n_samples: int, flags: list[str]
) -> tuple[NDArray[np.signedinteger], NDArray[np.bool_]]:
    """Return counts and lost samples, both ``(channels, samples)``."""
    kind = node.text("WaveformSampleInterpretation")
    dtype = np.dtype(_DTYPES.get(kind, "V1"))
    if kind not in _DTYPES or (dtype.itemsize == 1 and node.byte_order == "big"):
        msg = f"its samples are of kind {kind[:4]!r}"
        raise DicomError(msg, "unsupported format")
    bits = node.integer("WaveformBitsAllocated")
    if bits not in {None, 8 * dtype.itemsize}:
        msg = f"{bits} bits a sample contradict the kind of its samples, {kind}"
        raise DicomError(msg)
    dtype = dtype.newbyteorder(node.byte_order)
    data = node.data("WaveformData")
    size = n_channels * n_samples * dtype.itemsize
    if len(data) < size:
        msg = f"{size} bytes of samples expected, {len(data)} found"
        raise DicomError(msg, "truncated")
    if len(data) > size + 1:  # PS3.5, 7.1.1: values are padded to an even length
        flags.append(f"ignored_bytes:{len(data) - size}")
    frames = np.frombuffer(data, dtype, n_channels * n_samples).reshape(n_samples, n_channels).T
    lost = _lost(frames, node.data("WaveformPaddingValue"), flags)
    wider = {"u1": np.int16, "i1": np.int16, "u2": np.int32, "u4": np.int64}
    return frames.astype(wider.get(dtype.str[1:], dtype.newbyteorder("=")), order="C"), lost


def _lost(frames: NDArray[np.integer], padding: bytes, flags: list[str]) -> NDArray[np.bool_]:
    """Return where samples are invalid.

    The most negative number is no signal in what is written by carts, whether or not they declare
    it as padding (PS3.3, C.10.9.1.7). A padding value amid the other samples, such as 0, cannot be
    told from signal: such samples are kept and the record is flagged.
    """
    kind = frames.dtype
    lowest = np.iinfo(kind).min
    lost = frames == lowest if lowest < 0 else np.zeros(frames.shape, np.bool_)
    if len(padding) < kind.itemsize:
        return lost
    value = np.frombuffer(padding, kind, 1)[0]
    padded = frames == value
    others = frames[~(padded | lost)]
    if padded.any() and others.size and others.min() < value < others.max():
        flags.append(f"padding_value:{value}")
        return lost
    return np.asarray(lost | padded)


def _check_bits(
    node: Node,
    channels: Sequence[Node],
    frames: NDArray[np.signedinteger],
    lost: NDArray[np.bool_],
) -> None:
    """Refuse samples that do not fit the bits they are said to be stored in.

    PS3.5, 8.3: the other bits repeat the sign; where a writer left it out, negative samples would
    be read as large positive ones.
    """
    signed = node.text("WaveformSampleInterpretation")[0] == "S"
    for number, channel in enumerate(channels, 1):
        bits = channel.integer("WaveformBitsStored") or 64
        if bits >= 8 * frames.itemsize:
            continue
        known = frames[number - 1][~lost[number - 1]]
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
        if known.size and not (low <= known.min() and known.max() < high):
            msg = f"samples of channel {number} do not fit the {bits} bits they are stored in"
            raise DicomError(msg, "bad samples")


def _signal(
    channel: Node,
    number: int,
    rate_hz: float,
    counts: NDArray[np.signedinteger],
    lost: NDArray[np.bool_],
    flags: list[str],
) -> Signal:
    name = channel_name(channel, number)
    gain, baseline, unit, exact = _scale(channel, signal_name(name))
    if not exact:
        flags.append("baseline_rounded")
    status = channel.text("ChannelStatus").upper()
    if status in _STATUSES:
        flags.append(f"{status.lower().replace(' ', '_')}:{name[:20]}")
    if any(channel.number(f"Channel{of}Skew") for of in ("Sample", "Time")):
        flags.append(f"channel_skew:{name[:20]}")
    plain = counts.dtype == np.int16 and not (lost & (counts != INVALID)).any()
    return Signal(name, counts, gain, baseline, unit, rate_hz, None if plain else lost)


def _scale(channel: Node, name: str) -> Scale:
    """Return the scale of a channel; an ECG lead must have one in volts.

    PS3.3, C.10.9.1.4: units = samples x sensitivity x correction factor + baseline, all in the
    units of the sensitivity.
    """
    units = next(iter(channel.items("ChannelSensitivityUnitsSequence")), None)
    unit = units.code()[:20] if units else ""
    step = decimal(channel.text("ChannelSensitivity"))
    factor = decimal(channel.text("ChannelSensitivityCorrectionFactor") or "1")
    offset = decimal(channel.text("ChannelBaseline") or "0")
    known = None
    if step is not None and factor is not None and offset is not None:
        known = scale_of(step * factor, offset, unit)
    if name in LEADS and (known is None or known.unit != "mV"):
        msg = f"lead {name} has no scale in volts"
        raise DicomError(msg, "unknown unit")
    return known or _UNSCALED


def _joined(groups: Sequence[_Group], flags: list[str]) -> list[Signal]:
    """Return the signals of groups of one rate on one time axis."""
    if len(groups) == 1:
        return groups[0].signals
    rate_hz = groups[0].rate_hz
    if any(group.offset_s is None for group in groups):
        flags.append(f"unsynchronised_groups:{len(groups)}")
    offsets = [group.offset_s or 0.0 for group in groups]
    starts = [round((offset - min(offsets)) * rate_hz) for offset in offsets]
    ends = [start + group.n_samples for start, group in zip(starts, groups, strict=True)]
    n_samples = max(ends)
    if len({(start, end) for start, end in zip(starts, ends, strict=True)}) > 1:
        flags.append(f"sequential_groups:{len(groups)}")
    if n_samples > 2 * sum(group.n_samples for group in groups):
        msg = "its groups lie far apart in time"
        raise DicomError(msg, "too large")
    if n_samples * sum(len(group.signals) for group in groups) > MAX_VALUES:
        msg = f"more than {MAX_VALUES} samples"
        raise DicomError(msg, "too large")
    parts: dict[str, list[tuple[int, Signal]]] = {}
    for start, group in sorted(zip(starts, groups, strict=True), key=lambda one: -one[1].n_samples):
        for signal in group.signals:
            parts.setdefault(signal_name(signal.name), []).append((start, signal))
    return [_on_axis(pieces, n_samples, flags) for pieces in parts.values()]


def _on_axis(pieces: Sequence[tuple[int, Signal]], n_samples: int, flags: list[str]) -> Signal:
    """Return one lead of `n_samples` from pieces that begin at given samples, the longest first."""
    first = pieces[0][1]
    if len(pieces) == 1 and len(first.counts) == n_samples:
        return first
    counts = np.zeros(n_samples, np.result_type(*(signal.counts for _, signal in pieces)))
    lost = np.ones(n_samples, np.bool_)
    taken = np.zeros(n_samples, np.bool_)
    for start, signal in pieces:
        here = slice(start, start + len(signal.counts))
        same = (signal.gain, signal.baseline, signal.unit) == (
            first.gain,
            first.baseline,
            first.unit,
        )
        if not same or taken[here].any():
            flags.append(f"repeated_lead:{first.name[:20]}")
            continue
        counts[here] = signal.counts
        lost[here] = signal.counts == INVALID if signal.lost is None else signal.lost
        taken[here] = True
    return first._replace(counts=counts, lost=lost)
