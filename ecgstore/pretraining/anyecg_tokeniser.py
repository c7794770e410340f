"""AnyECG's first stage: rhythm codes that tell form, frequencies and person of each second.

Wang, Cao, Hu et al., arXiv 2411.17711. The equations are in `ecgstore.models.rhythm_codes`; how
their training is driven was not published and is chosen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecgstore.models.rhythm_codes import (
    DEMOGRAPHY,
    FREQUENCIES,
    PATCH,
    MultiViewDecoder,
    Quantised,
    Tokeniser,
    TokeniserSize,
    Views,
    frequency_view,
    quantiser_losses,
    straight_through,
    view_losses,
)
from ecgstore.models.weights import seeded_tensors
from ecgstore.pretraining.anyecg_stage import DEVIATION, AnyEcgMethod
from ecgstore.pretraining.method import Draws, methods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ecgstore.models.anyecg import AnyEcgConfiguration
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Batch, Setting
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["AnyEcgTokeniser", "ScaledViews"]

_WEIGHT = """(
    select max(value) from measurements as m
    where m.record_id = records.record_id and m.name = 'weight'
)"""
_STARTING_ROWS = 16
"""Tokens looked at for each code that is to start."""
_IDLE = 20
"""Updates without a token after which a code is put on one."""


class ScaledViews(nn.Module):
    """The decoder with the scale of what it decodes.

    Attributes:
        decoder: From codes to views.
        frequency: ``(6, 2)`` mean and deviation of each array of wavelet coefficients.
        demography: ``(3, 2)`` those of age in years, weight in kg, and sex (male 1, female 0).
    """

    frequency: Tensor
    demography: Tensor

    def __init__(self, size: TokeniserSize) -> None:
        super().__init__()
        self.decoder = MultiViewDecoder(size)
        self.register_buffer("frequency", _no_scale(len(FREQUENCIES)))
        self.register_buffer("demography", _no_scale(len(DEMOGRAPHY)))

    def start(self, seed: int) -> None:
        """Give every weight its starting value; nothing is scaled."""
        shapes = {key: tuple(x.shape) for key, x in self.decoder.state_dict().items()}
        self.decoder.load_state_dict(seeded_tensors(shapes, seed=seed, deviation=DEVIATION))
        for scale in (self.frequency, self.demography):
            scale.copy_(_no_scale(len(scale)))

    def wanted(self, x: Tensor, facts: Tensor) -> Views:
        """Return what is to be decoded.

        Args:
            x: ``(items, leads, samples)``.
            facts: ``(items, 3)`` age, weight and sex, NaN where not known.
        """
        patches = _patches(x)
        mean, deviation = self.demography.unbind(-1)
        return Views(patches, frequency_view(patches, self.frequency), (facts - mean) / deviation)


@methods.register("anyecg.tokeniser")
class AnyEcgTokeniser(AnyEcgMethod):
    """Tokeniser and decoder: a code is good if the views of its second can be told from it.

    The loss is the sum of three views, codebook and commitment [paper], each a mean [chosen].

    Codes are kept in use [chosen]; otherwise the tokens soon leave most behind, and in the end all
    may share one. They start on tokens of the untrained encoder, and one that no token had in 20
    updates is put on a token of the last batch. `idle` counts the updates of each.
    """

    name = "anyecg.tokeniser"
    columns = (
        "age",
        _WEIGHT,
        "case sex when 'male' then 1 when 'female' then 0 end",
    )
    idle: Tensor

    def __init__(
        self, configuration: AnyEcgConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(configuration, settings)
        self.tokeniser = Tokeniser(self.size)
        self.views = ScaledViews(self.size)
        self.register_buffer("idle", torch.zeros(self.size.codes, dtype=torch.int64))
        self._used = torch.zeros(self.size.codes, dtype=torch.bool)
        self._tokens = torch.empty(0)

    @classmethod
    def key(cls, name: str) -> str:
        """Return the name of the tokeniser's tensors, and what is behind ``pretraining.``."""
        part, _, rest = name.partition(".")
        return {"tokeniser": name, "views": f"pretraining.{rest}"}.get(part, "")

    def start(self, seed: int) -> None:
        """Start matrices uniformly with `DEVIATION`, norms at 1, biases at 0 [chosen]."""
        shapes = {key: tuple(x.shape) for key, x in self.tokeniser.state_dict().items()}
        tensors = seeded_tensors(shapes, seed=seed, deviation=DEVIATION)
        self.tokeniser.load_state_dict(tensors)
        self.views.start(seed + 1)

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take tokeniser, and decoder with its scales, from a file of either stage."""
        lacking = super().take(checkpoint)
        if "tokeniser" not in self.taken:
            checkpoint.refuse("holds no tokeniser of AnyECG")
        return lacking

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw nothing: the first stage has no chance in it."""
        return Draws()

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the loss with its five terms, and how many ``codes`` are in use.

        That is the exponential of the entropy of the codes' shares: the number of codes that
        would be, if all were used alike.
        """
        x = batch.windows
        quantised = self._quantised(x, batch.leads)
        codes = straight_through(quantised.hidden, quantised.codes)
        decoded = self.views.decoder(codes, len(batch.leads))
        with torch.autocast(x.device.type, enabled=False):
            wanted = self.views.wanted(x.float(), batch.facts)
            views = view_losses(decoded, wanted)
            codebook, commitment = quantiser_losses(quantised.hidden, quantised.codes)
        known = (~batch.facts.isnan()).sum()
        # A mean over what is known, of which each process has as much as it has.
        demography = views.demography * known * ranks.size / ranks.total(known).clamp(min=1)
        loss = views.morphology + views.frequency + demography + codebook + commitment
        counts = quantised.number.flatten().bincount(minlength=self.size.codes)
        counts = ranks.total(counts)
        share = counts / counts.sum()
        if self.training:
            self._used = self._used.to(x.device) | (counts > 0)
            self._tokens = ranks.gather(quantised.hidden.detach().flatten(0, 1))
        return {
            "loss": loss,
            "morphology": views.morphology,
            "frequency": views.frequency,
            "demography": demography,
            "codebook": codebook,
            "commitment": commitment,
            "codes": torch.special.entr(share).sum().exp(),
        }

    def _quantised(self, x: Tensor, leads: Sequence[int]) -> Quantised:
        """Return the codes, compared in float32: in bfloat16 many would be equally near."""
        encoder = self.tokeniser.encoder
        tokens = encoder.norm(encoder(x, leads))
        with torch.autocast(x.device.type, enabled=False):
            quantised: Quantised = self.tokeniser.quantiser(tokens)
        return quantised

    @torch.no_grad()
    def observe(self, batches: Iterable[Batch]) -> None:
        """Measure the scales of the views, and put the codes where tokens are.

        What came from a file stays. Every process must be given the same batches.
        """
        frequency, demography = _Scale(), _Scale()
        rows: list[Tensor] = []
        enough = _STARTING_ROWS * self.size.codes
        for batch in batches:
            view = frequency_view(_patches(batch.windows.float()))
            frequency.add([array.flatten() for array in view.split_with_sizes(FREQUENCIES, -1)])
            demography.add([one[~one.isnan()] for one in batch.facts.unbind(-1)])
            if sum(map(len, rows)) < enough:
                rows.append(self._quantised(batch.windows, batch.leads).hidden.flatten(0, 1))
        if "pretraining.decoder" not in self.taken:
            self.views.frequency.copy_(frequency.told())
            self.views.demography.copy_(demography.told())
        if "tokeniser" not in self.taken and rows:
            self.tokeniser.quantiser.codes.copy_(self._spread(torch.cat(rows)))

    @torch.no_grad()
    def stepped(self, done: float) -> None:
        """Put codes that nothing uses on tokens."""
        self.idle.add_(1).masked_fill_(self._used, 0)
        lost, codes = self.idle >= _IDLE, self.tokeniser.quantiser.codes
        codes.copy_(torch.where(lost[:, None], self._spread(self._tokens), codes))
        self.idle.masked_fill_(lost, 0)
        self._used = torch.zeros_like(self._used)

    def _spread(self, tokens: Tensor) -> Tensor:
        """Return a token for each code, evenly spaced, ``(codes, code_dim)``."""
        places = torch.linspace(0, len(tokens) - 1, self.size.codes, device=tokens.device)
        return tokens[places.long()]


def _patches(x: Tensor) -> Tensor:
    """Return ``(items, leads * seconds, 300)`` of windows."""
    return x.reshape(len(x), -1, PATCH)


def _no_scale(rows: int) -> Tensor:
    return torch.tensor([[0.0, 1.0]]).repeat(rows, 1)


class _Scale:
    """Mean and deviation of several quantities, from batches."""

    def __init__(self) -> None:
        self._sums = torch.zeros((), dtype=torch.float64)

    def add(self, numbers: Sequence[Tensor]) -> None:
        """Take in some of each quantity, ``(n,)``."""
        doubles = [one.double() for one in numbers]
        sums = [torch.stack([torch.ones_like(x), x, x.square()]).sum(1) for x in doubles]
        self._sums = self._sums.to(sums[0].device) + torch.stack(sums)

    def told(self) -> Tensor:
        """Return ``(quantities, 2)``; 0 and 1 of none, and 1 of those that are all equal."""
        count, total, squares = self._sums.unbind(-1)
        mean = total / count.clamp(min=1)
        deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        # What rounding makes of equal numbers is no deviation to divide by.
        equal = deviation <= 1e-6 * mean.abs()
        return torch.stack([mean, deviation.masked_fill(equal, 1.0)], -1)
