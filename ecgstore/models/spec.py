"""What a model is, apart from its weights: what to feed it, what comes out, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ecgstore.errors import UnknownNameError

__all__ = ["HubFile", "ModelSpec", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One way of feeding a model; where publications differ, each is a variant of its own.

    Attributes:
        name: Behind the colon of the model's name, as in ``stmem:centre``. Empty where a model
            knows one way only.
        units: ``mV``, or ``any`` where normalising cancels them.
        resampler: How the model's rate is reached, one phrase.
        filters: What is filtered, in order; empty for none.
        normalisation: What is subtracted and divided by, and over what.
        windows: Which parts of a record become windows, and how a record's vector comes of them.
        preparation: The steps from millivolts to vector, in order, with every constant.
        least_rate_hz: Records sampled less often are refused, 0 for none.
    """

    name: str
    units: Literal["mV", "any"]
    resampler: str
    filters: tuple[str, ...]
    normalisation: str
    windows: str
    preparation: tuple[str, ...]
    least_rate_hz: float = 0.0


@dataclass(frozen=True)
class HubFile:
    """A published weights file on the Hugging Face Hub.

    Attributes:
        repo: Repository, ``owner/name``.
        filename: File in it.
        revision: Commit, 40 hexadecimal digits, or None where it is not known.
        sha256: Digest of the file, or None where it is not known.
    """

    repo: str
    filename: str
    revision: str | None = None
    sha256: str | None = None


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
        variants: Ways to feed it; the first is the default.
        readouts: Ways to make a vector of what the network computes; the first is the default.
            ``block{k}`` stands for one a block, ``logits`` is there where the weights have a head.
        dim: Length of a default vector at full size; `Encoder.dim` tells it for weights loaded.
        licence: SPDX identifier of the published weights' licence.
        licence_note: What that licence asks of the user beyond attribution of MIT kind, or None.
        citations: Full references of the papers to cite.
        weights_source: Where the user gets the weights, or None for a model built in.
        lost_samples: What becomes of single lost samples: ``refuse`` refuses the record, ``fill``
            puts the value that ``preparation`` names.
        pretraining: Corpora the published weights were trained on; see `ecgstore.corpora`.
        known_weights: Pairs of SHA-256 and name of published files; a match is only good news.
        hub: The file that ``models pull`` fetches, or None.
        commercial: Whether the licence of the weights allows commercial use.
    """

    name: str
    arch: str
    summary: str
    rate_hz: float
    window_s: float
    leads: tuple[str, ...]
    missing_leads: Literal["zero", "omit", "refuse"]
    variants: tuple[Variant, ...]
    readouts: tuple[str, ...]
    dim: int
    licence: str
    licence_note: str | None
    citations: tuple[str, ...]
    weights_source: str | None
    lost_samples: Literal["refuse", "fill"] = "refuse"
    pretraining: tuple[str, ...] = ()
    known_weights: tuple[tuple[str, str], ...] = ()
    hub: HubFile | None = None
    commercial: bool = True

    def variant(self, name: str | None) -> Variant:
        """Return a variant by name, the default one for None.

        Raises:
            UnknownNameError: There is no such variant.
        """
        if name is None:
            return self.variants[0]
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = [variant.name for variant in self.variants if variant.name]
        raise UnknownNameError(name, kind="variant", known=known)

    def readouts_of(self, *, depth: int, head: bool) -> tuple[str, ...]:
        """Return the read-outs that weights with so many blocks, and a head or none, have."""
        names: list[str] = []
        for name in self.readouts:
            if "{k}" in name:
                names += [name.replace("{k}", str(number)) for number in range(depth)]
            elif name != "logits" or head:
                names.append(name)
        return tuple(names)

    def pooling(self, variant: Variant, readout: str) -> str:
        """Return the one word for variant and read-out; what goes without saying is left out."""
        plain = readout == self.readouts[0]
        first = "" if variant is self.variants[0] and not plain else variant.name
        return ".".join(filter(None, (first, "" if plain and first else readout)))

    def named(self, pooling: str) -> tuple[str | None, str | None]:
        """Return the variant and the read-out that a word stands for, None for what it leaves out.

        Args:
            pooling: As `pooling` makes it: ``three``, ``block5`` or ``centre.block5``.
        """
        names = {variant.name for variant in self.variants if variant.name}
        first, _, rest = pooling.partition(".")
        if first in names:
            return first, rest or None
        return None, pooling or None
