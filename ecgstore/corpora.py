"""What pretraining corpora hold: which of the datasets that ecgstore knows have records in them.

Corpora and datasets are compared by the collections of records they are made of, for several hold
the same: PTB-XL is a dataset, a source of the PhysioNet challenges, and so part of what a model
pretrained on those has seen. Nothing here needs a model to be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CORPORA", "DATASETS", "Content", "content", "sites"]

# The sources of the challenges, called as their folders and `records.site` are.
_CHALLENGE_2020 = (
    "cpsc_2018",
    "cpsc_2018_extra",
    "st_petersburg_incart",
    "ptb",
    "ptb-xl",
    "georgia",
)
_CHAPMAN = ("chapman_shaoxing", "ningbo")


@dataclass(frozen=True)
class Content:
    """The collections of records that a corpus or dataset is made of.

    Attributes:
        parts: Collections that are in it.
        perhaps: Collections that may share records with it: nobody has published that they do not.
        source: Who says so; empty for a dataset that is its own only part.
    """

    parts: frozenset[str]
    perhaps: frozenset[str] = frozenset()
    source: str = ""


def _of(*parts: str, perhaps: tuple[str, ...] = (), source: str = "") -> Content:
    return Content(frozenset(parts), frozenset(perhaps), source)


DATASETS: Mapping[str, Content] = MappingProxyType(
    {
        "afdb": _of("afdb"),
        "challenge2020": _of(
            *_CHALLENGE_2020,
            source="Perez Alday et al., Physiol Meas 41:124003 (2020)",
        ),
        "challenge2021": _of(
            *_CHALLENGE_2020,
            *_CHAPMAN,
            source="Reyna et al., Will two do?, doi 10.13026/34va-7q14",
        ),
        "chapman": _of(
            *_CHAPMAN,
            source="Zheng et al., doi 10.13026/wgex-er52: both hospitals in one database",
        ),
        "code15": _of("code15"),
        "cpsc2018": _of("cpsc_2018"),
        "cpsc2021": _of("cpsc2021"),
        "mimic-iv-ecg": _of("mimic-iv-ecg"),
        "mitdb": _of("mitdb"),
        "nsr2db": _of("nsr2db"),
        "nstdb": _of(
            "mitdb", source="Records 118 and 119 of mitdb with noise, doi 10.13026/C2HS3T"
        ),
        "ptb": _of("ptb"),
        "ptbxl": _of("ptb-xl"),
        "qtdb": _of(
            "qtdb",
            "mitdb",
            source="Excerpts of mitdb and other databases, doi 10.13026/C24K53",
        ),
        "sph": _of("sph"),
    }
)
"""Every dataset of `ecgstore.datasets`."""

CORPORA: Mapping[str, Content] = MappingProxyType(
    {
        "Chapman-Shaoxing": _of(
            "chapman_shaoxing",
            source="Zheng et al., Sci Data 7:48 (2020), doi 10.6084/m9.figshare.c.4560497",
        ),
        "CODE-15%": _of(
            "code15",
            source="Ribeiro et al., Nat Commun 11:1760 (2020), doi 10.5281/zenodo.4916206",
        ),
        "HEEDB": _of(
            "heedb",
            # Georgia was collected at Emory University, where part of HEEDB comes from too.
            perhaps=("georgia",),
            source="Harvard-Emory ECG Database: Massachusetts General and Emory; arXiv:2410.04133",
        ),
        "ecgstore open ECGs": _of(
            "cpsc_2018",
            "cpsc_2018_extra",
            "chapman_shaoxing",
            "ningbo",
            "georgia",
            "ptb",
            "sph",
            source="73 records, named in docs/models, that the minis of ecgstore were trained on",
        ),
        "MIMIC-IV-ECG": _of("mimic-iv-ecg", source="Gow et al., doi 10.13026/4nqg-sb35"),
        "Ningbo": _of("ningbo", source="Zheng et al., Sci Rep 10:2898 (2020)"),
        "PhysioNet 2021": DATASETS["challenge2021"],
        "synthetic": _of("synthetic", source="Drawn by ecgstore.synthetic: nobody's ECG"),
        "synthetic-retaken": _of(
            "synthetic-retaken", source="Drawn by ecgstore.synthetic: nobody's ECG"
        ),
        "synthetic-varied": _of(
            "synthetic-varied", source="Drawn by ecgstore.synthetic: nobody's ECG"
        ),
    }
)
"""Corpora that models were pretrained on, as `ModelSpec.pretraining` names them."""

_ALL = {**DATASETS, **CORPORA}


def content(name: str) -> Content | None:
    """Return what a corpus or dataset is made of, or None where that is not known.

    Args:
        name: A key of `CORPORA` or `DATASETS`; behind a dataset of several sites one of them may
            stand, as in ``challenge2021/georgia``.

    Example:
        >>> sorted(content("chapman").parts)
        ['chapman_shaoxing', 'ningbo']
    """
    whole, _, site = name.partition("/")
    found = _ALL.get(whole)
    if found is None or not site:
        return found
    return _of(site) if site in found.parts else None


def sites(dataset: str) -> frozenset[str]:
    """Return the values of ``records.site`` that tell the parts of a dataset apart."""
    found = DATASETS.get(dataset)
    return found.parts if found is not None and len(found.parts) > 1 else frozenset()
