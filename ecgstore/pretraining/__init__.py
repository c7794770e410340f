"""Self-supervised training of the encoders, on the records of a warehouse.

A *method* (`method`) is an encoder's network with what only its training needs, and the loss of a
batch as a pure function of windows and random numbers. Everything random in a step follows from
the seed and the number of the step, so a run that was interrupted goes on exactly, and several
processes draw what one would. The loop (`loop`) is the same for all methods.
"""

from __future__ import annotations

from ecgstore.pretraining import (
    anyecg,
    anyecg_tokeniser,
    ecgflow,
    ecgfm,
    ecgjepa,
    mae,
    stmem,
)
from ecgstore.pretraining.method import Batch, Draws, Method, methods
from ecgstore.pretraining.ranks import Ranks
from ecgstore.pretraining.recipe import Recipe

__all__ = [
    "Batch",
    "Draws",
    "Method",
    "Ranks",
    "Recipe",
    "anyecg",
    "anyecg_tokeniser",
    "ecgflow",
    "ecgfm",
    "ecgjepa",
    "mae",
    "methods",
    "stmem",
]
