"""Read HDF5: the layouts of CODE-15 % and of SPH, and any that names its parts or is declared.

A file may hold many records and be larger than memory. Nothing outside it is ever opened: external
links, external storage and virtual datasets, which HDF5 follows without a word, are refused.

Known layouts:

* CODE-15 % (doi 10.5281/zenodo.4916206; SaMi-Trop and the CODE test set too): ``tracings``
  (records, 4096, 12) at 400 Hz in units of 1e-4 V, ``exam_id`` (records,). Exams of 2934 samples
  stand between zeros, which are cut off and flagged ``padding_removed:<before>,<after>``; a row of
  zeros alone is no record.
* SPH (Liu et al., Sci Data 9:272, 2022): ``ecg`` (12, samples) in mV at 500 Hz, one record a file.

MATLAB 7.3 files are HDF5 as well, and are read where they name their parts or a layout does.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import MissingDependencyError, ReadError
from ecgstore.io.arrays import Rows, only_record, sha256_once
from ecgstore.io.assemble import refuse
from ecgstore.io.files import file_head, file_size
from ecgstore.io.identity import identities
from ecgstore.io.layout import ALIASES, STANDARD, declared, layout_of
from ecgstore.io.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import h5py

    from ecgstore.io.layout import Array
    from ecgstore.record import Record

__all__ = ["READER", "open_rows", "read"]

_CODE15 = {
    "tracings": "tracings",
    "rate": "400",
    "leads": STANDARD,
    "unit": "0.1 mV",
    "axes": "nsl",
    "padding": "zeros",
}
_SPH = {"tracings": "ecg", "rate": "500", "leads": STANDARD, "unit": "mV", "axes": "ls"}
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OFFSETS = (0, 512, 1024, 2048)  # File Format Specification, II.A: powers of two from 512
_MATLAB_73 = b"MATLAB 7.3"
_CACHE_BYTES = 2**26  # a block's chunks, so that none is unpacked twice
_MAX_CHUNK_BYTES = 2**28
_MAX_ATTRIBUTE_BYTES = 2**20
_MOST_PACKED = 1100  # deflate cannot pack tighter than 1032 to 1; more is fill, never written
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError)


def read(path: Path) -> Record:
    """Return the record of a file that holds one.

    Raises:
        ReadError: It holds several, or cannot be read.
        MissingDependencyError: h5py is not installed.
    """
    return only_record(path, open_rows(path, {}))


def open_rows(path: Path, layout: Mapping[str, str]) -> Rows:
    """Return the records of a file.

    Args:
        path: The file.
        layout: See `ecgstore.io.layout.KEYS`; arrays are paths such as ``signals/ecg``, and
            single values may be attributes of the file or of the array of samples.

    Raises:
        ReadError: It cannot be read, or its layout leaves something open.
        MissingDependencyError: h5py is not installed.
    """
    said = declared(path, layout)
    try:
        with _opened(path) as file:
            known = _known(file)
            if said.get("tracings", known.get("tracings")) == known.get("tracings"):
                said = {**known, **said}
            names = _names(file)
            usual = (name for name in names if name.lower() in ALIASES["tracings"])
            samples = said.get("tracings") or next(usual, "")
            owner = _find(path, file, samples) if samples else None
            names += [*getattr(owner, "attrs", ()), *file.attrs]
            find = partial(_find, path, file, owner=owner)
            found, name = layout_of(path, said, names=names, find=find)
            dataset = _find(path, file, name)
            chunk = _checked(path, dataset, found.axes)
            fields = [*names, *_below(file), *getattr(dataset, "attrs", ())]
            find = partial(_find, path, file, owner=dataset)
            people = identities(fields, find, len(found.names))
    except ReadError as error:
        if error.hint is not None and file_head(path).startswith(_MATLAB_73):
            error.hint = f"This is MATLAB 7.3: save it with '-v7', or: {error.hint}"
        raise
    except _FAILURES as error:
        raise refuse(path, "bad header", "its structure cannot be read") from error
    return Rows(
        path=path,
        reader="hdf5",
        layout=found,
        opened=lambda: _dataset(path, name),
        sha256=lambda: sha256_once(path),
        chunk=chunk,
        identities=people,
    )


def _matches(head: bytes, path: Path) -> bool:
    del path
    return any(head.startswith(_SIGNATURE, at) for at in _OFFSETS)


READER = Reader(
    name="hdf5",
    summary="HDF5: CODE-15 %, SPH, or arrays whose layout is declared",
    suffixes=(".h5", ".hdf5", ".hdf"),
    matches=_matches,
    read=read,
    container=open_rows,
)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not file_size(path):
        raise refuse(path, "empty file", "the file is empty")
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            purpose="Reading HDF5", package="h5py", extra="hdf5"
        ) from error
    try:
        file = h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)
    except _FAILURES as error:
        said = str(error)
        if "truncated" in said:
            raise refuse(path, "truncated", "it is truncated") from error
        if "lock file" in said:
            raise refuse(path, "unreadable", "another program has it open for writing") from error
        raise refuse(path, "bad header", "it is no HDF5") from error
    with file:
        yield file


@contextmanager
def _dataset(path: Path, name: str) -> Iterator[Array]:
    with _opened(path) as file:
        found = _find(path, file, name)
        if found is None:
            raise refuse(path, "bad header", "the array of samples is gone")
        yield found


def _known(file: h5py.File) -> dict[str, str]:
    """Return the layout of a public dataset, if the file has it and says nothing else."""
    if len(file.attrs):
        return {}
    names = set(_names(file))
    tracings, ecg = (file[key] if key in names else None for key in ("tracings", "ecg"))
    if tracings is not None and tracings.dtype.kind == "f" and tracings.shape[1:] == (4096, 12):
        return _CODE15
    if ecg is not None and names == {"ecg"} and ecg.dtype == np.float16 and ecg.shape[:1] == (12,):
        return _SPH
    return {}


def _names(file: h5py.File) -> list[str]:
    """Return the datasets at the root."""
    return [name for name in file if _is_dataset(file, name)]


def _below(file: h5py.File) -> list[str]:
    """Return the paths of datasets in the groups at the root."""
    import h5py

    groups = (name for name in file if _is_hard(file, name))
    return [
        f"{group}/{name}"
        for group in groups
        if file.get(group, getclass=True) is h5py.Group
        for name in file[group]
        if _is_dataset(file[group], name)
    ]


def _is_dataset(file: h5py.Group, name: str) -> bool:
    import h5py

    return _is_hard(file, name) is True and file.get(name, getclass=True) is h5py.Dataset


def _is_hard(group: h5py.Group, name: str) -> bool | None:
    """Tell whether a member stands in the file itself; None where there is none of the name.

    ``name in group`` and ``group.get`` would follow a link out of the file to find out.
    """
    import h5py

    links = group.id.links
    if not links.exists(name.encode()):
        return None
    return bool(links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD)


def _find(path: Path, file: h5py.File, name: str, owner: Array | None = None) -> Array | None:
    """Return the dataset of a path, or the attribute of a name of the samples or the file.

    Raises:
        ReadError: The path goes through a link, or the dataset lies outside the file.
    """
    import h5py

    here = file
    for part in filter(None, name.split("/")):
        hard = _is_hard(here, part) if isinstance(here, h5py.Group) else None
        if hard is False:
            raise _outside(path, "a link")
        here = here[part] if hard else None
    if isinstance(here, h5py.Dataset):
        if here.is_virtual or here.external:
            raise _outside(path, "a dataset in other files")
        dataset: Array = here
        return dataset
    for holder in (owner, file):
        attributes = getattr(holder, "attrs", None)
        if attributes is not None and name in attributes:
            kept = attributes.get_id(name)
            if kept.dtype.itemsize * math.prod(kept.shape or (1,)) > _MAX_ATTRIBUTE_BYTES:
                raise refuse(path, "too large", "an attribute is larger than any")
            return np.asarray(attributes[name])
    return None


def _outside(path: Path, what: str) -> ReadError:
    hint = "Copy what it refers to into the file."
    return refuse(path, "forbidden content", f"it refers to {what}, never followed", hint=hint)


def _checked(path: Path, dataset: h5py.Dataset, axes: str) -> int:
    """Return how many records a chunk holds, after a look at what the file can hold."""
    logical = dataset.dtype.itemsize * math.prod(dataset.shape)
    if logical > _MOST_PACKED * file_size(path):
        detail = f"shape {dataset.shape} is beyond what a file of its size can hold"
        raise refuse(path, "truncated", detail)
    if not dataset.chunks:
        return 1
    if dataset.dtype.itemsize * math.prod(dataset.chunks) > _MAX_CHUNK_BYTES:
        raise refuse(path, "too large", f"its chunks have the shape {dataset.chunks}")
    return int(dict(zip(axes, dataset.chunks, strict=True)).get("n", 1))
