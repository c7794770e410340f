"""Compiled blocks give the same vectors; a compiler that fails costs speed and nothing else."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from ecgstore.models import Encoder, load_encoder
from ecgstore.models.compiling import compile_blocks

if TYPE_CHECKING:
    from pathlib import Path


def vectors(encoder: Encoder, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (4, len(encoder.spec.leads), encoder.window_samples)
    return encoder.encode(torch.randn(shape, generator=generator)[:count], encoder.spec.leads)[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own compiler
@pytest.mark.parametrize("name", ["ecgfm.tiny", "stmem.tiny", "ecgjepa.tiny", "ecgflow.tiny"])
def test_compiled_blocks_give_the_same_vectors(name: str) -> None:
    encoder = load_encoder(name, device="cpu", precision="fp32")
    eager = vectors(encoder, 4)
    assert compile_blocks(encoder.network) == 2
    for count in (4, 3, 1):
        torch.testing.assert_close(vectors(encoder, count), eager[:count], rtol=0, atol=1e-5)
    copy = encoder.on("cpu")
    torch.testing.assert_close(vectors(copy, 4), eager, rtol=0, atol=1e-5)


_BROKEN = """
import logging, torch
import torch._inductor.config as inductor
from ecgstore.models import load_encoder
from ecgstore.models.compiling import compile_blocks

logging.basicConfig()
inductor.cpp.cxx = ("/nonexistent",)
encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
windows = torch.randn(2, 12, encoder.window_samples)
eager, _ = encoder.encode(windows, encoder.spec.leads)
compile_blocks(encoder.network)
again, _ = encoder.encode(windows, encoder.spec.leads)
print(torch.equal(eager, again))
"""


@pytest.mark.slow
def test_without_a_compiler_the_network_runs_as_it_was(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _BROKEN], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "True"
    assert "The network is not compiled" in done.stderr


def test_failures_of_the_network_are_not_taken_for_the_compilers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = load_encoder("stmem.tiny", device="cpu", precision="fp32")
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError):
        encoder.encode(torch.zeros(1, 12, 7), encoder.spec.leads)
    assert not caplog.records
