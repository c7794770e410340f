"""A lead made from the others by AnyECG: codes for what is hidden, and what those codes look like.

The task "corrupted lead generation" of Wang, Cao, Hu et al., arXiv 2411.17711. That every token of
one lead is hidden, that the likeliest code is taken, and that the first stage's decoder draws the
codes of all leads together, is chosen here. A file that can do it keeps both stages: with
``pretraining.mask_token`` and ``pretraining.head`` the encoder names codes it cannot see, and
``pretraining.decoder`` turns codes into samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from ecgstore.errors import UsageError, WeightsError
from ecgstore.models import load_encoder
from ecgstore.models.anyecg import AnyEcgConfiguration, AnyEcgEncoder
from ecgstore.models.device import exact_float32
from ecgstore.models.layers import Linear
from ecgstore.models.rhythm_codes import MultiViewDecoder, TokeniserSize
from ecgstore.models.weights import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ecgstore.models.weights import Checkpoint

__all__ = ["LeadGenerator"]

_HINT = "Give the file that pretrain anyecg wrote, begun from one of pretrain anyecg.tokeniser."
_PRETRAINING = "pretraining."
_PARTS = {
    "mask_token": "the vector that hides tokens",
    "head.": "the head that names hidden codes",
    "decoder.": "the decoder of the first stage",
}


class LeadGenerator:
    """Makes a lead of prepared windows from the other leads.

    Made by `load`.

    Args:
        encoder: AnyECG in single precision, of the file that the other arguments are from.
        tokeniser: The dimensions of its tokeniser.
        tensors: What the file holds under ``pretraining.``, by the rest of the keys.

    Attributes:
        encoder: The encoder, which prepares records.
    """

    def __init__(
        self, encoder: AnyEcgEncoder, tokeniser: TokeniserSize, tensors: Mapping[str, Tensor]
    ) -> None:
        self.encoder = encoder
        self._mask_token = tensors["mask_token"].to(encoder.device)
        self._head = _filled(Linear(encoder.dim, tokeniser.codes), tensors, "head.")
        self._decoder = _filled(MultiViewDecoder(tokeniser), tensors, "decoder.")
        for part in (self._head, self._decoder):
            part.to(encoder.device)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        weights: str | Path | None,
        settings: Mapping[str, object] | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a model with what only its pretraining used; single precision.

        Args:
            name: As for `ecgstore.models.load_encoder`.
            weights: A file that ecgstore wrote.
            settings: As for `ecgstore.models.load_encoder`.
            device: As for `ecgstore.models.load_encoder`.

        Raises:
            UsageError: The model is no AnyECG, or is asked for by another read-out.
            WeightsError: The file lacks the tokeniser, or what only pretraining used.
        """
        encoder = load_encoder(
            name, weights=weights, settings=settings, device=device, precision="fp32"
        )
        if not isinstance(encoder, AnyEcgEncoder):
            msg = f"{encoder.spec.name!r} cannot make leads; AnyECG can."
            raise UsageError(msg)
        if encoder.variant.name == "long" or encoder.readout != encoder.readouts[0]:
            msg = f"{encoder.pooling!r} is a way to make vectors, not leads."
            raise UsageError(msg, hint=f"Write the model as {encoder.spec.name} alone.")
        if weights is None:
            msg = f"{encoder.spec.name!r} as it is built in is untrained and has no decoder."
            raise WeightsError(msg, model=encoder.spec.name, hint=_HINT)
        checkpoint = read_checkpoint(encoder.spec.name, Path(weights))
        checkpoint = checkpoint.with_settings(settings or {})
        size = AnyEcgConfiguration.infer(checkpoint.dense(AnyEcgEncoder.select(checkpoint)))
        if size.tokeniser is None:
            raise _lacking(checkpoint, "the tokeniser")
        held = {
            key.removeprefix(_PRETRAINING): tensor
            for key, tensor in checkpoint.tensors.items()
            if key.startswith(_PRETRAINING)
        }
        for prefix, what in _PARTS.items():
            if not any(key.startswith(prefix) for key in held):
                raise _lacking(checkpoint, what)
        with torch.device("meta"):
            shapes = {
                "mask_token": (encoder.dim,),
                **_shapes(Linear(encoder.dim, size.tokeniser.codes), "head."),
                **_shapes(MultiViewDecoder(size.tokeniser), "decoder."),
            }
        used = {key: tensor for key, tensor in held.items() if key.startswith(tuple(_PARTS))}
        return cls(encoder, size.tokeniser, checkpoint.dense(used).matched(shapes))

    @torch.inference_mode()
    def generate(
        self, windows: NDArray[np.floating], leads: Sequence[str], lead: str
    ) -> NDArray[np.float32]:
        """Make a lead.

        Args:
            windows: ``(windows, leads, samples)`` float32 of the other leads, as the encoder
                prepares them.
            leads: Their names, in standard order.
            lead: The one to make, which is not among them.

        Returns:
            ``(windows, samples)`` float32 at 300 Hz, with mean 0 and deviation 1 as the network
            knows leads; only about so, as it is made.

        Raises:
            UsageError: The lead is one of those given, or no lead of the model.
        """
        names = [one for one in self.encoder.spec.leads if one in leads or one == lead]
        if lead in leads or len(names) != len(leads) + 1 or windows.shape[1] != len(leads):
            msg = f"{lead!r} cannot be made from {', '.join(leads)}."
            raise UsageError(msg)
        network = self.encoder.network
        assert network.tokeniser is not None  # as `of` makes sure of
        row, places = names.index(lead), [self.encoder.spec.leads.index(one) for one in names]
        x = torch.from_numpy(np.ascontiguousarray(windows, np.float32)).to(self.encoder.device)
        known = [place for i, place in enumerate(places) if i != row]
        x_all = torch.cat([x[:, :row], torch.zeros_like(x[:, :1]), x[:, row:]], dim=1)
        with exact_float32():
            codes = network.tokeniser(x, known).number.unflatten(1, (len(known), -1))
            masked = torch.zeros(len(x), len(names), codes.shape[2], dtype=torch.bool)
            masked[:, row] = True
            masked = masked.to(x.device)
            tokens = network.encoder(x_all, places, masked=(masked, self._mask_token))
            logits = self._head(network.encoder.norm(tokens)).unflatten(1, (len(names), -1))
            guess = logits[:, row].argmax(-1)
            codes = torch.cat([codes[:, :row], guess[:, None], codes[:, row:]], dim=1)
            vectors = network.tokeniser.quantiser.codes[codes.flatten(1)]
            decoded = self._decoder(vectors, len(names)).morphology
        made: NDArray[np.float32] = (
            decoded.unflatten(1, (len(names), -1))[:, row].flatten(1).cpu().numpy()
        )
        return made


def _filled(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> nn.Module:
    """Give a module its tensors."""
    own = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
    module.load_state_dict(own)
    return module.eval().requires_grad_(requires_grad=False)


def _shapes(module: nn.Module, prefix: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{key}": tuple(x.shape) for key, x in module.state_dict().items()}


def _lacking(checkpoint: Checkpoint, what: str) -> WeightsError:
    msg = f"{checkpoint.path.name!r} does not hold {what}; no lead can be made with it."
    return WeightsError(msg, model=checkpoint.model, path=checkpoint.path, hint=_HINT)
