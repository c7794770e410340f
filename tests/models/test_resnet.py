"""The supervised baseline: its shape, its size, and that it learns."""

from __future__ import annotations

import pytest
import torch

from ecgstore.models.resnet import ResNet50


def test_size_is_as_documented() -> None:
    network = ResNet50()
    assert sum(parameter.numel() for parameter in network.parameters()) == 15_961_217
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv1d)]
    assert len(convolutions) == 1 + 3 * 16 + 4  # stem, bottlenecks, shortcuts


@pytest.mark.parametrize(("leads", "samples"), [(12, 1000), (12, 5000), (8, 333)])
def test_one_logit_a_record_at_any_length(leads: int, samples: int) -> None:
    network = ResNet50(leads=leads, width=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(3, leads, samples)).shape == (3,)


def test_it_learns_a_frequency() -> None:
    torch.manual_seed(0)
    network = ResNet50(leads=2, width=4)
    label = torch.arange(16).remainder(2).float()
    time = torch.arange(256) / 256
    x = torch.sin(2 * torch.pi * time * (4 + 8 * label[:, None]) + torch.rand(16, 1) * 6)
    x = x[:, None].expand(-1, 2, -1) + 0.1 * torch.randn(16, 2, 256)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x), label)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
