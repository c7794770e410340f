"""Protocols of evaluation: the published one to the letter, and the one without its leaks.

What a protocol fixes is kept with the split it draws, so a run over that split, made again at any
time, follows the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """How an evaluation is done.

    Attributes:
        name: The name it is asked for by.
        group: What stays on one side of a reshuffle.
        fit: The records that the scaling of fused vectors is fitted on.
        folds: Inner folds for scores of the training records; 0 for none.
        summary: What it is, in a sentence.
    """

    name: Literal["paper", "sound"]
    group: Literal["patient_id", "none"]
    fit: Literal["train", "all"]
    folds: int
    summary: str


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        one.name: one
        for one in (
            Protocol(
                "paper",
                group="none",
                fit="all",
                folds=0,
                summary="To the letter of Meng et al. (2025, arXiv 2502.17476), sections 2.1 to 3: "
                "reshuffles by record, and each model's vectors min-max normalised before they are "
                "joined and split; mean and standard deviation over the reshuffles.",
            ),
            Protocol(
                "sound",
                group="patient_id",
                fit="train",
                folds=5,
                summary="Patients are never on both sides, whatever is fitted is fitted on "
                "training records, and intervals are over patients.",
            ),
        )
    }
)
"""By name. The published text says neither that patients were kept together nor on which records
the normalisation was fitted; ``paper`` follows the letter, ``sound`` repairs both."""
