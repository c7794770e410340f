"""A student learns what its teacher says, and what it then says is its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ecgstore import signal
from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.features import feature_set, matrix
from ecgstore.models import get_spec, load_encoder
from ecgstore.models.weights import write_safetensors
from ecgstore.pretraining import Batch, Draws, Ranks, methods
from ecgstore.pretraining.student import Student, Teacher
from ecgstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecgstore.pretraining.training import PretrainResult

STUDENTS = sorted(name for name in methods if name == methods.get(name).model)


@pytest.fixture
def taught(archive: Path) -> Path:
    """Return the archive with vectors of a teacher, and labels."""
    with Store(archive) as store:
        store.embed("ecgfm.tiny", device="cpu", precision="fp32")
    return archive


def learn(home: Path, out: Path, student: str = "ecgflow", **options: Any) -> PretrainResult:
    given: dict[str, Any] = {
        "teacher": "ecgfm.tiny",
        "size": "tiny",
        "steps": 4,
        "batch_size": 8,
        "checkpoint_every": 2,
        "device": "cpu",
        "precision": "fp32",
        **options,
    }
    with Store(home) as store:
        return store.distil(student, out=out, **given)


def student_of(name: str, dim: int = 7) -> Student:
    """Return a started student of a teacher with vectors of so many numbers."""
    kind = methods.get(name)
    vectors = np.random.default_rng(0).normal(3, 2, (50, dim)).astype(np.float32)
    student = Student(kind.of("tiny", {}), get_spec(kind.model), Teacher.of(vectors))
    student.start(0)
    return student


def batch_of(student: Student, items: int = 2, dim: int = 7) -> Batch:
    rng = np.random.default_rng(1)
    leads = len(get_spec(student.model).leads)
    noise = rng.normal(0, 0.3, (items, leads, 5000))
    windows = np.ascontiguousarray(student.windows(noise, 500.0, signal, Draws()), np.float32)
    facts = torch.from_numpy(rng.normal(3, 2, (items, dim)).astype(np.float32))
    return Batch(
        torch.from_numpy(windows), tuple(range(leads)), torch.arange(items), facts, Draws()
    )


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_published_as_the_encoder_that_was_trained(name: str, tmp_path: Path) -> None:
    student = student_of(name)
    batch = batch_of(student)
    torch.autograd.backward(student(batch, Ranks())["loss"])
    trained = [one for one in student.parameters() if one.requires_grad]
    assert all(one.grad is not None for one in trained)
    with torch.no_grad():
        for one in trained:
            assert one.grad is not None
            one.sub_(0.01 * one.grad.sign())
    tensors = {key: x.detach() for key, x in student.state_dict().items()}
    published = {key: x.contiguous() for key, x in student.published(tensors).items()}
    path = tmp_path / "student.safetensors"
    settings = student.configuration.settings()
    write_safetensors(path, published, settings=settings, source="")
    encoder = load_encoder(student.model, weights=path, device="cpu", precision="fp32")
    vectors = encoder.embed(batch.windows.flatten(0, 1).numpy())
    mean = torch.from_numpy(vectors.reshape(*batch.windows.shape[:2], -1).mean(1))
    with torch.no_grad():
        predicted = student.projection(mean)
        wanted = (batch.facts - student.teacher_mean) / student.teacher_deviation
        mse = (predicted - wanted).square().mean()
        cosine = 1 - torch.nn.functional.cosine_similarity(predicted, wanted).mean()
        told = student(batch, Ranks())
    torch.testing.assert_close(told["mse"], mse, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told["cosine"], cosine, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told["loss"], mse + cosine, rtol=1e-4, atol=1e-5)


def test_an_untrained_layer_predicts_about_the_mean() -> None:
    student = student_of("stmem")
    with torch.no_grad():
        told = student(batch_of(student, items=8), Ranks())
    assert 0.5 < float(told["mse"]) < 2
    assert 0.5 < float(told["cosine"]) < 1.5


def test_a_teacher_is_measured_in_its_own_deviation() -> None:
    vectors = np.random.default_rng(0).normal(5, 3, (200, 4)).astype(np.float32)
    vectors[:, 2] = 1e6 / 3  # the same in all
    teacher = Teacher.of(vectors)
    standardised = (vectors - teacher.mean) / teacher.deviation
    np.testing.assert_allclose(standardised.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(0), [1, 1, 0, 1], atol=1e-5)


def test_a_student_learns_and_its_vectors_tell_more_of_the_teachers(
    taught: Path, tmp_path: Path
) -> None:
    """A ridge regression from vectors of the student leaves less than one from its start's."""
    done = learn(taught, tmp_path / "out", steps=25, checkpoint_every=25, learning_rate=5e-3)
    start = learn(taught, tmp_path / "start", steps=1, learning_rate=1e-30)
    assert done.first is not None
    assert done.loss is not None
    assert done.loss < 0.8 * done.first
    assert (done.method, done.model, done.records, done.pieces) == ("distil", "ecgflow", 24, 24)
    left = []
    with Store(taught) as store:
        for weights in (done.weights, start.weights):
            model = store.embed("ecgflow", weights=weights, device="cpu", precision="fp32")
            with Catalog(store.warehouse.relations()) as catalog:
                names = ("ecgfm.tiny", f"ecgflow@{model.version}")
                members = [feature_set(catalog, name).members[0] for name in names]
                _, blocks = matrix(catalog, members)
            teacher, student = ((x - x.mean(0)) / (x.std(0) + 1e-9) for x in blocks)
            kernel = student @ student.T / student.shape[1]
            fitted = kernel @ np.linalg.solve(kernel + np.eye(len(kernel)), teacher)
            left.append(float(np.square(teacher - fitted).mean()))
        row = store.sql(
            "select kind, method, model, params from trainings "
            f"where weights_sha256 = '{done.weights_sha256}'"
        ).fetchone()
    assert left[0] < 0.9 * left[1]
    assert row is not None
    assert row[:3] == ("distil", "distil", "ecgflow")
    assert json.loads(row[3])["teacher"][0].startswith("ecgfm.tiny@")


