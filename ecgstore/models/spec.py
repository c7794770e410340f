"""What a model is, apart from its weights: what to feed it, what comes out, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """The facts about one model that do not depend on the weights loaded into it.

    Attributes:
        name: Registry name, ``arch`` or ``arch.tag``.
        arch: The architecture, shared by all tags.
        summary: What the model is, one sentence.
        rate_hz: Samples per second of its input.
        window_s: Seconds of one window.
        leads: The leads it knows, in the order of its input rows.
        missing_leads: What becomes of a lead the record lacks: ``zero`` puts a row of zeros after
            normalising, ``omit`` leaves it out of the input, ``refuse`` refuses the record.
        readouts: Ways to make a record's vector; the first is the default.
        dim: Length of a vector at full size; `Encoder.dim` tells it for the weights loaded.
        preparation: The steps from millivolts to input, in order, with every constant.
        licence: SPDX identifier of the published weights' licence.
        licence_note: What that licence asks of the user beyond attribution of MIT kind, or None.
        citations: Full references of the papers to cite.
        weights_source: Where the user gets the weights, or None for a model built in.
        pretraining: Data sets the published weights were trained on.
        known_weights: Pairs of SHA-256 and name of published files; a match is only good news.
    """

    name: str
    arch: str
    summary: str
    rate_hz: float
    window_s: float
    leads: tuple[str, ...]
    missing_leads: Literal["zero", "omit", "refuse"]
    readouts: tuple[str, ...]
    dim: int
    preparation: tuple[str, ...]
    licence: str
    licence_note: str | None
    citations: tuple[str, ...]
    weights_source: str | None
    pretraining: tuple[str, ...] = ()
    known_weights: tuple[tuple[str, str], ...] = ()
