"""Decode the annotation signals of EDF+ and BDF+: time-stamped annotation lists (EDF+, 2.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.io.edf_header import EdfError
from ecgstore.io.vocabulary import is_annotation
from ecgstore.record import Annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Lists", "annotations_of", "parse_lists"]

_ONSET = re.compile(rb"([+-]\d{1,12}(?:\.\d{0,12})?)(?:\x15(\d{1,12}(?:\.\d{0,12})?))?")
_MAX_ANNOTATIONS = 2**20
_FREE_TEXT = '"'


class Lists:
    """What the annotation lists of a file say.

    Attributes:
        starts_s: Seconds at which each data record begins; None where the list does not say.
        events: Seconds, text, and whether a duration was given, in the order of the file.
        unread: Lists that could not be read.
    """

    def __init__(self) -> None:
        self.starts_s: list[float | None] = []
        self.events: list[tuple[float, str, bool]] = []
        self.unread = 0


def parse_lists(records: Iterable[Sequence[bytes]]) -> Lists:
    """Return what the annotation signals of each data record say.

    Args:
        records: For each data record, the bytes of its annotation signals; the first list of the
            first signal tells when the record begins.

    Raises:
        EdfError: More annotations than any ECG has.
    """
    lists = Lists()
    for signals in records:
        start: float | None = None
        for number, raw in enumerate(signals):
            for place, one in enumerate(raw.split(b"\0")):
                if not one:
                    continue
                stamp, *texts = one.split(b"\x14")
                match = _ONSET.fullmatch(stamp)
                if match is None or not texts or texts[-1]:
                    lists.unread += 1
                    continue
                onset = float(match[1])
                if number == 0 and place == 0 and not texts[0]:
                    start = onset
                said = [text.decode("utf-8", "replace").strip() for text in texts]
                lists.events += [(onset, text, match[2] is not None) for text in said if text]
        lists.starts_s.append(start)
        if len(lists.events) > _MAX_ANNOTATIONS:
            msg = f"more than {_MAX_ANNOTATIONS} annotations"
            raise EdfError(msg, "too large")
    return lists


def annotations_of(lists: Lists, identifiers: Iterable[str]) -> tuple[list[Annotations], list[str]]:
    """Return the annotations, seconds from the first sample, and flags.

    Texts that might name a person are withheld, flagged ``withheld_statements:<n>``; durations,
    which have no place in `Annotations`, are flagged ``dropped_durations:<n>``.

    Args:
        lists: Of the whole file.
        identifiers: Names and ids in the header: a text with one of them is withheld.
    """
    flags = ["unread_annotations:edf"] if lists.unread else []
    if not lists.events:
        return [], flags
    first = next((start for start in lists.starts_s if start is not None), 0.0)
    events = sorted(lists.events, key=lambda event: event[0])
    names = {part.lower() for one in identifiers for part in re.split(r"\W+", one) if len(part) > 1}
    kept = {
        text
        for text in {text for _, text, _ in events}
        if is_annotation(text) and not names & set(re.split(r"\W+", text.lower()))
    }
    texts = [text if text in kept else None for _, text, _ in events]
    n = len(events)
    if None in texts:
        flags.append(f"withheld_statements:{texts.count(None)}")
    if dropped := sum(lasting for *_, lasting in events):
        flags.append(f"dropped_durations:{dropped}")
    zeros = np.zeros(n, np.int8)
    found = Annotations(
        annotator="edf",
        time_s=np.array([onset - first for onset, *_ in events]),
        sample=np.full(n, -1, np.int64),
        symbol=(_FREE_TEXT,) * n,
        subtype=zeros,
        channel=zeros,
        number=zeros,
        text=tuple(texts),
    )
    return [found], flags
