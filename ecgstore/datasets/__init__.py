"""Datasets: where the files, metadata and labels of a collection of ECGs are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ecgstore.datasets import folder, ptbxl
from ecgstore.datasets.source import Collection, Label, Missing, Source
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Collection", "Label", "Missing", "Source", "collect", "datasets"]


class Collector(Protocol):
    """What lists the records of a dataset."""

    def __call__(self, folders: Sequence[Path], *, rate: int | None = None) -> Collection:
        """Return the records found in the folders."""


datasets: Registry[Collector] = Registry("dataset", group="ecgstore.datasets")
"""Datasets whose tables are known; other packages add theirs by the entry-point group."""

datasets.add("ptbxl", ptbxl.collect)


def collect(name: str, folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of a known dataset, or of plain folders under any other name.

    Args:
        name: A name in `datasets`, or one of the user's own.
        folders: Where the files are.
        rate: Sampling rate in Hz to prefer, where a dataset holds records at several.

    Raises:
        UsageError: The folders are not there, or are not that dataset.
    """
    return (datasets.get(name) if name in datasets else folder.collect)(folders, rate=rate)