@pytest.mark.slow
def test_a_student_goes_on_exactly(taught: Path, tmp_path: Path) -> None:
    whole = learn(taught, tmp_path / "whole")
    learn(taught, tmp_path / "cut")
    for path in (tmp_path / "cut" / "checkpoints").glob("step-00000004.*"):
        path.unlink()
    (tmp_path / "cut" / "model.safetensors").unlink()
    rest = learn(taught, tmp_path / "cut", resume=True)
    assert (rest.done, rest.weights_sha256) == (2, whole.weights_sha256)
    with pytest.raises(UsageError, match="student"):
        learn(taught, tmp_path / "cut", "ecgflow:ptbxl", resume=True)


def test_only_the_training_records_of_a_split_are_learned(taught: Path, tmp_path: Path) -> None:
    labels = taught.parent / "labels.csv"
    with Store(taught) as store:
        ids = [one for (one,) in store.sql("select record_id from records").fetchall()]
        labels.write_text("id,y\n" + "".join(f"{one},{i % 2}\n" for i, one in enumerate(ids)))
        store.label(labels, task="T", id="id", label="y")
        store.split("two", task="T", repeats=2)
    with pytest.raises(UsageError, match="2 reshuffles"):
        learn(taught, tmp_path / "out", split="two")
    with pytest.raises(UsageError, match="no reshuffle 2"):
        learn(taught, tmp_path / "out", split="two", repeat=2)
    with pytest.raises(UsageError, match="without the split"):
        learn(taught, tmp_path / "out", repeat=0)
    done = learn(taught, tmp_path / "out", split="two", repeat=1, steps=1)
    with Store(taught) as store:
        used = store.sql(
            f"select record_id from trained_records where run_id = '{done.run_id}' order by all"
        ).fetchall()
        train = store.sql(
            "select record_id from splits where split_id = 'two' and repeat = 1 "
            "and split = 'train' order by all"
        ).fetchall()
    assert used == train


def test_a_student_has_seen_what_its_teacher_had(taught: Path, tmp_path: Path) -> None:
    with Store(taught) as store:
        (middle,) = store.sql("select quantile_disc(record_id, 0.5) from records").fetchone() or (
            "",
        )
    first = learn(taught, tmp_path / "first", "stmem", where=f"record_id < '{middle}'", steps=1)
    with Store(taught) as store:
        store.embed("stmem", weights=first.weights, device="cpu")
    where = f"record_id >= '{middle}'"
    second = learn(taught, tmp_path / "second", teacher="stmem", where=where, steps=1)
    assert second.weights is not None
    student = load_encoder("ecgflow", weights=second.weights, device="cpu")
    assert student.trained["runs"] == [first.run_id, second.run_id]
    assert student.trained["before"] == []
    of_records = "the terms of the records they were trained on"
    assert student.trained["licences"] == [of_records], "the teacher's, not the student's model's"
    with Store(taught) as store:
        version = store.embed("ecgflow", weights=second.weights, device="cpu").version
        found = store.sql(f"select licence from models where version = '{version}'").fetchone()
    assert found == (of_records,)


def test_what_cannot_be_learned_is_said(taught: Path, tmp_path: Path) -> None:
    for options, error, said in (
        ({"teacher": "ecgfm"}, UnknownNameError, "feature set"),
        ({"student": "none"}, UnknownNameError, "pretraining method"),
        ({"student": "ecgflow:none"}, UnknownNameError, "variant"),
        ({"student": "anyecg.tokeniser"}, UsageError, "trains no encoder"),
        ({"student": "anyecg"}, UsageError, "tokeniser"),
        ({"where": "age > 300"}, NotEnoughDataError, "no records"),
    ):
        with pytest.raises(error, match=said):
            learn(taught, tmp_path / "out", **options)
    with Store(taught) as store:
        (middle,) = store.sql("select quantile_disc(record_id, 0.5) from records").fetchone() or (
            "",
        )
        store.embed("stmem.tiny", where=f"record_id < '{middle}'", device="cpu")
    with pytest.raises(NotEnoughDataError, match="None of the records chosen has a vector"):
        learn(taught, tmp_path / "out", teacher="stmem.tiny", where=f"record_id >= '{middle}'")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_its_row(taught: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    words = ["distil", "ecgflow", "--teacher", "ecgfm.tiny", "--size", "tiny", "--steps", "1"]
    words += ["--batch-size", "8", "--device", "cpu", "--json", "-o", str(tmp_path / "out")]
    done = run("-w", str(taught), *words)
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert (row["method"], row["done"]) == ("distil", 1)
    assert (tmp_path / "out" / "model.safetensors").exists()
