"""Logistic regression: a linear probe of vectors, with a strength that is given or chosen."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Classifier, Setting, classifiers
from ecgstore.classifiers.inner import Scaled, inner_folds
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Logistic", "LogisticCV"]

_STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Values of C that `LogisticCV` tries, strongest penalty first."""


class Logistic(Classifier):
    """Logistic regression with an L2 penalty on standardised features; multinomial of classes.

    Mean and deviation of each feature are those of the training records. ``C`` is the inverse
    strength of the penalty.
    """

    name = "logistic"
    reads = "features"
    format = "json"
    targets = frozenset({"binary", "multiclass"})
    defaults: ClassVar[Mapping[str, Setting]] = {"C": 1.0, "max_iter": 5000}
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {"C": ("log", 1e-5, 1e2)}

    @property
    def dim(self) -> int:
        """Length of the vectors it was fitted to."""
        return len(self._fitted["mean"])

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        self._fit_with(self.params["C"], x, y)
        step()

    def _fit_with(self, c: Setting, x: NDArray[np.float32], y: NDArray[np.float64]) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        model = LogisticRegression(C=c, max_iter=self.params["max_iter"])
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
        several = self.target == "multiclass" and len(model.classes_) > 2
        self._fitted = {
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "coef": model.coef_ if several else model.coef_[0],
            "intercept": model.intercept_,
        }

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        from scipy.special import expit, softmax

        fitted = self._fitted
        scaled = (x.astype(np.float64) - fitted["mean"]) / fitted["scale"]
        scores: NDArray[np.float64]
        if fitted["coef"].ndim == 2:
            scores = softmax(scaled @ fitted["coef"].T + fitted["intercept"], axis=1)
            return scores
        scores = expit(scaled @ fitted["coef"] + fitted["intercept"])
        return scores if self.target == "binary" else np.stack([1 - scores, scores], axis=1)

    def save(self) -> bytes:
        """Return mean, scale, coefficients and intercept as JSON; numbers survive exactly."""
        return json.dumps({name: values.tolist() for name, values in self._fitted.items()}).encode()

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        classifier = cls(target=target)
        classifier._fitted = {name: np.array(values) for name, values in json.loads(data).items()}
        return classifier

    @staticmethod
    def library() -> str:
        """Return the version of scikit-learn."""
        import sklearn

        return f"scikit-learn {sklearn.__version__}"


class LogisticCV(Logistic):
    """Logistic regression whose strength is chosen inside the training records.

    ``C`` is the one of 0.0001, 0.001, … 100 with the least log loss (Good 1952) of records held
    out, over folds that keep patients whole; features are standardised inside each fold. Weaker
    penalties are no longer tried once the loss has risen twice in a row.
    """

    name = "logistic_cv"
    defaults: ClassVar[Mapping[str, Setting]] = {"folds": 5, "max_iter": 5000, "seed": 0}
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {}

    @property
    def strength(self) -> float:
        """The value of C that was chosen."""
        return float(self._fitted["C"])

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        folds, seed = int(self.params["folds"]), int(self.params["seed"])
        fold = inner_folds(y, groups, folds, seed=seed, target=self.target)
        best, least, risen = _STRENGTHS[0], np.inf, 0
        for c, loss in self._losses(x, y, fold):
            best, least, risen = (c, loss, 0) if loss < least else (best, least, risen + 1)
            if risen == 2:
                break
        self._fit_with(best, x, y)
        self._fitted["C"] = np.array(best)
        step()

    def _losses(
        self, x: NDArray[np.float32], y: NDArray[np.float64], fold: NDArray[np.intp]
    ) -> Iterator[tuple[float, float]]:
        """Yield each strength with the mean log loss of held-out records, when asked for it."""
        from scipy.special import log_softmax
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        held = [fold == k for k in range(int(fold.max()) + 1)]
        scaled = [Scaled(x[~out]) for out in held]
        # Each fold goes on from its last coefficients, so a path costs little more than its end.
        models = [
            LogisticRegression(warm_start=True, max_iter=self.params["max_iter"]) for _ in held
        ]
        for c in _STRENGTHS:
            loss = 0.0
            for out, scale, model in zip(held, scaled, models, strict=True):
                model.set_params(C=c)
                with warnings.catch_warnings():
                    # A strength that does not settle is judged by what it does all the same.
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    model.fit(scale(x[~out]), y[~out])
                logits = model.decision_function(scale(x[out]))
                if logits.ndim == 1:  # of two classes only that of the second is told
                    logits = np.stack([np.zeros_like(logits), logits], axis=1)
                mine = log_softmax(logits, axis=1)  # finite where a probability rounds to 0
                loss -= float(mine[np.arange(len(mine)), y[out].astype(np.intp)].sum())
            yield c, loss / len(y)


for _kind in (Logistic, LogisticCV):
    classifiers.add(_kind.name, _kind)
