"""Datasets: where the files, metadata and labels of a collection of ECGs are."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol

from ecgstore.datasets import (
    challenge,
    chapman,
    code15,
    cpsc2018,
    folder,
    mimic_iv_ecg,
    mitdb,
    ptb,
    ptbxl,
    sph,
)
from ecgstore.datasets import manifest as manifests
from ecgstore.datasets.source import Collection, Label, Missing, Source
from ecgstore.errors import UsageError
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Collection", "Label", "Missing", "Source", "collect", "datasets"]


class Collector(Protocol):
    """What lists the records of a dataset."""

    def __call__(self, folders: Sequence[Path], *, rate: int | None = None) -> Collection:
        """Return the records found in the folders."""


datasets: Registry[Collector] = Registry("dataset", group="ecgstore.datasets")
"""Datasets whose tables are known; other packages add theirs by the entry-point group."""

datasets.add("challenge2020", challenge.collect)
datasets.add("challenge2021", challenge.collect)
datasets.add("chapman", chapman.collect)
datasets.add("code15", code15.collect)
datasets.add("cpsc2018", cpsc2018.collect)
datasets.add("mimic-iv-ecg", mimic_iv_ecg.collect)
datasets.add("ptb", ptb.collect)
datasets.add("ptbxl", ptbxl.collect)
datasets.add("sph", sph.collect)
for _database in mitdb.DATABASES:
    datasets.add(_database, functools.partial(mitdb.collect, database=_database))


def collect(
    name: str,
    folders: Sequence[Path],
    *,
    rate: int | None = None,
    layout: Mapping[str, str] | None = None,
    manifest: Path | None = None,
) -> Collection:
    """List the records of a known dataset, or of plain folders under any other name.

    Args:
        name: A name in `datasets`, or one of the user's own.
        folders: Where the files are.
        rate: Sampling rate in Hz to prefer, where a dataset holds records at several.
        layout: Where arrays are in files that do not say so themselves.
        manifest: A CSV that says what belongs to each file of the folders.

    Raises:
        UsageError: The folders are not there, or are not that dataset.
    """
    if name in datasets:
        if layout or manifest:
            msg = f"{name!r} is a known dataset: it needs no map and no manifest."
            raise UsageError(msg, hint="Take another name to read the files as your own.")
        return datasets.get(name)(folders, rate=rate)
    if manifest is not None:
        return manifests.collect(folders, manifest=manifest, rate=rate, layout=layout)
    return folder.collect(folders, rate=rate, layout=layout)
