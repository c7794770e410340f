"""Classifiers on vectors behind one fit and predict: gradient-boosted trees, logistic regression.

A fitted classifier is saved in a format that holds numbers only; nothing is ever pickled.
"""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from ecgstore import settings
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

__all__ = ["Classifier", "Logistic", "Setting", "XGBoost"]

Setting = int | float | str
"""A value of a classifier's settings; its type is that of the default."""


class Classifier(ABC):
    """A binary classifier with settings.

    Args:
        params: Settings that differ from `defaults`.

    Attributes:
        name: Name it is asked for by.
        reads: ``features`` for vectors, ``signal`` for the ECG itself.
        format: Format of what `save` returns.
        defaults: Every setting with its default.
        params: The settings in force.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["features", "signal"]]
    format: ClassVar[str]
    defaults: ClassVar[Mapping[str, Setting]]

    def __init__(self, params: Mapping[str, Setting] | None = None) -> None:
        self.params: dict[str, Setting] = {**self.defaults, **(params or {})}

    @property
    def steps(self) -> int:
        """How often `fit` tells of progress."""
        return 1

    @abstractmethod
    def fit(
        self, x: NDArray[np.float32], y: NDArray[np.float64], *, step: Callable[[], None]
    ) -> None:
        """Fit to training records, and to nothing else.

        Args:
            x: ``(records, dim)`` vectors, or ``(records, leads, samples)`` millivolts.
            y: ``(records,)`` labels, 0 or 1; both occur.
            step: Called `steps` times, as the work goes on.

        Raises:
            UsageError: A setting has a value that cannot be used.
        """

    @abstractmethod
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of label 1, ``(records,)``."""

    @abstractmethod
    def save(self) -> bytes:
        """Return what was fitted, in `format`."""

    @classmethod
    @abstractmethod
    def load(cls, data: bytes) -> Self:
        """Return the classifier that `save` saved; it predicts the same."""

    @staticmethod
    @abstractmethod
    def library() -> str:
        """Return the name and version of the library that fits."""

    @staticmethod
    def machine() -> dict[str, str | int]:
        """Return what of this machine its numbers depend on; nothing unless a class says so."""
        return {}

    @classmethod
    def as_on(cls, machine: Mapping[str, str | int]) -> AbstractContextManager[None]:
        """Fit as the machine described did, as far as this one can, while the block runs."""
        return nullcontext()


class XGBoost(Classifier):
    """Gradient-boosted trees, with the settings of Meng et al. (2025, arXiv 2502.17476).

    The paper states depth, learning rate and both subsampling rates. It states no number of trees:
    100 is XGBoost's own default, as are the settings from ``min_child_weight`` on.
    """

    name = "xgboost"
    reads = "features"
    format = "ubj"
    defaults: ClassVar[Mapping[str, Setting]] = {
        "n_estimators": 100,
        "max_depth": 6,
        "learning_rate": 0.1,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "min_child_weight": 1.0,
        "gamma": 0.0,
        "reg_lambda": 1.0,
        "reg_alpha": 0.0,
        "scale_pos_weight": 1.0,
        "max_bin": 256,
        "seed": 0,
    }

    def fit(
        self, x: NDArray[np.float32], y: NDArray[np.float64], *, step: Callable[[], None]
    ) -> None:
        """Fit; see `Classifier.fit`."""
        import xgboost

        params = {**self.params, **self._fixed()}
        rounds = int(params.pop("n_estimators"))
        if rounds < 1:
            msg = f"n_estimators is {rounds}; XGBoost needs at least 1 tree."
            raise UsageError(msg)
        try:
            data = xgboost.QuantileDMatrix(
                x, label=y, max_bin=params["max_bin"], nthread=settings.threads()
            )
            self._booster = xgboost.train(params, data, num_boost_round=rounds)
        except xgboost.core.XGBoostError as error:
            reason = str(error).splitlines()[0].rpartition("Check failed: ")[2]
            msg = f"XGBoost cannot fit: {reason}."
            raise UsageError(msg) from error
        step()

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of label 1, ``(records,)``."""
        scores: NDArray[np.float64] = self._booster.inplace_predict(x).astype(np.float64)
        return scores

    def save(self) -> bytes:
        """Return the trees as universal binary JSON."""
        return bytes(self._booster.save_raw("ubj"))

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the classifier that `save` saved."""
        import xgboost

        classifier = cls()
        classifier._booster = xgboost.Booster(cls._fixed(), model_file=bytearray(data))
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of XGBoost."""
        import xgboost

        return f"xgboost {xgboost.__version__}"

    @staticmethod
    def _fixed() -> dict[str, Setting]:
        return {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "nthread": settings.threads(),
            "verbosity": 0,
        }


class Logistic(Classifier):
    """Logistic regression with an L2 penalty on standardised features.

    Mean and deviation of each feature are those of the training records. ``C`` is the inverse
    strength of the penalty.
    """

    name = "logistic"
    reads = "features"
    format = "json"
    defaults: ClassVar[Mapping[str, Setting]] = {"C": 1.0, "max_iter": 5000}

    def fit(
        self, x: NDArray[np.float32], y: NDArray[np.float64], *, step: Callable[[], None]
    ) -> None:
        """Fit; see `Classifier.fit`."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        scaler, model = StandardScaler(), LogisticRegression(**self.params)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                model.fit(scaler.fit_transform(x.astype(np.float64)), y)
        except ConvergenceWarning as error:
            msg = f"Logistic regression did not settle in {self.params['max_iter']} iterations."
            raise UsageError(msg, hint="Raise max_iter, or lower C.") from error
        except ValueError as error:
            msg = f"Logistic regression cannot fit: {str(error).splitlines()[0]}"
            raise UsageError(msg) from error
        self._fitted = {
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "coef": model.coef_[0],
            "intercept": model.intercept_,
        }
        step()

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of label 1, ``(records,)``."""
        from scipy.special import expit

        fitted = self._fitted
        scaled = (x.astype(np.float64) - fitted["mean"]) / fitted["scale"]
        scores: NDArray[np.float64] = expit(scaled @ fitted["coef"] + fitted["intercept"])
        return scores

    def save(self) -> bytes:
        """Return mean, scale, coefficients and intercept as JSON; numbers survive exactly."""
        return json.dumps({name: list(values) for name, values in self._fitted.items()}).encode()

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the classifier that `save` saved."""
        classifier = cls()
        classifier._fitted = {name: np.array(values) for name, values in json.loads(data).items()}
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of scikit-learn."""
        import sklearn

        return f"scikit-learn {sklearn.__version__}"
