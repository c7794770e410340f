"""Checkpoints that are hostile, damaged, foreign or merely wrong, and those that convert."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgstore.errors import UsageError, WeightsError
from ecgstore.models import check_weights, convert_weights, load_encoder
from ecgstore.models.weights import digest_of, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[Any, Any]


@pytest.fixture(scope="module")
def goldens(test_data: Path) -> Path:
    return test_data / "goldens"


@pytest.fixture(scope="module")
def state(goldens: Path) -> State:
    """Return the state dict of a valid ST-MEM encoder."""
    path = goldens / "stmem_tiny" / "st_mem_tiny_encoder.pth"
    model: State = torch.load(path, weights_only=True)["model"]
    return model


def save(path: Path, model: object, **options: Any) -> Path:
    torch.save({"epoch": 0, "model": model, "config": {}}, path, **options)
    return path


def refusal(path: Path, model: str = "stmem") -> str:
    """Load a file that must be refused; returns the message, which is one line."""
    with pytest.raises(WeightsError) as caught:
        load_encoder(model, weights=path, device="cpu")
    assert caught.value.path == path
    assert "\n" not in caught.value.message
    assert path.name in caught.value.message
    assert model in caught.value.message
    return caught.value.message


class Bomb:
    """Makes a file when it is unpickled the usual way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("place", ["value", "beside", "tensor"])
@pytest.mark.parametrize("container", ["zip", "legacy", "bare pickle"])
def test_a_pickle_that_runs_code_is_inert(
    tmp_path: Path, state: State, place: str, container: str
) -> None:
    target = tmp_path / "it ran"
    bomb = Bomb(target)
    content: State = {"model": state, "config": {}}
    if place == "value":
        content["model"] = OrderedDict(state, bomb=bomb)
    elif place == "beside":
        content["metrics"] = [bomb]
    else:
        content["model"] = OrderedDict(state, sep_embedding=bomb)
    path = tmp_path / "weights.pth"
    if container == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    if container == "zip" and place == "beside":
        load_encoder("stmem", weights=path, device="cpu")  # tensors are all there and all sound
    else:
        refusal(path)
    checks = check_weights("stmem", path)
    assert not target.exists()
    if container == "zip" and place == "beside":
        assert "left inert: posix.mkdir" in str(checks[0]["detail"])
    if container == "zip":  # the file does what it was made for where nobody guards
        torch.load(path, weights_only=False)
        assert target.exists()


def test_a_pickle_cannot_change_what_later_files_are_read_with(
    tmp_path: Path, goldens: Path
) -> None:
    """BUILD with slot state sets attributes on any object, functions and classes included."""
    attack = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
        b"N}X\x0c\x00\x00\x00__defaults__)s\x86b0"
        b"}X\x05\x00\x00\x00modelcos\nsystem\ns."
    )
    path = tmp_path / "attack.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("attack/data.pkl", attack)
        archive.writestr("attack/byteorder", b"little")
        archive.writestr("attack/version", b"3\n")
    before = torch._utils._rebuild_tensor_v2.__defaults__
    refusal(path, "ecgfm")
    assert before == torch._utils._rebuild_tensor_v2.__defaults__
    foreign = goldens / "ecgfm_tiny" / "pretrained_foreign_objects.pt"
    assert load_encoder("ecgfm", weights=foreign, device="cpu").dim == 32


def sparse(size: int) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        torch.zeros((1, 1), dtype=torch.int64), torch.ones(1), (size,), check_invariants=True
    )


