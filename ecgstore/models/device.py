"""Where an encoder runs and in which arithmetic."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ecgstore.errors import UsageError
from ecgstore.settings import device_name

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["exact_float32", "find_device", "find_precision", "has_bfloat16"]


def find_device(name: str) -> torch.device:
    """Return the device of a name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: There is no such device here.
    """
    wanted = device_name(None if name == "auto" else name)
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", wanted)
    if match is None:
        msg = f"Unknown device {wanted!r}. Known devices: auto, cpu, cuda, cuda:N."
        raise UsageError(msg)
    if wanted != "cpu" and int(match.group(1) or 0) >= torch.cuda.device_count():
        msg = f"The device {wanted!r} was asked for, but PyTorch finds no such GPU here."
        raise UsageError(msg, hint="Use --device cpu, or a PyTorch build with CUDA.")
    return torch.device(wanted)


def find_precision(name: str, device: torch.device) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 where the hardware multiplies it.

    Raises:
        UsageError: The name is none of the three.
    """
    if name == "auto":
        return "bf16" if has_bfloat16(device) else "fp32"
    if name not in ("fp32", "bf16"):
        msg = f"Unknown precision {name!r}. Known precisions: auto, fp32, bf16."
        raise UsageError(msg)
    return name


def exact_float32() -> AbstractContextManager[None]:
    """Keep cuDNN from rounding float32 convolutions to ten bits, which is its default."""
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )
    return context


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16 matrices itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool({"amx_bf16", "avx512_bf16"} & set(facts.split()))
