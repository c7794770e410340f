"""Recipes of finetuning, as published for each model; what a publication leaves open is marked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ecgstore.errors import UnknownNameError
from ecgstore.pretraining.recipe import Recipe

if TYPE_CHECKING:
    from ecgstore.models.heads import Kind, Output

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How an encoder is finetuned.

    Attributes:
        name: What ``--preset`` calls it.
        recipe: Optimiser, learning rate and epochs.
        head: Kind of head.
        freeze: ``none``, ``stem``, ``all``, or how many blocks on top are trained.
        layer_decay: Factor of the learning rate from each block to the one below; 1 for none.
        class_weights: Whether positives count as often as there are negatives for each.
        smoothing: Label smoothing: 0 and 1 become ``s / 2`` and ``1 - s / 2``.
        watch: What early stopping looks at on the validation patients.
        patience: Looks without a better one before it stops, one look an epoch.
        augment: Whether windows are cut at random and augmented.
        single: Whether it takes one task only.
        output: What the labels must be; None: what they look like.
    """

    name: str
    recipe: Recipe
    head: Kind = "linear"
    freeze: str | int = "none"
    layer_decay: float = 1.0
    class_weights: bool = False
    smoothing: float = 0.0
    watch: Literal["loss", "auroc"] = "loss"
    patience: int = 10
    augment: bool = False
    single: bool = False
    output: Output | None = None


_ECGFM = Preset(
    name="ecgfm",
    recipe=Recipe(
        source="arXiv 2408.05178 and its code; chosen here: early stopping, which it has not",
        learning_rate=1e-6,
        batch_size=256,
        epochs=140,
        betas=(0.9, 0.98),
        schedule="constant",
    ),
    freeze="stem",
    class_weights=True,
)

_STMEM = Preset(
    name="stmem",
    recipe=Recipe(
        source=(
            "arXiv 2402.09450 and its code; chosen here: 100 epochs, a tenth of them warm-up, for "
            "the code ships numbers for a demonstration only"
        ),
        learning_rate=1e-3,
        rate_for=256,
        batch_size=256,
        epochs=100,
        weight_decay=0.05,
        warmup=0.1,
    ),
    augment=True,
)

_ECGFLOW = Preset(
    name="ecgflow",
    recipe=Recipe(
        source="doi 10.1056/AIoa2500164 and its code",
        learning_rate=5e-5,
        batch_size=256,
        epochs=100,
        warmup=0.05,
    ),
    freeze=4,
    smoothing=0.001,
    watch="auroc",
    output="binary",
)

_CHOSEN = Recipe(
    source="chosen here: nothing is published",
    learning_rate=3e-4,
    rate_for=64,
    batch_size=64,
    epochs=50,
    weight_decay=0.05,
    decay_vectors=False,
    warmup=0.1,
    clip=1.0,
)

_GENERIC = Preset(name="generic", recipe=_CHOSEN, layer_decay=0.75)

PRESETS: dict[str, Preset] = {
    one.name: one
    for one in (
        _ECGFM,
        replace(_ECGFM, name="ecgfm-lvef", single=True, output="binary"),
        replace(_ECGFM, name="ecgfm-troponin", single=True, output="binary"),
        _STMEM,
        replace(_STMEM, name="stmem-linear", freeze="all"),
        _ECGFLOW,
        replace(
            _ECGFLOW,
            name="ecgflow-regression",
            smoothing=0.0,
            watch="loss",
            output="continuous",
        ),
        replace(_GENERIC, name="anyecg-anomaly", single=True, class_weights=True, output="binary"),
        # A record may have several arrhythmias, so it is one yes or no each, and no softmax.
        replace(_GENERIC, name="anyecg-arrhythmia", class_weights=True, output="binary"),
        _GENERIC,
    )
}
"""Every preset by name."""

_DEFAULTS = {
    "ecgfm": "ecgfm",
    "stmem": "stmem",
    "mtae": "stmem",
    "mlae": "stmem",
    "ecgflow": "ecgflow",
    "anyecg": "anyecg-arrhythmia",
}
"""Preset of an architecture; the others have the generic one."""


def find_preset(name: str | None, arch: str, output: Output) -> Preset:
    """Return a preset by name, or the one that is published for an architecture and such labels.

    Raises:
        UnknownNameError: There is no such preset.
    """
    if name is not None:
        if name not in PRESETS:
            raise UnknownNameError(name, kind="preset", known=PRESETS)
        return PRESETS[name]
    preset = PRESETS[_DEFAULTS.get(arch, "generic")]
    if preset.output in (None, output):
        return preset
    return PRESETS["ecgflow-regression" if arch == "ecgflow" else "generic"]
