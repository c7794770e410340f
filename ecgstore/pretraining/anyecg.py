"""AnyECG's second stage: name the rhythm codes of seconds that are hidden.

Wang, Cao, Hu et al., arXiv 2411.17711.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgstore.errors import UsageError
from ecgstore.models.anyecg import AnyEcg
from ecgstore.models.layers import Linear
from ecgstore.models.weights import seeded_tensors
from ecgstore.pretraining.anyecg_stage import DEVIATION, AnyEcgMethod
from ecgstore.pretraining.anyecg_tokeniser import ScaledViews
from ecgstore.pretraining.method import Draws, methods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ecgstore.models.anyecg import AnyEcgConfiguration
    from ecgstore.models.rhythm_codes import TokenEncoder
    from ecgstore.models.weights import Checkpoint
    from ecgstore.pretraining.method import Batch, Setting
    from ecgstore.pretraining.ranks import Ranks

__all__ = ["AnyEcgCodes", "CodePredictor", "masked_code_loss"]


class CodePredictor(nn.Module):
    """What the second stage trains with: the encoder must name the codes of tokens it cannot see.

    Its ``mask_token`` and ``head`` are what a file holds under ``pretraining.``.
    """

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.head = Linear(dim, codes)

    def forward(
        self, encoder: TokenEncoder, x: Tensor, leads: Sequence[int], masked: Tensor
    ) -> Tensor:
        """Return logits over the codes, ``(batch, leads, seconds, codes)`` float32.

        Args:
            encoder: The encoder that is trained.
            x: ``(batch, leads, samples)``.
            leads: Which of the twelve each row is.
            masked: ``(batch, leads, seconds)`` bool, true for a random half [chosen] of them.
        """
        tokens = encoder(x, leads, masked=(masked, self.mask_token))
        logits: Tensor = self.head(encoder.norm(tokens))
        return logits.float().reshape(*masked.shape, -1)


def masked_code_loss(logits: Tensor, codes: Tensor, masked: Tensor) -> Tensor:
    """Return the negative log-likelihood of the clean tokens' codes, summed where masked [paper].

    Args:
        logits: ``(…, codes)``.
        codes: ``(…)`` int64, from the frozen tokeniser.
        masked: ``(…)`` bool.
    """
    return functional.cross_entropy(logits[masked], codes[masked], reduction="sum")


@methods.register("anyecg")
class AnyEcgCodes(AnyEcgMethod):
    """Encoder and head; tokeniser and decoder of the first stage are kept as they are.

    The decoder takes no part; it is in the file so that codes can be turned into a signal again.

    Settings:
        masked: Share of the tokens that are hidden, 0.5 [chosen].
    """

    name = "anyecg"
    needs_file = "anyecg.tokeniser"
    defaults: ClassVar[Mapping[str, Setting]] = {**AnyEcgMethod.defaults, "masked": 0.5}

    def __init__(
        self, configuration: AnyEcgConfiguration, settings: Mapping[str, Setting] | None = None
    ) -> None:
        super().__init__(configuration, settings)
        if not 0 < float(self.settings["masked"]) <= 1:
            msg = (
                f"A share of {self.settings['masked']} masked tokens is not above 0 and at most 1."
            )
            raise UsageError(msg)
        self.network = AnyEcg(configuration)
        self.views = ScaledViews(self.size)
        self.predictor = CodePredictor(configuration.dim, self.size.codes)
        for fixed in (self.network.tokeniser, self.views):
            assert fixed is not None  # `size` has refused what has no tokeniser
            fixed.requires_grad_(requires_grad=False)

    @classmethod
    def key(cls, name: str) -> str:
        """Return the network's own names, and what else there is behind ``pretraining.``."""
        part, _, rest = name.partition(".")
        return rest if part == "network" else f"pretraining.{rest}"

    def start(self, seed: int) -> None:
        """Start as the first stage does [chosen]; the tokeniser must come from a file."""
        shapes = {key: tuple(x.shape) for key, x in self.network.state_dict().items()}
        self.network.load_state_dict(seeded_tensors(shapes, seed=seed, deviation=DEVIATION))
        self.views.start(seed + 1)
        shapes = {"weight": tuple(self.predictor.head.weight.shape)}
        head = seeded_tensors(shapes, seed=seed + 2, deviation=DEVIATION)
        self.predictor.head.load_state_dict(head | {"bias": torch.zeros(self.size.codes)})
        nn.init.zeros_(self.predictor.mask_token)

    def take(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Take the first stage's file, or one of this stage to go on from.

        Raises:
            UsageError: It holds no tokeniser with its decoder.
            WeightsError: It is of another size.
        """
        lacking = super().take(checkpoint)
        if not self.taken >= {"tokeniser", "pretraining.decoder"}:
            msg = f"{checkpoint.path.name!r} holds none as it was trained"
            raise _no_tokeniser(msg)
        return lacking

    def observe(self, batches: Iterable[Batch]) -> None:
        """Measure nothing, but refuse to learn the codes of an untrained tokeniser.

        Raises:
            UsageError: None was taken.
        """
        if "tokeniser" not in self.taken:
            msg = "none was given"
            raise _no_tokeniser(msg)

    def draw(self, items: int, leads: int, generator: torch.Generator) -> Draws:
        """Draw a number for each token; those with the lowest are hidden."""
        noise = torch.rand(items, leads * self.seconds, generator=generator)
        return Draws(each={"noise": noise})

    def forward(self, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        """Return the loss of a hidden token, and the share of those that are named rightly.

        The paper sums over hidden tokens; their mean does not grow with the batch [chosen].
        """
        x, noise = batch.windows, batch.draws.each["noise"]
        count = max(1, int(float(self.settings["masked"]) * noise.shape[1]))
        hidden = torch.zeros_like(noise, dtype=torch.bool)
        hidden.scatter_(1, noise.argsort(1)[:, :count], value=True)
        masked = hidden.view(len(x), len(batch.leads), -1)
        codes = self.codes(x, batch.leads)
        logits = self.predictor(self.network.encoder, x, batch.leads, masked)
        loss = masked_code_loss(logits, codes, masked) / (len(x) * count)
        accuracy = (logits.argmax(-1) == codes)[masked].float().mean()
        return {"loss": loss, "accuracy": accuracy}

    @torch.no_grad()
    def codes(self, x: Tensor, leads: Sequence[int]) -> Tensor:
        """Return the tokeniser's codes, ``(items, leads, seconds)`` int64, told in float32."""
        assert self.network.tokeniser is not None
        with torch.autocast(x.device.type, enabled=False):
            number: Tensor = self.network.tokeniser(x.float(), leads).number
        return number.view(len(x), len(leads), -1)


def _no_tokeniser(why: str) -> UsageError:
    msg = f"'anyecg' learns the codes of a trained tokeniser; {why}."
    hint = "Train one first: pretrain anyecg.tokeniser; then give its file with --weights."
    return UsageError(msg, hint=hint)
