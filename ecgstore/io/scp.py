"""Read SCP-ECG records (EN 1064, ISO 11073-91064): the standard's own binary files, ``.scp``.

The signal is the rhythm data of section 6, whatever its compression; the reference beat of section
5 is used to restore it and is no part of the record.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ecgstore.io.assemble import assemble, refuse
from ecgstore.io.clinical import report_of
from ecgstore.io.files import file_bytes
from ecgstore.io.reader import Reader
from ecgstore.io.scp_header import Header, header_of, measurements_of, statements_of
from ecgstore.io.scp_huffman import ScpError
from ecgstore.io.scp_rhythm import rhythm_of
from ecgstore.io.scp_sections import looks_like_scp, sections_of

if TYPE_CHECKING:
    from pathlib import Path

    from ecgstore.record import Record

__all__ = ["READER", "read"]


def read(path: Path) -> Record:
    """Return the record of a file.

    Counts are those that are stored, or that follow from the stored differences, at 1e6 divided by
    the amplitude multiplier in nanovolts as gain. Checksums of the record and of every section
    are verified. A section of measurements or statements that cannot be read is left out and
    flagged ``unreadable_section:<number>``.

    Args:
        path: The file.

    Raises:
        ReadError: With a reason of `ecgstore.io.assemble.REASONS`; no other error is raised.
    """
    data = file_bytes(path)
    try:
        sections, flags = sections_of(data)
        rhythm = rhythm_of(sections)
        header = header_of(sections[1]) if 1 in sections else Header()
    except ScpError as error:
        raise refuse(path, error.reason, str(error)) from error
    measurements: dict[str, float] | None = None
    statements: list[str] = []
    for number in sorted({7, 8, 11} & set(sections)):
        try:
            if number == 7:
                measurements = measurements_of(sections[7])
            else:
                statements += statements_of(sections[number], coded=number == 11)
        except ScpError:
            flags.append(f"unreadable_section:{number}")
    report, withheld = report_of(statements, header.identifiers)
    meta = {
        "source_format": "scp",
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "recorded_at": header.recorded_at,
        "age": header.age,
        "sex": header.sex,
        "device": header.device,
        "patient_id": header.patient_id,
        "measurements": measurements,
        "report": report,
        "identifiers": header.identifiers or None,
    }
    return assemble(
        path,
        rhythm.signals,
        rate_hz=rhythm.rate_hz,
        meta=meta,
        quality=[*flags, *rhythm.flags, *withheld],
    )


READER = Reader(
    name="scp",
    summary="SCP-ECG record (EN 1064, ISO 11073-91064)",
    suffixes=(".scp",),
    matches=lambda head, _: looks_like_scp(head),
    read=read,
)
