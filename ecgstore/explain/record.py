"""One ECG of a warehouse explained: why a stored run gives it its score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecgstore import paper
from ecgstore.catalog import Catalog
from ecgstore.errors import UsageError
from ecgstore.explain.drawing import draw, svg_of
from ecgstore.explain.head import changed, encoders_of, head_of
from ecgstore.record import LEADS
from ecgstore.stored import stored_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from ecgstore.explain.attribution import Attribution
    from ecgstore.progress import Progress
    from ecgstore.record import Record
    from ecgstore.warehouse import Warehouse

__all__ = ["Explanation", "explain_record"]

Method = Literal["occlusion", "gradients"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an ECG gets its score.

    Attributes:
        run_id: The run.
        repeat: The reshuffle whose classifier is explained.
        record: The ECG.
        attribution: What its leads and moments add to the score.
    """

    run_id: str
    repeat: int
    record: Record
    attribution: Attribution

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a lead."""
        return self.attribution.rows

    def table(self, each: str = "block") -> list[dict[str, object]]:
        """Return the rows; they are by lead, whatever a row of SHAP values would be."""
        return self.rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What to mind when reading it."""
        return self.attribution.notes

    def draw(self, *, dpi: int = 150) -> Figure:
        """Draw it over the ECG on paper; nothing of the person is written on it."""
        told = self.attribution
        title = f"{told.method.capitalize()}: score {told.score:+.2f} {told.unit}"
        title += f"   run {self.run_id}, reshuffle {self.repeat}"
        return draw(self.record, told, title=title, dpi=dpi)

    def save(self, path: str | Path, *, dpi: int = 150) -> Path:
        """Write the drawing as PNG, SVG or PDF; the same explanation gives the same bytes.

        Raises:
            UsageError: Another suffix, or the file cannot be written.
        """
        return paper.save(self.draw(dpi=dpi), path)

    def __repr__(self) -> str:
        return f"Explanation(run {self.run_id}/{self.repeat}: {self.attribution!r})"

    def _repr_html_(self) -> str:
        return svg_of(self.record, self.attribution)


def explain_record(
    warehouse: Warehouse,
    run: str,
    record_id: str,
    *,
    method: Method = "occlusion",
    repeat: int = 0,
    weights: Sequence[str | Path | None] | None = None,
    settings: Sequence[Mapping[str, object]] | None = None,
    device: str = "auto",
    window_s: float = 0.2,
    progress: Progress | None = None,
) -> Explanation:
    """Explain the score that a reshuffle of a stored run gives an ECG.

    Args:
        warehouse: Where run and record are; only read.
        run: Id of a run whose classifiers `ecgstore.train.train` kept, or the beginning of one.
        record_id: The record; it need not be one of the run.
        method: ``occlusion`` for any classifier, or ``gradients`` (integrated gradients).
        repeat: The reshuffle.
        weights: A file for each model of the run, in its order; None for one that is built in.
        settings: What a file does not tell, for each model.
        device: As for `ecgstore.load_encoder`.
        window_s: Of ``occlusion``: the stretch made flat at a time, seconds. The shorter, the more
            copies are scored.
        progress: Told of every copy or step.

    Raises:
        UnknownNameError: There is no such run, reshuffle or record.
        UsageError: The method is unknown or cannot explain this run, or the record has no
            standard lead.
        WeightsError: Weights are absent, or other than those of the run.
        UnfitRecordError: An encoder cannot take the record.
    """
    if method not in ("occlusion", "gradients"):
        msg = f"Unknown method {method!r}; for a record: occlusion, gradients or shap."
        raise UsageError(msg)
    record = stored_record(warehouse, record_id)
    rows = [i for i, lead in enumerate(record.leads) if lead in LEADS]
    if not rows:
        msg = f"The record {record_id!r} has none of the twelve leads that encoders read."
        raise UsageError(msg)
    leads = [record.leads[i] for i in rows]
    signal = record.signal_mv[rows]
    with Catalog(warehouse.relations()) as catalog:
        head = head_of(catalog, run, repeat)
        if method == "gradients":
            from ecgstore.explain.differentiable import check, differentiable

            score = differentiable(head)
        encoders = encoders_of(catalog, head, weights=weights, settings=settings, device=device)
        side = catalog.table(
            "select split from splits where split_id = $split_id and repeat = $repeat "
            "and record_id = $record_id",
            {"split_id": head.split_id, "repeat": repeat, "record_id": record_id},
        )["split"].to_pylist()
    if method == "gradients":
        from ecgstore.explain.gradients import gradients

        check(head, score, [np.eye(2, one.dim, dtype=np.float32) for one in encoders])
        found = gradients(
            encoders,
            score,
            signal,
            rate_hz=record.rate_hz,
            leads=leads,
            unit=head.unit,
            progress=progress,
        )
    else:
        from ecgstore.explain.occlusion import occlusion

        found = occlusion(
            encoders,
            head,
            signal,
            rate_hz=record.rate_hz,
            leads=leads,
            unit=head.unit,
            window_s=window_s,
            progress=progress,
        )
    with Catalog(warehouse.relations()) as catalog:
        notes = changed(catalog, head, [record_id], np.array([found.score]))
    if side == ["train"]:
        notes += (f"The classifier of reshuffle {repeat} was fitted to this record among others.",)
    found = found.noted(*notes)
    return Explanation(head.run_id, repeat, record, found)