WRONG: dict[str, tuple[Callable[[State], State], str]] = {
    "missing key": (lambda s: {k: v for k, v in s.items() if k != "norm.bias"}, "1 missing (norm"),
    "extra key": (lambda s: s | {"extra": torch.zeros(1)}, "1 unexpected (extra)"),
    "transposed": (
        lambda s: s | {"block1.ff.fn.net.3.weight": s["block1.ff.fn.net.3.weight"].T.contiguous()},
        "1 of another shape (block1.ff.fn.net.3.weight (96, 48), expected (48, 96))",
    ),
    "NaN": (lambda s: s | {"norm.bias": torch.full((48,), torch.nan)}, "NaN"),
    "infinite": (lambda s: s | {"norm.bias": torch.full((48,), torch.inf)}, "infinite"),
    "integers": (lambda s: s | {"norm.bias": torch.zeros(48, dtype=torch.int64)}, "int64"),
    "complex": (lambda s: s | {"norm.bias": torch.zeros(48, dtype=torch.complex64)}, "complex"),
    "text": (lambda s: s | {"norm.bias": "zero"}, "no tensor"),
    "nested list": (lambda s: s | {"norm.bias": [[0.0] * 48]}, "no tensor"),
    "stride 0": (
        lambda s: s | {"sep_embedding": torch.zeros(1).expand(10**12)},
        "claim more than its own",
    ),
    "many views of one tensor": (
        lambda s: s | {f"block{n}.attn.norm.weight": s["pos_embedding"] for n in range(3, 400)},
        "claim more than its own",
    ),
    "sparse": (
        lambda s: s | {"norm.bias": sparse(10**12)},
        "dense",
    ),
    "without storage": (
        lambda s: s | {"norm.bias": torch.empty(10**12, device="meta")},
        "dense",
    ),
    "empty": (lambda s: {}, "no state dict"),
    "no names": (lambda s: {1: torch.zeros(1)}, "no state dict"),
    "no axes": (lambda s: s | {"pos_embedding": torch.tensor(1.0)}, "expected 3 axes"),
    "no patches": (lambda s: s | {"pos_embedding": torch.zeros(1, 2, 48)}, "not an ST-MEM encoder"),
    "no blocks": (lambda s: {k: v for k, v in s.items() if "block" not in k}, "is missing"),
    "half the heads": (
        lambda s: s | {"block0.attn.fn.to_qkv.weight": torch.zeros(100, 48)},
        "not an ST-MEM encoder",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_safe_load_is_not_yet_a_valid_load(tmp_path: Path, state: State, case: str) -> None:
    change, message = WRONG[case]
    with np.errstate(all="ignore"):
        path = save(tmp_path / "weights.pth", change(dict(state)))
    assert message in refusal(path)


def test_the_report_counts_and_names_the_first_few(tmp_path: Path, state: State) -> None:
    kept = {k: v for k, v in state.items() if not k.startswith("block1.")}
    message = refusal(save(tmp_path / "partial.pth", kept))
    assert "12 missing (block1.attn.norm.weight, block1.attn.norm.bias, " in message
    assert "12 unexpected (block2." in message


@pytest.mark.parametrize("keep", [0, 3, 8, 9, 100, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("container", ["zip", "safetensors"])
def test_a_truncated_checkpoint(tmp_path: Path, goldens: Path, keep: float, container: str) -> None:
    whole = goldens / "stmem_tiny" / "st_mem_tiny_encoder.pth"
    path = tmp_path / "cut.pth"
    if container == "safetensors":
        whole = convert_weights("stmem", whole, tmp_path / "whole.safetensors")
        path = path.with_suffix(".safetensors")
    content = whole.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    message = refusal(path)
    assert "cut short" in message


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_checkpoint_never_escapes_as_another_error(
    tmp_path: Path, goldens: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["pretrained_legacy_keys.pt", "finetuned_numpy1.pt"]))
    content = bytearray((goldens / "ecgfm_tiny" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(
            st.integers(0, 20_000) | st.integers(len(content) - 9000, len(content) - 1)
        )
        content[where] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    for row in check_weights("ecgfm", path):
        assert row["result"] in ("ok", "failed")


@pytest.mark.parametrize(
    ("model", "file", "family"),
    [
        ("ecgfm", "stmem_tiny/st_mem_tiny_encoder.pth", "looks like ST-MEM"),
        ("ecgfm", "stmem_tiny/st_mem_tiny_full.pth", "looks like ST-MEM"),
        ("stmem", "ecgfm_tiny/pretrained.pt", "looks like ECG-FM"),
        ("stmem", "ecgfm_tiny/finetuned.pt", "looks like ECG-FM"),
        ("stmem", "ecgjepa_tiny", "not a regular file"),
    ],
)
def test_a_checkpoint_of_another_model(goldens: Path, model: str, file: str, family: str) -> None:
    assert family in refusal(goldens / file, model)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.pt"
    os.mkfifo(fifo)
    for path in (fifo, Path(os.devnull), tmp_path):
        with pytest.raises(WeightsError, match="not a regular file"):
            read_checkpoint("ecgfm", path)
    assert "No such file" in refusal(tmp_path / "absent.pt", "ecgfm")


def test_an_archive_that_expands_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10_000_000))
    assert path.stat().st_size < 20_000
    assert "compressed" in refusal(path)


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    assert "TorchScript" in refusal(path)


def test_a_safetensors_header_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    assert "longer than the file" in refusal(path)


def test_a_storage_shorter_than_its_tensor(tmp_path: Path, state: State) -> None:
    whole = io.BytesIO()
    torch.save({"model": dict(state)}, whole)
    path = tmp_path / "short.pth"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry.filename, data[:8] if "/data/" in entry.filename else data)
    refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').mkdir('ran')", "cannot read"),
        ("[(16, 2, 2)] * 10 ** 9", "cannot read"),
        ("[(16, 2, 2)] * 3", "does not fit"),
        ("[(16, 2, 0)] * 4", "does not fit"),
        ("[(16, 3, 2)] * 4", "does not fit"),
    ],
)
def test_the_stem_is_parsed_never_evaluated(
    tmp_path: Path, goldens: Path, text: str, message: str
) -> None:
    content = torch.load(goldens / "ecgfm_tiny" / "pretrained_legacy_keys.pt", weights_only=True)
    content["cfg"]["model"]["conv_feature_layers"] = text
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert message in refusal(path, "ecgfm")


