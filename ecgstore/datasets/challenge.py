"""PhysioNet/CinC Challenges 2020 and 2021: 88,253 12-lead ECGs of eight sources, SNOMED CT codes.

Reyna et al., Will two do? Varying dimensions in electrocardiography (doi 10.13026/34va-7q14);
Perez Alday et al., Physiol Meas 41:124003 (2020). A folder a source, within it the records or
folders ``g1``, ``g2`` … of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore.datasets.snomed import SOURCES, tasks_of
from ecgstore.datasets.source import (
    Collection,
    Missing,
    Source,
    files_below,
    refuse_rate,
    source_folder,
)
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["collect"]

_HEADER = ".hea"
# Names of the folders besides those of `SOURCES`: those of the archives of 2021 (WFDB_Ga), and
# what copies of the sources are called by their own names.
_ALIASES = {
    "cpsc2018": "cpsc_2018",
    "cpsc2018_2": "cpsc_2018_extra",
    "cpsc2018_extra": "cpsc_2018_extra",
    "incart": "st_petersburg_incart",
    "stpetersburg": "st_petersburg_incart",
    "ptbxl": "ptb-xl",
    "ptbxl_hr": "ptb-xl",
    "ga": "georgia",
    "chapmanshaoxing": "chapman_shaoxing",
}
_SITES = {name.replace("-", "_"): name for name in SOURCES.values()} | _ALIASES


def collect(folders: Sequence[Path], *, rate: int | None = None) -> Collection:
    """List the records of the challenges' training sets, whichever sources are there.

    The codes of a record stand in its header and are labelled 1 as ``snomed:CODE``. It is
    labelled 0 in the other codes that its source uses at all (`ecgstore.datasets.snomed`), and
    has no label in those that its source never uses: nobody looked for them there. That table is
    of 2021; a copy of 2020 has the same codes in fewer sources.

    ``site`` is the source. Patients are not known: records of one patient cannot be kept together.

    Args:
        folders: The folder that holds the sources, or some of the sources' own folders.
        rate: Not for this dataset.

    Raises:
        UsageError: No folder is a source with records, or a rate was given.
    """
    refuse_rate(rate)
    sources: dict[str, Source] = {}
    missing: list[Missing] = []
    tasks = {site: tasks_of(site) for site in SOURCES.values()}
    strangers = 0
    for folder in folders:
        root = source_folder(folder, wanted="the folder of a PhysioNet/CinC Challenge")
        for uri, path in files_below(root, {_HEADER}, missing):
            site = _site((root.absolute().name, *Path(uri).parts[:-1]))
            if site is None:
                strangers += 1
            elif path.stem in sources:
                missing.append(Missing(uri, "bad metadata", "a record of this name is there twice"))
            else:
                meta = {"site": site}
                sources[path.stem] = Source(path.stem, path, uri, meta=meta, tasks=tasks[site])
    if not sources:
        msg = "There are no records in folders that are called as the challenges' sources are."
        hint = f"Folders of these names were expected: {', '.join(SOURCES.values())}."
        raise UsageError(msg, hint=hint)
    notes = [f"{strangers} headers in folders of other names not read"] if strangers else []
    return Collection(tuple(sources.values()), missing=tuple(missing), notes=tuple(notes))


def _site(folders: Sequence[str]) -> str | None:
    """Return the source that the innermost folder of a known name stands for."""
    names = (name.lower().replace("-", "_").removeprefix("wfdb_") for name in reversed(folders))
    return next((_SITES[name] for name in names if name in _SITES), None)


# -- what all collections of files share ----------------------------------------------------------
