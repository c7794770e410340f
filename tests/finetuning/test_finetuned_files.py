"""A finetuned file is the same encoder with a head, whatever the architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch

from ecgstore.errors import WeightsError
from ecgstore.finetuning.network import Finetuned, Training
from ecgstore.models import Weights, convert_weights, load_encoder, load_weights, models
from ecgstore.models.ecgfm_keys import LABELS, EcgFmConfiguration
from ecgstore.models.ecgfounder_keys import EcgFounderConfiguration
from ecgstore.models.heads import SETTING, HeadConfiguration, Kind
from ecgstore.models.mae import MaeConfiguration
from ecgstore.models.resnet_encoder import ResNet50Configuration
from ecgstore.models.weights import write_safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from ecgstore.models import Configuration, Encoder

MADE: dict[str, Configuration] = {
    "ecgfounder1": EcgFounderConfiguration(
        leads=1, stem=8, filters=(8, 12), blocks=(1, 2), group_width=4, classes=7
    ),
    "resnet50": ResNet50Configuration(width=2),
    "mtae": MaeConfiguration(dim=32, depth=2, heads=1, hidden=32, classes=3),
}
BUILT_IN = {
    models.get(name).spec.arch: name for name in models if models.get(name).untrained is not None
}


def base(name: str) -> Weights:
    if name not in MADE:
        return load_weights(name)
    made = MADE[name]
    return Weights("made", "0" * 64, made, made.untrained(0))


def made(name: str, kind: Kind, path: Path, **more: Any) -> tuple[Finetuned, Encoder]:
    """Return a network whose head was started, and the encoder its file loads as."""
    variant = models.get(name).spec.variants[0].name
    head = HeadConfiguration(kind, ("A", "B"), "binary", variant)
    method = Finetuned(name, base(name), head, Training(**more))
    method.start(3)
    tensors = method.published(method.state_dict())
    write_safetensors(path, tensors, settings=method.configuration.settings(), source=None)
    return method, load_encoder(name, weights=path, device="cpu", precision="fp32")


def windows(encoder: Encoder) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = 600 if encoder.spec.arch == "anyecg" else encoder.window_samples
    shape = (2, len(encoder.spec.leads), samples)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", [*BUILT_IN.values(), *MADE])
def test_a_file_gives_what_the_network_gave(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for kind in get_args(Kind):
        method, encoder = made(name, kind, path)
        x = windows(encoder)
        assert encoder.labels == ("A", "B")
        atol = (
            1e-6 if encoder.spec.arch == "ecgfm" else 0
        )  # its position is kept as direction and norm
        np.testing.assert_allclose(encoder.embed(x), method.live.embed(x), rtol=0, atol=atol)
        np.testing.assert_allclose(encoder.classify(x), method.live.classify(x), rtol=0, atol=atol)
        options: dict[str, Any] = {"weights": path, "device": "cpu", "precision": "fp32"}
        logits = load_encoder(f"{encoder.spec.name}:logits", **options)
        assert (logits.dim, logits.pooling) == (2, "logits")
        told = 1 / (1 + np.exp(-logits.embed(x)))
        np.testing.assert_allclose(told, encoder.classify(x), rtol=0, atol=1e-6)
        path.unlink()


def test_the_vectors_are_those_of_the_encoder(tmp_path: Path) -> None:
    """Only ECGFlow's last norm is put on anew, as published, over the mean."""
    for name in ("stmem.tiny", "ecgfm.tiny"):
        _, encoder = made(name, "linear", tmp_path / f"{name}.safetensors")
        plain = load_encoder(name, device="cpu", precision="fp32")
        x = windows(plain)
        np.testing.assert_allclose(encoder.embed(x), plain.embed(x), rtol=0, atol=2e-6)
        assert encoder.version != plain.version
    _, encoder = made("ecgflow.tiny", "linear", tmp_path / "ecgflow.safetensors")
    options: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
    mean = load_encoder("ecgflow.tiny:tokens-mean", **options).embed(x := windows(encoder))
    wanted = torch.nn.functional.layer_norm(torch.from_numpy(mean), mean.shape[1:], eps=1e-6)
    np.testing.assert_allclose(encoder.embed(x), wanted, rtol=0, atol=1e-6)


def test_the_head_of_a_published_file_makes_room(tmp_path: Path) -> None:
    """ECG-FM's 17 outputs go, and with them what is known of their names."""
    size = EcgFmConfiguration(
        stem=((32, 2, 2),) * 4, dim=64, depth=2, heads=2, hidden=128, position_kernel=16,
        position_groups=4, classes=17,
    )  # fmt: skip
    published = Weights("published", "0" * 64, size, size.untrained(0))
    head = HeadConfiguration("linear", ("A",), "binary", "record_mean")
    method = Finetuned("ecgfm.tiny", published, head, Training())
    method.start(0)
    assert len(LABELS) == 17
    assert method.live.labels == ("A",)
    assert not any(key.startswith("proj.") for key in method.published(method.state_dict()))


def test_a_converted_copy_keeps_the_head(tmp_path: Path) -> None:
    _, encoder = made("stmem.tiny", "attention", tmp_path / "one.safetensors")
    copy = tmp_path / "two.safetensors"
    convert_weights("stmem.tiny", tmp_path / "one.safetensors", copy)
    again = load_encoder("stmem.tiny", weights=copy, device="cpu", precision="fp32")
    assert np.array_equal(again.classify(x := windows(encoder)), encoder.classify(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "no setting 'finetuned_head'"),
        ({"labels": ["A", "A"]}, r"labels of its head are \['A', 'A'\]"),
        ({"labels": []}, "expected different names"),
        ({"labels": ["A", "B", "C"]}, "2 of another shape|of another shape"),
        ({"kind": "tree"}, "its head is 'tree'"),
        ({"output": "survival"}, "'survival' outputs, which is not known"),
        ({"variant": "sideways"}, "was fed by 'sideways', expected one of"),
        ({"kind": "mlp"}, "2 missing"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    method, _ = made("ecgflow.tiny", "linear", tmp_path / "good.safetensors")
    told = method.configuration.settings()
    described = told.pop(SETTING)
    assert isinstance(described, dict)
    settings = told | ({SETTING: described | change} if change else {})
    bad = tmp_path / "bad.safetensors"
    write_safetensors(bad, method.published(method.state_dict()), settings=settings, source=None)
    with pytest.raises(WeightsError, match=message):
        load_encoder("ecgflow.tiny", weights=bad, device="cpu")