def test_unknown_heads_are_not_guessed(tmp_path: Path, goldens: Path) -> None:
    content = torch.load(goldens / "ecgfm_tiny" / "pretrained_legacy_keys.pt", weights_only=True)
    path = tmp_path / "bare.pt"
    torch.save(content["model"], path)
    assert "number of heads" in refusal(path, "ecgfm")


def test_bare_and_wrapped_state_dicts_are_read(tmp_path: Path, state: State) -> None:
    wrapped = {f"module.{key}": value for key, value in state.items()}
    wrapped["module.head.weight"] = torch.zeros(3, 48)
    wrapped["module.head.bias"] = torch.zeros(3)
    path = tmp_path / "bare.pth"
    torch.save(wrapped, path)
    whole = load_encoder("stmem", weights=save(tmp_path / "whole.pth", state), device="cpu")
    x = np.random.default_rng(0).standard_normal((2, 12, 150)).astype(np.float32)
    bare = load_encoder("stmem", weights=path, device="cpu")
    np.testing.assert_array_equal(bare.embed(x), whole.embed(x))


@pytest.mark.parametrize(
    ("model", "file", "samples"),
    [
        ("ecgfm", "ecgfm_tiny/pretrained.pt", 2500),
        ("ecgfm", "ecgfm_tiny/pretrained_foreign_objects.pt", 2500),
        ("ecgfm", "ecgfm_tiny/finetuned.pt", 2500),
        ("stmem", "stmem_tiny/st_mem_tiny_full.pth", 150),
    ],
)
def test_conversion_keeps_every_bit(
    tmp_path: Path, goldens: Path, model: str, file: str, samples: int
) -> None:
    source = goldens / file
    target = convert_weights(model, source, tmp_path / "new.safetensors")
    written = target.stat()
    assert written.st_size < source.stat().st_size
    old = load_encoder(model, weights=source, device="cpu")
    new = load_encoder(model, weights=target, device="cpu")
    x = np.random.default_rng(0).standard_normal((2, 12, samples)).astype(np.float32)
    np.testing.assert_array_equal(new.embed(x), old.embed(x))
    assert new.contract == old.contract
    assert new.weights_sha256 != old.weights_sha256
    assert new.version != old.version
    assert all(row["result"] == "ok" for row in check_weights(model, target))
    convert_weights(model, source, target)  # a second run changes nothing
    assert target.stat().st_mtime_ns == written.st_mtime_ns
    assert list(tmp_path.iterdir()) == [target]


def test_conversion_overwrites_nothing(tmp_path: Path, goldens: Path) -> None:
    source = goldens / "stmem_tiny" / "st_mem_tiny_encoder.pth"
    target = tmp_path / "precious"
    target.write_text("precious")
    with pytest.raises(UsageError, match="something else"):
        convert_weights("stmem", source, target)
    assert target.read_text() == "precious"
    with pytest.raises(UsageError, match="cannot be written"):
        convert_weights("stmem", source, tmp_path / "absent" / "new.safetensors")


def test_check_reports_each_step(goldens: Path) -> None:
    rows = check_weights("ecgfm", goldens / "ecgfm_tiny" / "finetuned.pt")
    assert [(row["check"], row["result"]) for row in rows] == [
        ("file", "ok"),
        ("family", "ok"),
        ("configuration", "ok"),
        ("tensors", "ok"),
    ]
    assert "heads 4" in str(rows[2]["detail"])
    assert "depth 3" in str(rows[2]["detail"])
    failed = check_weights("stmem", goldens / "ecgfm_tiny" / "finetuned.pt")
    assert [row["result"] for row in failed] == ["ok", "failed"]


def test_the_digest_tells_names_shapes_and_values() -> None:
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = (
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(1)},
    )
    assert digest_of(dict(reversed(one.items()))) == digest_of(one)
    assert len({digest_of(one), *(digest_of(other) for other in others)}) == 4
