"""China Physiological Signal Challenge 2018: 6,877 12-lead ECGs of 6 to 60 s in MATLAB files.

Liu et al., J Med Imaging Health Inform 8:1368 (2018). Files ``A0001.mat`` to ``A6877.mat``, each a
struct ``ECG`` with sex, age and samples, in one folder or in ``TrainingSet1`` to ``3``; the labels
stand in a file ``REFERENCE.csv`` in the same folder or above. The copy of the records in the
PhysioNet challenges is the dataset ``challenge2020``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ecgstore.datasets.source import (
    Collection,
    Label,
    Missing,
    Source,
    exists,
    files_below,
    single_folder,
)
from ecgstore.datasets.tables import RowError, keyed_rows, number
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["CLASSES", "collect"]

CLASSES = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
"""The classes of the challenge in the order of their numbers, 1 to 9; a task is ``CPSC:AF``."""

_TASKS = tuple(f"CPSC:{name}" for name in CLASSES)
_REFERENCE = "reference.csv"
_RECORDING = "Recording"
_COLUMNS = ("First_label", "Second_label", "Third_label")
_NAME = re.compile(r"A\d{4}")


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of CPSC 2018, with their labels where ``REFERENCE.csv`` is there.

    A record is labelled 1 in its one to three classes and 0 in the others. One that no reference
    names has no labels and the flag ``no_metadata``. Age and sex come from the file itself;
    patients are not known.

    Args:
        folders: The folder of the challenge's training data.
        rate: Not for this dataset.

    Raises:
        UsageError: There is not one such folder, or a rate was given.
    """
    root = single_folder(folders, rate, wanted="the folder of CPSC 2018")
    missing: list[Missing] = []
    files: dict[str, tuple[str, Path]] = {}
    references: list[Path] = []
    strangers = 0
    for uri, path in files_below(root, {".mat", ".csv"}, missing):
        if path.name.lower() == _REFERENCE:
            references.append(path)
        elif path.suffix.lower() != ".mat":
            continue
        elif not _NAME.fullmatch(path.stem) or exists(path.with_suffix(".hea")):
            strangers += 1
        elif path.stem in files:
            missing.append(Missing(uri, "bad metadata", "a record of this name is there twice"))
        else:
            files[path.stem] = uri, path
    if not files:
        msg = f"{str(root)!r} holds no files such as 'A0001.mat' without headers."
        hint = "With headers beside them they are the PhysioNet copy: dataset challenge2020."
        raise UsageError(msg, hint=hint)
    labels: dict[str, tuple[Label, ...]] = {}
    for path in references:
        found = keyed_rows(path, (_RECORDING, *_COLUMNS[:1]), _labels, missing)
        missing += [
            Missing(path.name, "bad metadata", f"another reference labels {name} otherwise")
            for name in sorted(found.keys() & labels.keys())
            if found[name] != labels[name]
        ]
        labels = found | labels
    absent = sorted(labels.keys() - files.keys())
    missing += [Missing(f"{name}.mat", "missing file", "a reference names it") for name in absent]
    sources = tuple(_source(name, *files[name], labels.get(name)) for name in files)
    notes = [] if references else ["without REFERENCE.csv, records come without labels"]
    notes += [f"{strangers} other .mat files not read"] if strangers else []
    return Collection(sources, missing=tuple(missing), notes=tuple(notes))


def _labels(row: dict[str, str]) -> tuple[str, tuple[Label, ...]]:
    name = row[_RECORDING].strip()
    if not _NAME.fullmatch(name):
        msg = "a recording's name such as A0001 was expected"
        raise RowError(msg)
    numbers = [value for column in _COLUMNS if (value := number(row, column)) is not None]
    if not numbers or any(one not in range(1, len(CLASSES) + 1) for one in numbers):
        msg = f"labels from 1 to {len(CLASSES)} were expected"
        raise RowError(msg)
    tasks = dict.fromkeys(_TASKS[int(one) - 1] for one in numbers)
    return name, tuple(Label(task, 1.0, None) for task in tasks)


def _source(name: str, uri: str, path: Path, labels: tuple[Label, ...] | None) -> Source:
    if labels is None:
        return Source(name, path, uri, quality=("no_metadata",))
    return Source(name, path, uri, labels=labels, tasks=_TASKS)
