"""Gain by model: how much of what XGBoost's trees learned came from the numbers of each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import UsageError
from ecgstore.features import CONCATENATION, feature_set
from ecgstore.fusion import Projection, fusions
from ecgstore.predictions import command_for
from ecgstore.stored_fits import load_fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.features import FeatureSet
    from ecgstore.predictions import Predictions

__all__ = ["block_gains"]


def block_gains(catalog: Catalog, run: Predictions) -> dict[str, list[float]]:
    """Return the share of each model in the gain of all splits, one a reshuffle that is kept.

    Gain is what a split takes off the loss (Chen and Guestrin 2016, equation 7), summed over the
    splits on numbers of one model. A model of more numbers has more chances to be split on.

    Args:
        catalog: The warehouse.
        run: A run of XGBoost on vectors of several models.

    Raises:
        UsageError: Its classifier has no gain, sees no vectors of several models, or is not kept.
    """
    if run.classifier != "xgboost":
        msg = f"The classifier {run.classifier!r} has no gain of splits."
        raise UsageError(msg)
    features = feature_set(catalog, run.features)
    joined = features.method == CONCATENATION
    if not joined and not issubclass(fusions.get(features.method), Projection):
        msg = f"The fusion {features.method!r} has no classifier that sees all models at once."
        raise UsageError(msg)
    kept = catalog.table(
        "select repeat from classifiers where run_id = $run_id order by repeat",
        {"run_id": run.run_id},
    )["repeat"].to_pylist()
    if not kept:
        msg = f"No classifier of the run {run.run_id} is kept."
        raise UsageError(msg, hint=f"Keep them with: {command_for('train', run)}")
    shares: dict[str, list[float]] = {str(member): [] for member in features.members}
    for repeat in kept:
        fitted = load_fitted(catalog, run.run_id, repeat)
        fusion = fitted.fusion
        dims = fusion.dims if isinstance(fusion, Projection) else _dims(catalog, features)
        for name, share in zip(
            shares, _shares(fitted.classifiers[0].save(), dims).tolist(), strict=True
        ):
            shares[name].append(share)
    return shares


def _dims(catalog: Catalog, features: FeatureSet) -> tuple[int, ...]:
    return tuple(
        catalog.table(
            "select max(dim) as dim from embeddings "
            "where model = $model and version = $version and pooling = $pooling",
            member._asdict(),
        )["dim"][0].as_py()
        for member in features.members
    )


def _shares(trees: bytes, dims: Sequence[int]) -> NDArray[np.float64]:
    """Sum the gain of all splits by block of features; 0 everywhere for trees without a split."""
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(trees))
    gain = np.zeros(sum(dims))
    for name, value in booster.get_score(importance_type="total_gain").items():
        gain[int(name.removeprefix("f"))] = value
    blocks = np.array([part.sum() for part in np.split(gain, np.cumsum(dims)[:-1])])
    return np.asarray(blocks / (gain.sum() or 1))
