"""Finetuning: a head on an encoder, trained together on labels.

What is trained is a `Finetuned` network, a method like those of `ecgstore.pretraining`, so the
loop, its checkpoints and its tables are the same. `finetune` makes it from a preset and stops by
patients of the training part that are held out.
"""

from __future__ import annotations

from ecgstore.finetuning.finetune import FinetuneResult, finetune
from ecgstore.finetuning.presets import PRESETS, Preset

__all__ = ["PRESETS", "FinetuneResult", "Preset", "finetune"]
