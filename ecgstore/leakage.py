"""The leakage register: which datasets a model has seen in pretraining.

A model that was pretrained on the records it is tested on scores better than it will elsewhere.
The table ``pretraining`` says which corpora a model has seen; `ecgstore.corpora` says which
datasets those hold. What neither tells is unknown, never clean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from ecgstore.corpora import CORPORA, DATASETS, content, sites
from ecgstore.errors import UsageError
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ecgstore.catalog import Catalog
    from ecgstore.models.spec import ModelSpec
    from ecgstore.warehouse import Warehouse

__all__ = [
    "Mark",
    "cautions",
    "datasets_of",
    "declare",
    "marks",
    "register_pretraining",
    "summary",
]

_UNTRAINED = "untrained"
"""How ``models.source`` begins where a model has random weights."""

_NAMELESS = "no dataset"


class Mark(NamedTuple):
    """What is known of a model and a dataset.

    Attributes:
        model: The model.
        dataset: The dataset; behind it its site where only some of its sites are meant.
        status: ``seen``: the model was pretrained on records of it. ``clean``: what it was
            pretrained on is known, and so is that none of it is of this dataset. Else
            ``unknown``.
        reason: What tells that it is seen; empty otherwise.
    """

    model: str
    dataset: str
    status: Literal["clean", "seen", "unknown"]
    reason: str = ""


def marks(catalog: Catalog, models: Iterable[str], datasets: Iterable[str]) -> tuple[Mark, ...]:
    """Tell for each model and dataset whether the model has seen it in pretraining.

    Args:
        catalog: The warehouse.
        models: Names of models, without version.
        datasets: Names of datasets, as `datasets_of` gives them.
    """
    told: dict[str, dict[str, str]] = {}
    for row in catalog.table("select * from pretraining order by model, dataset").to_pylist():
        told.setdefault(row["model"], {})[row["dataset"]] = row["source"] or ""
    sources = catalog.table("select model, source from models").to_pylist()
    trained = {row["model"] for row in sources if not (row["source"] or "").startswith(_UNTRAINED)}
    untrained = {row["model"] for row in sources} - trained
    return tuple(
        _mark(model, dataset, told.get(model, {}), untrained=model in untrained)
        for model in dict.fromkeys(models)
        for dataset in dict.fromkeys(datasets)
    )


def datasets_of(catalog: Catalog, record_ids: Sequence[str]) -> list[str]:
    """Return the datasets of records, by site where a dataset is known to be made of several."""
    rows = catalog.table(
        "select distinct dataset, site from records where record_id in (select unnest($ids)) "
        "order by all",
        {"ids": list(record_ids)},
    ).to_pylist()
    names = (
        f"{row['dataset']}/{row['site']}"
        if row["site"] in sites(row["dataset"])
        else row["dataset"] or _NAMELESS
        for row in rows
    )
    return list(dict.fromkeys(names))


def summary(found: Sequence[Mark]) -> str:
    """Say all marks in short: ``clean``, or ``seen: ptbxl (ecgfm); unknown: mine (ecgfm)``.

    Sites that are marked alike are told as their dataset.
    """
    whole: dict[tuple[str, str], set[str]] = {}
    for mark in found:
        whole.setdefault((mark.model, _dataset(mark)), set()).add(mark.status)
    parts = []
    for status in ("seen", "unknown"):
        models: dict[str, dict[str, None]] = {}
        for mark in found:
            if mark.status == status:
                alike = len(whole[mark.model, _dataset(mark)]) == 1
                name = _dataset(mark) if alike else mark.dataset
                models.setdefault(name, {})[mark.model] = None
        listed = ", ".join(f"{name} ({', '.join(by)})" for name, by in models.items())
        parts += [f"{status}: {listed}"] if listed else []
    return "; ".join(parts) or "clean"


def cautions(found: Iterable[Mark]) -> list[str]:
    """Return a sentence for each model and dataset that it has seen."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for mark in found:
        if mark.status == "seen":
            reasons.setdefault((mark.model, _dataset(mark)), {})[mark.reason] = None
    return [
        f"{model} has seen {dataset} in pretraining ({', '.join(why)}), which flatters it."
        for (model, dataset), why in reasons.items()
    ]


def register_pretraining(
    warehouse: Warehouse, spec: ModelSpec, weights_name: str, *, also: Sequence[str] = ()
) -> pa.Table | None:
    """Return the rows of ``pretraining`` that a model's weights call for and that are not there.

    Args:
        warehouse: Where the model embeds.
        spec: The facts about the model.
        weights_name: ``Encoder.weights_name``; untrained weights have seen nothing.
        also: Corpora or datasets besides those of the spec, such as the one a head was fitted on.
    """
    if weights_name.startswith(_UNTRAINED):
        return None
    there: set[str] = set()
    if warehouse.files("pretraining"):
        rows = warehouse.table("pretraining").read(["model", "dataset"]).to_pylist()
        there = {row["dataset"] for row in rows if row["model"] == spec.name}
    source = spec.citations[0] if spec.citations else f"the published weights of {spec.name}"
    new = [name for name in dict.fromkeys([*spec.pretraining, *also]) if name not in there]
    return _rows([(spec.name, name, source) for name in new]) if new else None


def declare(warehouse: Warehouse, model: str, dataset: str, source: str) -> int:
    """Say that a model has seen a dataset in pretraining; what was said of the two is replaced.

    Naming a corpus of `ecgstore.corpora` also says that the model's pretraining is known, so that
    other datasets can be clean.

    Args:
        warehouse: Where it is kept.
        model: The model, without version.
        dataset: A dataset of ``records``, or a corpus.
        source: Who says so.

    Returns:
        1 if it was written, 0 if it was there.

    Raises:
        UsageError: Something is empty, or the model is named with a version or read-out.
    """
    for what, value in (("model", model), ("dataset", dataset), ("source", source)):
        if not value.strip():
            msg = f"The {what} is empty."
            raise UsageError(msg, hint="Name model, dataset and who says so.")
    if {"@", ":"} & {*model}:
        msg = f"{model!r} names more than a model: the register knows no versions and read-outs."
        raise UsageError(msg, hint=f"Write {model.partition('@')[0].partition(':')[0]!r}.")
    name = next((one for one in (*CORPORA, *DATASETS) if one.lower() == dataset.lower()), dataset)
    rows = _rows([(model, name, source)])
    return warehouse.replace("pretraining", rows, command=f"models seen {model}")


def _mark(model: str, dataset: str, told: dict[str, str], *, untrained: bool) -> Mark:
    mine = content(dataset)
    for name, source in told.items():
        theirs = content(name)
        if name == dataset or (mine and theirs and mine.parts & theirs.parts):
            return Mark(model, dataset, "seen", name if name in CORPORA else source)
    if untrained and not told:
        return Mark(model, dataset, "clean")
    contents = [content(name) for name in told]
    known = any(name in CORPORA for name in told) and None not in contents
    perhaps = {part for one in contents if one for part in one.perhaps}
    clean = known and mine is not None and not mine.parts & perhaps
    return Mark(model, dataset, "clean" if clean else "unknown")


def _dataset(mark: Mark) -> str:
    dataset, _, site = mark.dataset.partition("/")
    return dataset if site in sites(dataset) else mark.dataset


def _rows(rows: Sequence[tuple[str, str, str]]) -> pa.Table:
    columns = ("model", "dataset", "source")
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(named, schema=table_schema("pretraining").arrow)
