"""Scoring a run: what is stored is used, what is lacking is fitted, scored and stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ecgstore import settings
from ecgstore.features import SIGNAL, feature_set
from ecgstore.folds import fit_fold, score_training, tuned
from ecgstore.leakage import Mark, datasets_of, marks
from ecgstore.schema import table_schema
from ecgstore.scored import Score
from ecgstore.statistics.bootstrap import Sample, metric_interval
from ecgstore.statistics.metrics import measure, reported
from ecgstore.stored_fits import keep_predictions, keep_vectors, repeats_in, stored_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.classifiers import Setting
    from ecgstore.progress import Progress
    from ecgstore.runs import Fold, Run
    from ecgstore.stored_fits import Side
    from ecgstore.warehouse import Warehouse

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """What is asked of every run over a split.

    Attributes:
        warehouse: Results are written here.
        catalog: The tables as they were when the call began.
        versions: Their versions.
        protocol: Protocol of the split; intervals are computed unless it is ``paper``.
        folds: Inner folds by which training records are scored; 0 for none.
        tune: Seconds to look for better settings in each training part; 0 for none.
        dry_run: Read what is stored and write nothing.
        progress: Told of every step.
    """

    warehouse: Warehouse
    catalog: Catalog
    versions: Mapping[str, int]
    protocol: str
    folds: int
    tune: float
    dry_run: bool
    progress: Progress

    def score(self, run: Run) -> Score:
        """Score a run on each of its reshuffles."""
        stored = self._stored_values(run)
        known = {fold.repeat: stored[fold.repeat] for fold in run.folds if fold.repeat in stored}
        done = {side: repeats_in(self.catalog, "predictions", run, split=side) for side in _SIDES}
        lacking = {
            fold.repeat: [side for side in self._sides if fold.repeat not in done[side]]
            for fold in run.folds
        }
        todo = [f for f in run.folds if f.repeat not in known or lacking[f.repeat]]
        samples = []
        for fold in run.folds:
            scores = None
            if fold.repeat in done["test"]:
                scores = stored_scores(self.catalog, run, fold.repeat)
            if not self.dry_run:
                scores, values = self._fold(
                    run, fold, lacking[fold.repeat], scores, known.get(fold.repeat)
                )
                known[fold.repeat] = values
            if scores is not None:
                samples.append(Sample(run.labels[fold.test], scores, run.patients[fold.test]))
        metrics = reported(run.target)
        whole = len(samples) == len(run.folds) and self.protocol != "paper"
        return Score(
            run_id=run.run_id,
            features=run.features,
            classifier=run.kind.name,
            records=len(run.record_ids),
            left_out=run.left_out,
            values={m.name: tuple(known[r][m.name] for r in sorted(known)) for m in metrics},
            added=len(todo),
            marks=self._marks(run),
            task=run.task,
            target=run.target,
            split_id=run.split_id,
            protocol=self.protocol,
            intervals={m.name: metric_interval(samples, m) for m in metrics} if whole else {},
            least=_least(run),
        )

    @property
    def _sides(self) -> tuple[Side, ...]:
        return _SIDES if self.folds else _SIDES[:1]

    def _fold(
        self,
        run: Run,
        fold: Fold,
        lacking: list[Side],
        scores: NDArray[np.float64] | None,
        values: Mapping[str, float] | None,
    ) -> tuple[NDArray[np.float64], Mapping[str, float]]:
        """Make what is lacking of a reshuffle; return its test scores and metrics."""
        command, seconds, better = f"evaluate {run.run_id}", None, None
        step = self.progress.advance
        sides: dict[Side, NDArray[np.float64]] = {}
        if lacking and self.tune:
            better = tuned(run, fold, seconds=self.tune)
        if scores is None:
            fitted, scores, seconds = fit_fold(run, fold, step=step, params=better)
            sides["test"] = scores
            if fitted.joins_vectors:
                vectors = fitted.join(run.blocks(fold.repeat))
                keep_vectors(self.warehouse, run, fold, vectors, command=command)
        else:
            step(run.plan.steps(len(run.blocks(fold.repeat))))
        if "train" in lacking:
            sides["train"] = score_training(run, fold, step=step, folds=self.folds, params=better)
        if sides:
            keep_predictions(self.warehouse, run, fold, sides, command=command)
        if values is None:
            values = measure(run.labels[fold.test], scores, run.target)
            rows = self._rows(run, fold, values, seconds, better)
            self.warehouse.append("scores", rows, command=command)
        return scores, values

    def _rows(
        self,
        run: Run,
        fold: Fold,
        values: Mapping[str, float],
        seconds: float | None,
        better: Mapping[str, Setting] | None,
    ) -> pa.Table:
        machine = {} if seconds is None else run.kind.machine()
        told = {"tune": self.tune} if self.tune else {}
        params = {**run.params, **(better or {}), **told, "library": run.library, **machine}
        shared = {
            "run_id": run.run_id,
            "repeat": fold.repeat,
            "at": datetime.now(UTC),
            "versions": json.dumps(self.versions),
            "features": run.features,
            "task": run.task,
            "target": run.target,
            "split_id": run.split_id,
            "classifier": run.kind.name,
            "params": json.dumps(params),
            "seconds": seconds,
            "code": settings.code_version(),
        }
        rows = [{**shared, "metric": metric, "value": value} for metric, value in values.items()]
        return pa.Table.from_pylist(rows, schema=table_schema("scores").arrow)

    def _stored_values(self, run: Run) -> dict[int, Mapping[str, float]]:
        rows = self.catalog.table(
            "select repeat, metric, value from scores where run_id = $run_id",
            {"run_id": run.run_id},
        )
        known: dict[int, dict[str, float]] = {}
        for row in rows.to_pylist():
            known.setdefault(row["repeat"], {})[row["metric"]] = row["value"]
        return dict(known)

    def _marks(self, run: Run) -> tuple[Mark, ...]:
        if run.features == SIGNAL:
            return ()
        members = feature_set(self.catalog, run.features).members
        models = [f"{one.model}@{one.version}" for one in members]
        tested = np.unique(np.concatenate([fold.test for fold in run.folds]))
        ids = run.record_ids[tested].tolist()
        return marks(self.catalog, models, datasets_of(self.catalog, ids), record_ids=ids)


_SIDES: tuple[Side, ...] = ("test", "train")


def _least(run: Run) -> int | None:
    """Return the patients of the smallest class."""
    if run.target not in {"binary", "multiclass"}:
        return None
    return min(len(np.unique(run.patients[run.labels == label])) for label in np.unique(run.labels))
