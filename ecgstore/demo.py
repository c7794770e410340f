"""The whole job on synthetic ECGs: no files to find, no network, under two minutes.

It calls what a user would call, in the order of the README, and leaves a warehouse behind that
can be asked anything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecgstore.progress import Silent
from ecgstore.store import Store
from ecgstore.synthetic import cohort, write_wfdb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecgstore.progress import Progress
    from ecgstore.synthetic import SyntheticRecord

__all__ = ["DemoResult", "demo"]

_MODELS = ("stmem.mini", "ecgfm.mini")
_BASELINE = {"width": 8, "epochs": 2, "learning_rate": 0.004, "rate_hz": 50, "seconds": 3.0}
_NOTICES = (
    "The ECGs are synthetic: no score here says how a model does on people.",
    "The mini encoders are small and made from synthetic ECGs: for show, not for clinical use.",
    "The ResNet-50 baseline is cut short: an eighth of the width, 2 epochs, 3 s at 50 Hz.",
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        rows: The scores, one row a feature set, as `ecgstore.evaluate.EvaluateResult.rows`.
        report: The page to open in a browser.
        warehouse: The warehouse folder.
        records: How many ECGs were made.
        notices: What must be known to read the scores.
        seconds: Time taken.
    """

    rows: list[dict[str, object]]
    report: Path
    warehouse: Path
    records: int
    notices: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        return (
            f"DemoResult({self.records} synthetic ECGs, report {self.report.name!r}, "
            f"{self.seconds:.0f} s)"
        )

    def _repr_html_(self) -> str:
        return f"{self.records} synthetic ECGs: <a href='{self.report.as_uri()}'>report</a>"


def demo(
    folder: Path, *, records: int = 600, seed: int = 0, progress: Progress | None = None
) -> DemoResult:
    """Make a synthetic cohort and run the whole job on it.

    WFDB files are ingested, labelled (ACS) and embedded by two small encoders, whose vectors are
    fused; XGBoost on each and a short ResNet-50 are scored over ten reshuffles, and a report is
    written. A second call on the same folder finds everything done.

    Args:
        folder: Where ``ecgs``, ``warehouse`` and ``report.html`` are made.
        records: How many ECGs; with fewer than 60 a reshuffle may lack a class.
        seed: Seed of the cohort and of the split.
        progress: Told of every stage.

    Raises:
        EcgStoreError: What the steps raise.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    for notice in _NOTICES:
        progress.note(notice)
    progress.start(records, "ECGs")
    labels = write_wfdb(folder / "ecgs", _counted(cohort(records, seed=seed), progress))
    with Store(folder / "warehouse") as store:
        store.ingest(folder / "ecgs", dataset="synthetic", keep_ids=True, progress=progress)
        store.label(
            labels,
            task="ACS",
            label="ACS",
            patient="patient_id",
            keep_ids=True,  # of people who do not exist
            progress=progress,
        )
        for model in _MODELS:
            store.embed(model, progress=progress)
        split = store.split("demo", task="ACS", repeats=10, test_size=0.2, seed=seed)
        fused = store.fuse(_MODELS, name="fusion")
        scores = store.evaluate(
            [*_MODELS, fused],
            split,
            baseline="resnet50",
            params={f"resnet50.{name}": str(value) for name, value in _BASELINE.items()},
            progress=progress,
        )
        report = store.report(
            folder / "report.html", split=split, title="Synthetic ECGs", progress=progress
        )
    return DemoResult(
        rows=scores.rows,
        report=report.path,
        warehouse=folder / "warehouse",
        records=records,
        notices=(*_NOTICES, *scores.notes),
        seconds=time.perf_counter() - began,
    )


def _counted(records: Iterator[SyntheticRecord], progress: Progress) -> Iterator[SyntheticRecord]:
    for record in records:
        yield record
        progress.advance()
