"""The question of this package: asked of a run by model, or of an ECG by lead and moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ecgstore.errors import UsageError
from ecgstore.explain.record import Explanation, explain_record
from ecgstore.explain.shap import ShapResult, shap_of_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["explain"]


def explain(
    warehouse: Warehouse,
    run: str,
    *,
    record: str | None = None,
    method: Literal["shap", "occlusion", "gradients"] | None = None,
    repeat: int = 0,
    where: str | None = None,
    weights: Sequence[str | Path | None] | None = None,
    settings: Sequence[Mapping[str, object]] | None = None,
    device: str | None = None,
    window_s: float = 0.2,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> ShapResult | Explanation:
    """Tell why a run gives its scores.

    Args:
        warehouse: Where the run is; only read.
        run: Id of a run whose classifiers `ecgstore.train.train` kept, or the beginning of one.
        record: An ECG to explain; None explains the run.
        method: ``shap`` sums the SHAP values of each model's numbers, for XGBoost; ``occlusion``
            and ``gradients`` go to leads and moments of a record. By default ``shap`` for a run
            and ``occlusion`` for a record.
        repeat: The reshuffle.
        where: Of ``shap``: SQL predicate over ``records``, which of the test records.
        weights: Of a record: a file for each model of the run, in its order.
        settings: Of a record: what a file does not tell, for each model.
        device: Of a record: as for `ecgstore.load_encoder`.
        window_s: Of ``occlusion``: the stretch made flat at a time, seconds.
        out: Of a record's leads and moments: PNG, SVG or PDF to draw them into.
        progress: Told of every step.

    Returns:
        `ShapResult`, or for leads and moments `Explanation`; both have ``rows``.

    Raises:
        UsageError: The method and what is given do not go together, or the method cannot explain
            this run.
        UnknownNameError: There is no such run, reshuffle or record.
    """
    method = method or ("shap" if record is None else "occlusion")
    if method == "shap":
        if out is not None:
            msg = "SHAP values are of models, not of leads: there is nothing to draw on an ECG."
            hint = "Name an ECG, and --method occlusion or gradients; or leave --out out."
            raise UsageError(msg, hint=hint)
        if weights:
            msg = "Weights were given; the method 'shap' reads stored vectors and needs none."
            raise UsageError(msg, hint="Leave --weights out, or ask for --method occlusion.")
        return shap_of_run(warehouse, run, repeat=repeat, where=where, record=record)
    if record is None:
        msg = f"The method {method!r} explains one ECG; none was named."
        raise UsageError(msg, hint="Name it: --record ID.")
    if where:
        msg = "A predicate over records was given beside one record."
        raise UsageError(msg, hint="Leave --where out.")
    found = explain_record(
        warehouse,
        run,
        record,
        method=method,
        repeat=repeat,
        weights=weights,
        settings=settings,
        device=device or "auto",
        window_s=window_s,
        progress=progress,
    )
    if out is not None:
        found.save(out)
    return found
