"""What is written down and told when a model first makes something in a warehouse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa

from ecgstore.leakage import register_pretraining
from ecgstore.models.model import models
from ecgstore.schema import table_schema

if TYPE_CHECKING:
    from ecgstore.models import Encoder
    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["introduce"]


def introduce(warehouse: Warehouse, encoder: Encoder, *, command: str, progress: Progress) -> None:
    """Write a model into ``models`` and ``pretraining``, and note its terms if it is new there.

    Args:
        warehouse: Where something of the model will be written.
        encoder: The model with its weights.
        command: Named in the log.
        progress: Told the licence, and whom to cite.
    """
    if warehouse.append("models", _row(encoder), command=command):
        progress.note(_terms(encoder))
    seen = register_pretraining(
        warehouse,
        encoder.spec,
        encoder.weights_name,
        also=encoder.also_seen,
        version=encoder.version,
        trained=encoder.trained,
    )
    if seen is not None:
        warehouse.append("pretraining", seen, command=command)


_OF_RECORDS = "the terms of the records they were trained on"


def _licence(encoder: Encoder) -> str:
    """Return the terms of the weights.

    Weights trained here are under those of the weights they started from, or learned from as a
    student; if there were none, under those of their records.
    """
    name, trained = encoder.spec.name, encoder.trained
    packaged = name in models and encoder.weights_name == models.get(name).packaged
    if packaged or not trained:
        return encoder.spec.licence
    told = trained.get("licences")
    before = [str(one) for one in told] if isinstance(told, list) else []
    if not before and trained.get("before"):  # a file of an earlier release
        return encoder.spec.licence
    return " and ".join(before) or _OF_RECORDS


def _terms(encoder: Encoder) -> str:
    """Return what a user must know of a model on first use: licence and whom to cite."""
    spec = encoder.spec
    lines = [f"{spec.name}: weights under {_licence(encoder)}."]
    if spec.licence_note and _licence(encoder) == spec.licence:
        lines.append(spec.licence_note)
    if encoder.weights_name.startswith("untrained"):
        lines.append("These weights are untrained: the vectors show the machinery, not a model.")
    return "\n".join([*lines, *(f"Cite: {citation}" for citation in spec.citations)])


def _row(encoder: Encoder) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "model": encoder.spec.name,
                "version": encoder.version,
                "pooling": encoder.pooling,
                "weights_sha256": encoder.weights_sha256,
                "contract": json.dumps(encoder.contract, sort_keys=True),
                "precision": encoder.precision,
                "dim": encoder.dim,
                "licence": _licence(encoder),
                "citation": "\n".join(encoder.spec.citations),
                "source": encoder.weights_name,
                "labels": list(encoder.labels) if encoder.readout == "logits" else None,
            }
        ],
        schema=table_schema("models").arrow,
    )
