"""Name the lead that a DICOM channel holds: by code, by meaning, or by the channel's label."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecgstore.io.dicom_file import DicomError
from ecgstore.record import LEADS, lead_name, signal_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecgstore.io.dicom_file import Node

__all__ = ["channel_name"]

# Lead numbers of ISO/IEEE 11073-10101 (MDC, partition 2) and SCP-ECG (EN 1064, 5.6.3), which are
# the same; PS3.16, CID 3001 writes them "2:61" and "5.6.3-9-61". Numbers that CID 3001 gives to
# derived leads (31-38, 111-114) are no leads of LEADS: those were computed from other electrodes.
_LEADS: Mapping[int, str] = MappingProxyType(
    {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
    | {number + 2: f"V{number}" for number in range(1, 8)}
    | {number + 8: f"V{number}R" for number in range(2, 8)}
    | {16: "X", 17: "Y", 18: "Z", 19: "CC5", 20: "CM5"}
    | {66: "V8", 67: "V9", 68: "V8R", 69: "V9R"}
)
_CODE = re.compile(r"(?:5\.6\.3-9-|2: ?)(\d{1,3})")
_MDC_PARTITION = 2 << 16  # MDC codes are also written as one number, partition * 65536 + code
_NAME_LENGTH = 40


def channel_name(channel: Node, number: int) -> str:
    """Return the lead of a channel, or what the file calls it.

    Args:
        channel: Item of the channel definition sequence.
        number: Its place, from 1, for a channel without any name.

    Raises:
        DicomError: Code and meaning name two different leads of the twelve.
    """
    source = next(iter(channel.items("ChannelSourceSequence")), None)
    meaning = source.text("CodeMeaning") if source else ""
    label = channel.text("ChannelLabel")
    coded = _by_code(source.code()) if source else None
    said = lead_name(meaning)
    if coded in LEADS and said is not None and said != coded:
        msg = f"channel {number} is lead {coded} by its code and lead {said} by its meaning"
        raise DicomError(msg)
    if coded is not None:
        return coded
    spelt = [text for text in (meaning, label) if text]
    known = next((text for text in spelt if signal_name(text) != text), None)
    return (known or next(iter(spelt), f"channel {number}"))[:_NAME_LENGTH]


def _by_code(value: str) -> str | None:
    match = _CODE.fullmatch(value)
    if match is not None:
        return _LEADS.get(int(match[1]))
    if value.isdecimal() and len(value) < 9:
        return _LEADS.get(int(value) - _MDC_PARTITION)
    return signal_name(value) if value.startswith("MDC_ECG_LEAD_") else None
