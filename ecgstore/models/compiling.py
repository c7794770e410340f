"""Compiling the blocks of a network, which fuses what comes between its matrix products.

A block is compiled once and used by all layers of its kind. PyTorch's compiler needs Triton on a
GPU and a C++ compiler on a CPU; where it fails, the network goes on as it was.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["can_compile", "compile_blocks", "is_compiler_failure", "uncompile"]

_log = logging.getLogger(__name__)


def can_compile(device: torch.device) -> bool:
    """Tell whether compiling is worth trying on a device: on a GPU with Triton."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def compile_blocks(network: nn.Module) -> int:
    """Compile every module whose class says ``compiled = True``; returns how many there are.

    Nothing is compiled yet: that happens when a block runs first, once for each kind of shape.
    """
    blocks = [module for module in network.modules() if getattr(module, "compiled", False)]
    for block in blocks:
        block.compile()
    return len(blocks)


def is_compiler_failure(error: BaseException) -> bool:
    """Tell a failure of the compiler from one of the network."""
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    kinds = [type(one).__module__ for one in chain if one is not None]
    return any(kind.startswith(("torch._dynamo", "torch._inductor", "triton")) for kind in kinds)


def uncompile(network: nn.Module, error: BaseException) -> None:
    """Let a network run as it was written, and log why."""
    first = str(error).strip().partition("\n")[0]
    _log.warning("The network is not compiled (%s: %s).", type(error).__name__, first)
    module: Any
    for module in network.modules():
        module._compiled_call_impl = None  # what nn.Module.compile sets
