"""Numbers that others have published for a network, to tell whether ours computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ecgstore.errors import WeightsError
from ecgstore.models.device import exact_float32
from ecgstore.models.ecgfounder import CHECK_LOGITS, CHECK_TOLERANCE, EcgFounderEncoder
from ecgstore.models.ecgfounder_keys import EcgFounderConfiguration

if TYPE_CHECKING:
    from ecgstore.models.encoder import Encoder

__all__ = ["ARCHITECTURES", "check"]

ARCHITECTURES = frozenset({"ecgfounder"})
"""Of whose published weights some numbers are known."""


@torch.inference_mode()
def check(encoder: Encoder) -> str | None:
    """Compare a network's numbers with published ones.

    There are some for ECGFounder with twelve leads: ten logits of its published weights for
    ``linspace(-1, 1, 60000).reshape(1, 12, 5000)``, from a third party's regression test.

    Args:
        encoder: In ``fp32``, with any read-out.

    Returns:
        What was compared, one sentence; None where nobody published numbers for such a network.

    Raises:
        WeightsError: The numbers differ; the message names the largest difference.
    """
    if not isinstance(encoder, EcgFounderEncoder) or encoder.precision != "fp32":
        return None
    network = encoder.network
    if network.configuration != EcgFounderConfiguration() or network.head is None:
        return None
    ramp = torch.linspace(-1, 1, 60_000, dtype=torch.float64).reshape(1, 12, 5000)
    with exact_float32():
        stages = network(ramp.float().to(encoder.device))
        logits = network.head(stages[-1].mean(1))[0, : len(CHECK_LOGITS)].double().cpu()
    gap = float((logits - torch.tensor(CHECK_LOGITS, dtype=torch.float64)).abs().max())
    if not gap <= CHECK_TOLERANCE:
        msg = (
            f"{encoder.weights_name!r} for {encoder.spec.name!r}: the logits of the published "
            f"test vector differ by {gap:.3g}, expected at most {CHECK_TOLERANCE:g}: other weights."
        )
        raise WeightsError(msg, model=encoder.spec.name)
    return f"{len(CHECK_LOGITS)} logits of the published test vector, within {gap:.2g}"
