"""All figures of the report as JSON, without words or markup.

A figure that cannot be told is null, and what stands beside it as ``reason`` says why. Keys:

- ``format``: 1; counts changes that would break a reader.
- ``ecgstore``, ``environment``, ``tables``: versions of the program, of what it ran on, and of
  every table read.
- ``title``, ``task``, ``target``, ``metrics``: what was asked; the first metric decides.
- ``cohort``: counts of the page's chapter on it; ``tasks`` holds the binary ones.
- ``split``: ``name``, ``task``, ``protocol``, ``params``, ``repeats`` (records and positives of
  each part), ``shared_patients``; ``check``: what crosses it.
- ``runs``: one a feature set and classifier: ``metrics`` has per metric ``mean``, ``std``, ``low``,
  ``high``, ``method`` and ``by_repeat``; ``earlier``: ids of runs a newer one stands for.
- ``best``: id of the run with the best mean of the deciding metric.
- ``comparison``: every run against the best single model: ``difference`` with ends, ``p``, and
  ``p_adjusted`` after Holm.
- ``family``: means by task, where the split has several.
- ``protocols``: means under both protocols, and their difference.
- ``clinical``: by run id: ``operating``, ``calibration``, ``reliability``, ``decision``.
- ``subgroups``, ``complementarity``, ``shap``: the rows of those commands.
- ``curves``: by run id: mean and standard deviation of ROC and precision-recall at ``x``.
- ``maps``: places of the records drawn, by method and features; records have no ids here.
- ``examples``: the ECGs shown, with ``threshold`` and counts.
- ``models``, ``pretraining``: the models with vectors, and what is known of what they have seen.
- ``checklist``: TRIPOD+AI item number to answer.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgstore import settings
from ecgstore.project import Projection
from ecgstore.report.checklist import ITEMS, answers

if TYPE_CHECKING:
    from ecgstore.laboratory.clinical import ClinicalResult
    from ecgstore.report.plots import Curve
    from ecgstore.report.study import Run, Study
    from ecgstore.statistics.interval import Interval

__all__ = ["as_json"]

_FORMAT = 1


def as_json(study: Study) -> str:
    """Return every figure of a study as JSON text, indented, keys in a fixed order."""
    split = study.split
    told: dict[str, Any] = {
        "format": _FORMAT,
        "ecgstore": settings.version(),
        "environment": study.environment,
        "tables": study.versions,
        "title": study.title,
        "task": study.task,
        "target": study.target if study.runs else None,
        "metrics": list(study.metrics),
        "cohort": _cohort(study),
        "split": split
        and {
            "name": split.name,
            "task": split.task,
            "protocol": split.protocol or None,
            "params": split.params,
            "repeats": [
                {key: value for key, value in one.items() if key not in {"task", "params"}}
                for one in split.sizes
            ],
            "shared_patients": split.shared_patients,
        },
        "check": _rows(study.check),
        "runs": [_run(run, study) for run in study.runs],
        "earlier": [run.run_id for run in study.earlier],
        "best": study.best.run_id if study.best else None,
        "comparison": _comparison(study),
        "family": [
            {"task": run.task, "features": run.features, "classifier": run.classifier}
            | {name: run.mean(name) for name in run.values}
            for run in study.family
        ],
        "protocols": [
            {
                "features": gap.features,
                "classifier": gap.classifier,
                "metric": gap.metric,
                "splits": gap.splits,
                "means": gap.means,
                "difference": gap.difference,
            }
            for gap in study.gaps
        ],
        "clinical": {run_id: _clinical(found) for run_id, found in study.clinical.items()},
        "subgroups": _rows(study.subgroups),
        "complementarity": _rows(study.complementarity),
        "shap": {run_id: _rows(found) for run_id, found in study.shap.items()},
        "curves": {
            run_id: {"roc": _curve(roc), "precision_recall": _curve(precision)}
            for run_id, (roc, precision) in study.curves.items()
        },
        "maps": [
            {"method": method, "features": features}
            | (_map(found) if isinstance(found, Projection) else {"reason": found})
            for (method, features), found in study.maps.items()
        ],
        "examples": _examples(study),
        "models": [dict(model) for model in study.models],
        "pretraining": [mark._asdict() for mark in study.marks],
        "checklist": {str(number): answers(study).get(number) for number in ITEMS},
    }
    return json.dumps(_plain(told), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rows(found: Any) -> Any:  # noqa: ANN401  results of several commands
    """Return the rows of a result, its reason, or None where nobody asked."""
    if found is None:
        return None
    return {"reason": found} if isinstance(found, str) else found.rows


def _cohort(study: Study) -> dict[str, Any]:
    cohort = study.cohort
    return {
        "records": cohort.records,
        "stored": cohort.stored,
        "patients": cohort.patients,
        "unidentified": cohort.unidentified,
        "complete": cohort.complete,
        "recorded": cohort.recorded,
        "age_quartiles": cohort.age,
        "age_known": cohort.age_known,
        "ages_by_decade": cohort.ages,
        "datasets": cohort.datasets,
        "sexes": cohort.sexes,
        "rates_hz": cohort.rates,
        "durations_s": cohort.durations,
        "quality_flags": cohort.flags,
        "rejects": cohort.rejects,
        "tasks": [
            {"task": one.name, "positives": one.positives, "labelled": one.labelled}
            for one in cohort.tasks
        ],
    }


def _run(run: Run, study: Study) -> dict[str, Any]:
    intervals = study.intervals.get(run.run_id, {})
    features = study.sets.get(run.features)
    return {
        "run_id": run.run_id,
        "features": run.features,
        "members": [str(member) for member in features.members] if features else None,
        "records_with_vectors": study.covered.get(run.features),
        "classifier": run.classifier,
        "params": run.params,
        "at": run.at.isoformat(timespec="seconds"),
        "code": run.code,
        "seconds": round(run.seconds, 1),
        "tables": run.versions,
        "tested": run.tested,
        "metrics": {
            name: {
                "mean": run.mean(name),
                "std": _std(run.values[name]),
                **_ends(intervals.get(name)),
                "by_repeat": dict(zip(run.repeats, run.values[name].tolist(), strict=True)),
            }
            for name in run.values
        },
    }


def _std(values: np.ndarray[Any, Any]) -> float | None:
    defined = values[np.isfinite(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else None


def _ends(interval: Interval | str | None) -> dict[str, Any]:
    if interval is None or isinstance(interval, str):
        return {"low": None, "high": None, "method": None, "reason": interval}
    known = math.isfinite(interval.low)
    return {
        "low": interval.low,
        "high": interval.high,
        "method": interval.method if known else None,
        "reason": None if known else interval.method,
    }


def _comparison(study: Study) -> Any:  # noqa: ANN401  figures, a reason or nothing
    found = study.comparison
    if found is None or isinstance(found, str):
        return found and {"reason": found}
    return {
        "best_single": found.best,
        "metric": found.metric,
        "runs": [
            {
                "run_id": row.run_id,
                "difference": row.difference.value,
                **_ends(row.difference),
                "interval_of_test": _ends(row.tested),
                "p": row.p,
                "p_adjusted": row.adjusted,
                "test": row.quoted or None,
                "records": row.records,
                "patients": row.patients,
                "sentence": row.sentence,
            }
            for row in found.rows
        ],
    }


def _clinical(found: ClinicalResult | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"reason": found}
    return {
        "prevalence": found.prevalence,
        "recalibrated": found.recalibrated,
        "operating": found.rows,
        "calibration": found.rows_of("calibration"),
        "reliability": found.rows_of("reliability"),
        "decision": found.rows_of("decision"),
        "notes": found.notes,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {"x": curve.x.tolist(), "mean": curve.mean.tolist(), "std": curve.std.tolist()}


def _map(found: Projection) -> dict[str, Any]:
    return {
        "repeat": found.repeat,
        "seed": found.seed,
        "points": [{key: row[key] for key in ("x", "y", "label")} for row in found.rows],
    }


def _examples(study: Study) -> Any:  # noqa: ANN401  figures, a reason or nothing
    found = study.examples
    if found is None or isinstance(found, str):
        return found and {"reason": found}
    return {
        "run_id": found.run_id,
        "threshold": found.threshold,
        "rule": found.rule,
        "counts": found.counts,
        "shown": [
            {
                "record_id": one.record_id,
                "kind": one.kind,
                "score": one.score,
                "label": one.label,
                "tests": one.tests,
                "attributed": one.attributed,
            }
            for one in found.shown
        ],
    }


def _plain(value: Any) -> Any:  # noqa: ANN401  whatever JSON can hold
    """Make numbers plain: no NaN, no more digits than any figure has meaning."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value
