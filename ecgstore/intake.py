"""What a worker of an ingest does: files in, shards and a few rows out."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore import io
from ecgstore.deidentify import Deidentifier, folded, name_words, names_somebody
from ecgstore.errors import ReadError
from ecgstore.io.assemble import REASONS
from ecgstore.io.clinical import age_of
from ecgstore.io.files import HEAD_BYTES, file_head
from ecgstore.io.identity import naming
from ecgstore.io.layout import is_known_lead
from ecgstore.schema import TABLES
from ecgstore.sinks import BATCH_ROWS, Sinks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ecgstore.datasets import Source
    from ecgstore.pool import Pulse
    from ecgstore.record import Record
    from ecgstore.storage.shards import Shard

__all__ = ["BATCH_ROWS", "Done", "Task", "reject", "take_in", "veiled"]

_RECORDS, _LABELS = TABLES["records"], TABLES["labels"]

_PULSE_ROWS = 16  # records between two reports of progress
_FILE = "file"  # as the source of a label: the record's own file says so
_POOLED = "age_over_89"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(
    r"(?<!\d)(?:(\d{4})[\W_]?(\d\d)[\W_]?(\d\d)|(\d\d)[\W_]?(\d\d|[a-z]{3})[\W_]?(\d{4}))(?!\d)"
)
_PADDED = re.compile(rb"(?<=[^\0])\0{1,3}(?=[^\0])")
_SEARCHED = 2**20  # bytes in which the names of a file that cannot be read are looked for
_LONG_WORD = 3  # letters of a name that is not there by chance
_LONG_NUMBER = 5  # digits of a number that is not, and no sample, beyond the head of a file


@dataclass(frozen=True)
class Task:
    """Work for one worker: files that make one shard.

    Attributes:
        folder: Staging folder; None in a dry run.
        dataset: Name of the dataset.
        reader: Reader to use, or ``auto``.
        tasks: Tasks in which every record has a label.
        sources: The files.
        stop: Whether the first file that cannot be read ends the work.
        hide: How what names a person enters.
    """

    folder: Path | None
    dataset: str
    reader: str
    tasks: tuple[str, ...]
    sources: tuple[Source, ...]
    stop: bool
    hide: Deidentifier = field(default_factory=Deidentifier)


@dataclass(frozen=True)
class Done:
    """What a worker made of its task: shards on disk by table, not committed, and rows."""

    shards: dict[str, list[Shard]] = field(default_factory=dict)
    records: pa.Table = field(default_factory=_RECORDS.arrow.empty_table)
    rejects: list[dict[str, object]] = field(default_factory=list)


def reject(dataset: str, uri: str, reason: str, *, reader: str, detail: str) -> dict[str, object]:
    """Return a row of ``rejects``; its address is the dataset and the path within it."""
    return {
        "source_uri": f"{dataset}/{uri}",
        "reason": reason,
        "reader": reader,
        "detail": detail,
        "at": dt.datetime.now(dt.UTC),
    }


def take_in(task: Task, pulse: Pulse) -> Done:
    """Read the files of a task and write their shards.

    Raises:
        ReadError: A file cannot be read and the task says to stop.
        WarehouseError: A shard cannot be written.
    """
    rows: list[dict[str, object]] = []
    rejects: list[dict[str, object]] = []
    kept: list[tuple[str, Source, object]] = []
    done = refused = 0
    with Sinks(task.folder) as sinks:
        for source, record in _records(task):
            if isinstance(record, ReadError):
                error, uri = veiled(task.hide, record, source.uri, source.path)
                if task.stop:
                    raise error
                rejects.append(_rejected(task, source, uri, error))
                refused += 1
            else:
                record, words = _cleared(task, source, record)
                row = _row(task, source, record, words)
                record_id = str(row["record_id"])
                sinks.add(record_id, record, source.measurements)
                rows.append(row)
                kept.append((record_id, source, record.meta.get("codes")))
            done += 1
            if done == _PULSE_ROWS:
                pulse(done, refused)
                done = refused = 0
        if kept:
            sinks.add_labels(_label_rows(task, kept))
        pulse(done, refused)
        shards = sinks.shards()
    return Done(shards, pa.Table.from_pylist(rows, schema=_RECORDS.arrow), rejects)


def _records(task: Task) -> Iterator[tuple[Source, Record | ReadError]]:
    """Yield each source with its record, or with what keeps it from being read.

    Records of a file that holds many are read in its order and yielded in that of their names.
    """
    for (path, whole), group in itertools.groupby(
        task.sources, key=lambda source: (source.path, source.row is None)
    ):
        sources = list(group)
        if whole:
            yield from ((source, _read(source, task.reader)) for source in sources)
        else:
            found = _read_rows(path, sources, task.reader)
            yield from sorted(zip(sources, found, strict=True), key=lambda pair: pair[0].name)


def _read_rows(path: Path, sources: Sequence[Source], reader: str) -> list[Record | ReadError]:
    try:
        container = io.open_container(path, reader=reader, layout=sources[0].layout)
        if container is None:  # it was one when it was listed
            msg = f"{path.name!r}: it does not hold several records any more."
            raise ReadError(msg, path=path, reason="unknown layout")
        return list(container.read([source.row or 0 for source in sources]))
    except ReadError as error:
        return [error] * len(sources)


def _read(source: Source, reader: str) -> Record | ReadError:
    try:
        return io.read(source.path, reader=reader, layout=source.layout)
    except ReadError as error:
        return error


def _rejected(task: Task, source: Source, uri: str, error: ReadError) -> dict[str, object]:
    reader = task.reader
    if reader == "auto":
        with contextlib.suppress(ReadError):
            reader = io.detect(source.path)
    return reject(task.dataset, uri, error.reason, reader=reader, detail=error.message)


def veiled(hide: Deidentifier, error: ReadError, uri: str, path: Path) -> tuple[ReadError, str]:
    """Return an error and address that do not tell the file's name, where that may be a person's.

    Of a file that cannot be read it is not known what names somebody: words of its name that
    stand in it too are taken to do so. A WFDB header names itself: only what its comments say of
    people counts. Such an error gives nothing but the meaning of its reason.

    Args:
        hide: How names are hidden, or that they are not.
        error: Why the file cannot be read.
        uri: Its address within the dataset.
        path: The file.
    """
    if hide.key is None:
        return error, uri
    with contextlib.suppress(ReadError):
        own = uri.partition(path.name)[0] + path.stem
        if _stands_in(name_words([own]) - set(io.readers), path):
            shown = _hidden(hide, uri, path)
            msg = f"{shown!r}: {REASONS.get(error.reason, error.reason)}."
            return ReadError(msg, path=shown, reason=error.reason, hint=error.hint), shown
    return error, uri


def _stands_in(words: frozenset[str], path: Path) -> bool:
    """Tell whether one of some words stands in what a file says of people."""
    data = file_head(path, _SEARCHED)
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        text = data.decode("utf-16", "ignore")
    else:
        ways = [data[:HEAD_BYTES].decode("latin-1"), data.decode("utf-8", "replace")]
        ways += [] if data.isascii() else [data.decode("latin-1")]
        # texts of two or four bytes a letter, as MATLAB and NumPy store them
        ways += [_PADDED.sub(b"", data).decode("latin-1")] if b"\0" in data else []
        text = "\n".join(ways)
    if path.suffix.lower() == ".hea":
        comments = (line.partition("#")[2].strip() for line in text.splitlines())
        return bool(words & name_words(naming(comments)))
    text = folded(text)
    for word in (word for word in words if len(word) >= _LONG_WORD):
        short = word.isdecimal() and len(word) < _LONG_NUMBER
        own = re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])")
        if own.search(text, 0, HEAD_BYTES if short else len(text)):
            return True
    return False


def _hidden(hide: Deidentifier, uri: str, path: Path) -> str:
    """Return what stands for an address; its suffix is kept if it is one of a format."""
    suffix = path.suffix.lower()
    known = {one for name in io.readers for one in io.readers.get(name).suffixes}
    return hide.name(uri) + (suffix if suffix in known else "")


def _cleared(task: Task, source: Source, record: Record) -> tuple[Record, frozenset[str]]:
    """Return a record without the names and ids found in its file, and what those are.

    A reader takes no field that holds one; but a cart's operator may type into any, such as the
    name of a signal.
    """
    found = record.meta.get("identifiers")
    texts = [*(found if isinstance(found, tuple | list) else ()), *source.identifiers]
    texts += [str(patient)] if (patient := record.meta.get("patient_id")) else []
    words = name_words(map(str, texts))
    if task.hide.key is None or not words:
        return record, frozenset()
    flags = []

    def is_named(text: str) -> bool:
        return names_somebody(text, words)

    def renamed(number: int, name: str) -> str:
        return f"signal {number}" if is_named(name) and not is_known_lead(name) else name

    leads = tuple(itertools.starmap(renamed, enumerate(record.leads, 1)))
    signals = tuple(
        one._replace(
            name=renamed(number, one.name),
            unit="" if one.unit != "mV" and is_named(one.unit) else one.unit,
        )
        for number, one in enumerate(record.signals, len(leads) + 1)
    )
    changed = sum(a != b for a, b in zip(record.leads, leads, strict=True))
    changed += sum(a.name != b.name for a, b in zip(record.signals, signals, strict=True))
    if changed:
        flags.append(f"hidden_signal_names:{changed}")
    meta = dict(record.meta)
    if is_named(str(meta.get("device", ""))):
        del meta["device"]
        flags.append("hidden_device")
    quality = [
        flag.partition(":")[0] if is_named(flag.partition(":")[2]) else flag
        for flag in record.quality
    ]
    quality = list(dict.fromkeys([*quality, *flags]))
    record = replace(record, leads=leads, signals=signals, meta=meta, quality=tuple(quality))
    return record, words


def _row(task: Task, source: Source, record: Record, words: frozenset[str]) -> dict[str, object]:
    """Return the row of ``records``, with what names a person replaced.

    Args:
        task: What is done.
        source: Where the record is from.
        record: The record.
        words: What the name of its file must not hold.
    """
    hide, flags = task.hide, [*record.quality, *source.quality]
    known = {**record.meta, **source.meta}
    given = known.pop("patient_id", None)
    patient = None if given is None else str(given).strip() or None
    name, uri = source.name, source.uri
    named = names_somebody(source.uri, words) or _tells_birth(source.uri, known)
    if hide.key is not None and named:
        name, uri = hide.name(source.name), _hidden(hide, source.uri, source.path)
        flags.append("hidden_name")
    if patient is not None:
        known["patient_id"] = hide.patient(patient)
    when = known.get("recorded_at")
    if isinstance(when, dt.datetime):
        known["recorded_at"] = hide.shifted(when, patient)
    age = known.get("age")
    if isinstance(age, float | int):
        known["age"], pooled = hide.age(float(age))
        flags += [_POOLED] if pooled and _POOLED not in flags else []
    return {
        **{name: known[name] for name in _RECORDS.arrow.names if name in known},
        "record_id": f"{task.dataset}/{name}",
        "signal_sha256": record.signal_sha256,
        "dataset": task.dataset,
        "source_uri": f"{task.dataset}/{uri}",
        "rate_hz": record.rate_hz,
        "n_samples": record.n_samples,
        "leads": list(record.leads),
        "quality": flags,
    }


def _tells_birth(uri: str, known: Mapping[str, object]) -> bool:
    """Tell whether the name of a file holds a date that makes its patient as old as is known."""
    when, age = known.get("recorded_at"), known.get("age")
    if not isinstance(when, dt.datetime) or not isinstance(age, float | int):
        return False
    for year, month, day, first, second, last in _DATE.findall(uri.lower()):
        ways = [(year, month, day)] if year else [(last, second, first), (last, first, second)]
        for y, m, d in ways:
            number = _MONTHS.index(m) + 1 if m in _MONTHS else int(m) if m.isdecimal() else 0
            with contextlib.suppress(ValueError):
                if age_of(born=dt.date(int(y), number, int(d)), recorded=when.date()) == int(age):
                    return True
    return False


def _label_rows(task: Task, kept: Sequence[tuple[str, Source, object]]) -> pa.Table:
    """Return the labels of some records: what their sources say, and 0 in the other tasks."""
    ids: list[str] = []
    names: list[str] = []
    labels: list[float] = []
    likelihoods: list[float | None] = []
    sources: list[str] = []
    for record_id, source, codes in kept:
        of_file = {str(code) for code in (codes if isinstance(codes, tuple) else ())}
        given: dict[str, tuple[float, float | None]] = dict.fromkeys(of_file, (1.0, None))
        told = {entry.task: (entry.label, entry.likelihood) for entry in source.labels}
        given |= told
        own = list(dict.fromkeys((*task.tasks, *source.tasks, *given)))
        ids += [record_id] * len(own)
        names += own
        labels += [given[name][0] if name in given else 0.0 for name in own]
        likelihoods += [given[name][1] if name in given else None for name in own]
        sources += [_FILE if name in of_file - told.keys() else task.dataset for name in own]
    return pa.table([ids, names, labels, likelihoods, sources], schema=_LABELS.arrow)
