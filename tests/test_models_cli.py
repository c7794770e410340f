"""Commands about encoders, and what the page about them says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import ecgstore
from ecgstore.errors import WeightsError
from ecgstore.models import Weights, models, published
from ecgstore.models.ecgfounder import CHECK_LOGITS
from ecgstore.models.ecgfounder_keys import EcgFounderConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.models import Encoder, ModelSpec

ROOT = Path(__file__).resolve().parent.parent


def rows(done: Any) -> list[dict[str, Any]]:
    """Return what a command printed as JSON."""
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_the_list_has_every_contract_and_fits_a_screen(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = rows(run("models", "list", "--json"))
    assert [row["model"] for row in listed] == models.names()
    for row in listed:
        spec = ecgstore.get_spec(row["model"])
        assert row["leads"] == list(spec.leads)
        assert row["preparation"] == list(spec.variants[0].preparation)
        assert (row["rate_hz"], row["licence"]) == (spec.rate_hz, spec.licence)
        told = {"window_s", "units", "resampler", "filters", "normalisation", "windows"}
        told |= {"missing_leads", "lost_samples", "readouts", "dim", "pretraining", "citations"}
        assert told <= set(row)
    monkeypatch.setenv("COLUMNS", "100")
    table = run("models", "list", "--format", "table").out.splitlines()
    assert max(len(line.rstrip()) for line in table) <= 100
    assert [line.split()[0] for line in table[3:] if line[1:2].strip()] == models.names()


def test_a_model_is_shown_with_all_its_variants_or_the_one_named(run: Callable[..., Any]) -> None:
    facts = {row["field"]: row["value"] for row in rows(run("models", "show", "stmem", "--json"))}
    assert facts["three: windows"] != facts["centre: windows"]
    assert facts["commercial"] is False
    one = rows(run("models", "show", "stmem:centre", "--json"))
    assert {row["field"]: row["value"] for row in one}["windows"] == facts["centre: windows"]
    table = run("models", "show", "stmem", "--format", "table").out
    assert "I, II, III, aVR" in table


def test_two_contracts_are_compared_field_by_field(run: Callable[..., Any]) -> None:
    diff = ("models", "contract", "diff")
    variants = rows(run(*diff, "stmem:three", "stmem:centre", "--json"))
    assert [row["field"] for row in variants] == ["model", "windows"]
    models = {row["field"]: row for row in rows(run(*diff, "ecgfm", "stmem", "--json"))}
    assert (models["rate_hz"]["a"], models["rate_hz"]["b"]) == (500.0, 250.0)
    assert models["missing_leads"]["b"] == "omit"
    assert {"window_s", "resampler", "filters", "normalisation", "licence", "step 1"} <= set(models)
    assert "leads" not in models
    whole = rows(run(*diff, "ecgfm", "stmem", "--same", "--json"))
    assert {row["field"] for row in whole if not row["equal"]} == set(models)
    assert {"leads", "units"} <= {row["field"] for row in whole if row["equal"]}
    assert rows(run(*diff, "stmem", "stmem:three", "--json")) == []
    wrong = run(*diff, "stmem", "stmem:middle")
    assert wrong.code == 2
    assert "Unknown variant 'middle'" in wrong.err


def test_steps_are_aligned_by_what_they_say() -> None:
    steps = [
        row
        for row in ecgstore.diff_contracts("ecgfounder:raw", "ecgfounder:ptbxl_eval")
        if str(row["field"]).startswith("step")
    ]
    assert [row["a"] for row in steps] == [None]


def test_settings_that_tensors_do_not_tell_are_given_by_hand(
    run: Callable[..., Any], test_data: Path, tmp_path: Path
) -> None:
    given = ("ecgjepa", "--weights", test_data / "goldens" / "ecgjepa_tiny" / "checkpoint.pth")
    lacking = run("models", "check", *given, "--json")
    assert lacking.code == 1
    assert "how many heads" in json.loads(lacking.out)[-1]["detail"]
    assert rows(run("models", "check", *given, "--set", "heads=4", "--json"))
    out = tmp_path / "ecgjepa.safetensors"
    assert run("models", "convert", *given, "--set", "heads=4", "-o", out).code == 0
    assert rows(run("models", "check", "ecgjepa", "--weights", out, "--json"))
    wrong = run("models", "check", *given, "--set", "heads")
    assert (wrong.code, wrong.out) == (2, "")


def test_what_a_model_has_seen_can_be_declared(run: Callable[..., Any], tmp_path: Path) -> None:
    home = ("-w", tmp_path / "warehouse")
    assert run(*home, "init").code == 0
    seen = ("models", "seen", "mine", "--dataset", "ptbxl", "--source", "our own finetuning")
    assert run(*home, *seen).code == 0
    assert run(*home, *seen).code == 0
    assert rows(run(*home, "sql", "from pretraining", "--json")) == [
        {"model": "mine", "dataset": "ptbxl", "source": "our own finetuning"}
    ]


def test_published_numbers_tell_a_right_network_from_a_wrong_one() -> None:
    """An ECGFounder of full size gives the bias of its head where all else is zero."""
    configuration = EcgFounderConfiguration()
    tensors = {key: torch.zeros(shape) for key, shape in configuration.shapes().items()}
    tensors["dense.bias"][:10] = torch.tensor(CHECK_LOGITS)
    model = models.get("ecgfounder")

    def encoder() -> Encoder:
        weights = Weights("my.pth", "0" * 64, configuration, dict(tensors))
        return model.encoder(model.spec, weights, device="cpu", precision="fp32")

    assert "10 logits" in (published.check(encoder()) or "")
    tensors["dense.bias"][3] += 0.25
    with pytest.raises(WeightsError, match=r"my.pth.*differ by 0\.25,"):
        published.check(encoder())
    assert published.check(ecgstore.load_encoder("stmem.tiny", device="cpu")) is None


def line(spec: ModelSpec) -> str:
    """Return a model's line in the page's table."""
    source = "built in" if spec.weights_source is None else "`models pull`" if spec.hub else "yours"
    cells = (
        f"`{spec.name}`",
        f"{spec.window_s:g} s at {spec.rate_hz:g} Hz",
        f"{len(spec.leads)}, {spec.missing_leads}",
        ", ".join(f"`{one.name}`" for one in spec.variants if one.name),
        ", ".join(f"`{one}`" for one in spec.readouts),
        str(spec.dim),
        source,
        spec.licence,
    )
    return f"| {' | '.join(cells)} |\n"


def test_the_page_about_encoders_is_current(snapshot: Callable[[Path, str], None]) -> None:
    """Written anew by ``--update-snapshots``, below what stands above the table."""
    page = ROOT / "docs" / "encoders.md"
    text, title, _ = page.read_text().partition("## All encoders\n\n")
    head = (
        "Each with its window, its leads and what becomes of lacking ones (`zero`: zeros instead,\n"
        "`omit`: left out, `refuse`: the record is refused), and the default first.\n\n"
        "| model | window | leads | variants | read-outs | dim | weights | licence |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    table = "".join(line(spec) for spec in ecgstore.list_models())
    snapshot(page, text + title + head + table)
