"""Late fusion: every member has a classifier of its own, and their scores become one.

What is fitted here is fitted to out-of-fold scores of training records, each made by a classifier
that did not see its patient: a classifier's scores of the records it was fitted to would say that
every member is perfect.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.fusion.fusion import Fusion, need_records, present
from ecgstore.tasks import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.classifiers import Setting

    Block = NDArray[np.floating]
    Scores = NDArray[np.float64]

__all__ = ["Average", "Rank", "Stacking"]

_LEAST = 1e-6
"""Probabilities nearer to 0 or 1 are taken as this far from them: a logit must be finite."""


class _Late(Fusion):
    """Scores of each member become the final score."""

    takes = "scores"
    makes = "scores"

    def _read(self, blocks: Sequence[Block]) -> tuple[Scores, NDArray[np.bool_]]:
        """Return ``(records, members, 1 or classes)`` scores and which are there.

        Raises:
            NotEnoughDataError: A record has no score at all.
        """
        has = present(blocks, members=len(self.fitted["members"]) if self.fitted else None)
        lost = int((~has.any(axis=1)).sum())
        if lost:
            msg = f"{lost} of {len(has)} records have no score of any member, so {self.name!r} "
            msg += "has nothing to fuse."
            raise NotEnoughDataError(
                msg, task=self.name, counts={"records": lost}, hint="Embed them first."
            )
        return np.stack([np.asarray(block, np.float64) for block in blocks], axis=1), has


def _mean(scores: Scores, weights: NDArray[np.floating]) -> Scores:
    """Return the mean over members; ``(records, members)`` weights are 0 where one is lacking."""
    share = weights / weights.sum(axis=1, keepdims=True)
    mean: Scores = (np.where(share[:, :, None] > 0, scores, 0) * share[:, :, None]).sum(axis=1)
    return mean[:, 0] if mean.shape[1] == 1 else mean


class Average(_Late):
    """The mean of the scores that a record has.

    The sum rule of Kittler, Hatef, Duin and Matas (1998, IEEE TPAMI 20:226). There is nothing to
    fit.
    """

    name = "average"
    learns = False
    targets: ClassVar[frozenset[str]] = frozenset(TARGETS)

    def fit(
        self, blocks: Sequence[Block], y: NDArray[np.float64], *, groups: NDArray[np.intp]
    ) -> None:
        """Note how many members there are. See `Fusion.fit`."""
        self.fitted = {"members": np.ones(len(blocks))}

    def apply(self, blocks: Sequence[Block]) -> Scores:
        """Return the mean score, ``(records,)`` or ``(records, classes)`` float64."""
        scores, has = self._read(blocks)
        return _mean(scores, has.astype(np.float64))


class Rank(_Late):
    """The weighted mean of ranks, for members whose scores are on different scales.

    A score's rank is the part of the training records whose out-of-fold score of the same member
    is lower, equal ones counted half; so a single new record can be scored. A member weighs what
    its out-of-fold AUROC is above 0.5; where no member a record has is above, all weigh the same.
    The result orders records from 0 to 1; it is no probability.
    """

    name = "rank"
    targets: ClassVar[frozenset[str]] = frozenset({"binary"})

    def fit(
        self, blocks: Sequence[Block], y: NDArray[np.float64], *, groups: NDArray[np.intp]
    ) -> None:
        """Keep the training scores in order, and weigh the members. See `Fusion.fit`."""
        has = present(blocks)
        need_records(has & (y == 1)[:, None], least=1, name="rank")
        need_records(has & (y == 0)[:, None], least=1, name="rank")
        ordered = {}
        weights = np.zeros(len(blocks))
        for i, block in enumerate(blocks):
            scores, label = block[has[:, i], 0].astype(np.float64), y[has[:, i]]
            ordered[f"ordered.{i}"] = np.sort(scores)
            # The mean rank of the positives among the negatives is the AUROC (Bamber 1975).
            auroc = _ranks(np.sort(scores[label == 0]), scores[label == 1]).mean()
            weights[i] = max(auroc - 0.5, 0)
        self.fitted = {"members": weights, **ordered}

    def apply(self, blocks: Sequence[Block]) -> Scores:
        """Return the weighted mean rank, ``(records,)`` float64 from 0 to 1."""
        scores, has = self._read(blocks)
        ranks = np.stack(
            [_ranks(self.fitted[f"ordered.{i}"], scores[:, i]) for i in range(len(blocks))], axis=1
        )
        weights = has * self.fitted["members"]
        return _mean(ranks, np.where(weights.any(axis=1, keepdims=True), weights, has))


def _ranks(ordered: Scores, scores: Scores) -> Scores:
    below, to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (below + to) / (2 * len(ordered))


class Stacking(_Late):
    """A regression on the out-of-fold scores of all members.

    Wolpert (1992, Neural Networks 5:241); Breiman (1996, Machine Learning 24:49). Logistic
    regression on logits for two classes, multinomial on centred log probabilities for several
    (Aitchison 1982), ridge regression for a number. The inverse strength of the penalty on
    standardised scores is ``C``.

    Records that lack members get a model of the members they have (pattern submodels, Fletcher
    Mercaldo and Blume 2020, Biostatistics 21:236), fitted to every training record that has these.
    There is one for each pattern of the training records, for all members but one, and for each
    member alone; another pattern takes, of the models whose members it has, the one with the most
    members, and of several the one with the least error on its training records.
    """

    name = "stacking"
    targets: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "continuous"})
    defaults: ClassVar[Mapping[str, Setting]] = {"C": 1.0, "max_iter": 1000}

    def fit(
        self, blocks: Sequence[Block], y: NDArray[np.float64], *, groups: NDArray[np.intp]
    ) -> None:
        """Fit a model for each pattern that may be asked for. See `Fusion.fit`."""
        if not float(self.params["C"]) > 0:
            msg = f"The setting 'C' of stacking is {self.params['C']}; it must be above 0."
            raise UsageError(msg)
        self.fitted = {}
        scores, has = self._read(blocks)
        members = has.shape[1]
        one = np.eye(members, dtype=bool)
        fitted: dict[str, NDArray[Any]] = {"members": np.ones(members)}
        for pattern in np.unique(np.vstack([has, one, ~one, np.ones_like(one[:1])]), axis=0):
            rows = has[:, pattern].all(axis=1)
            if pattern.any() and self._enough(y[rows], among=y):
                x = self._features(scores[rows][:, pattern])
                fitted |= {f"{_code(pattern)}.{k}": v for k, v in self._regress(x, y[rows]).items()}
        if len(fitted) == 1:
            msg = "Stacking needs training records of every class with out-of-fold scores."
            raise NotEnoughDataError(msg, task="stacking", hint="Label or embed more records.")
        self.fitted = fitted

    def apply(self, blocks: Sequence[Block]) -> Scores:
        """Return probabilities or the value, ``(records,)`` or ``(records, classes)`` float64."""
        scores, has = self._read(blocks)
        parts: list[tuple[NDArray[np.bool_], Scores]] = []
        for pattern in np.unique(has, axis=0):
            rows = (has == pattern).all(axis=1)
            used = self._best(pattern)
            model = {
                name.partition(".")[2]: value
                for name, value in self.fitted.items()
                if name.startswith(f"{_code(used)}.")
            }
            x = (self._features(scores[rows][:, used]) - model["mean"]) / model["deviation"]
            parts.append((rows, self._linked(x @ model["coef"].T + model["intercept"])))
        out = np.empty((len(has), *parts[0][1].shape[1:]))
        for rows, made in parts:
            out[rows] = made
        return out

    @staticmethod
    def library() -> str:
        """Return the version of scikit-learn."""
        import sklearn

        return f"scikit-learn {sklearn.__version__}"

    def _enough(self, y: NDArray[np.float64], *, among: NDArray[np.float64]) -> bool:
        if self.target == "continuous":
            return len(y) > 1
        return len(np.unique(y)) == len(np.unique(among)) > 1

    def _features(self, scores: Scores) -> Scores:
        """Return ``(records, features)`` of ``(records, members, 1 or classes)`` scores."""
        if self.target == "continuous":
            return scores[:, :, 0]
        sure = np.clip(scores, _LEAST, 1 - _LEAST)
        if self.target == "binary":
            logit: Scores = np.log(sure / (1 - sure))[:, :, 0]
            return logit
        logs = np.log(sure)
        centred: Scores = logs - logs.mean(axis=2, keepdims=True)
        return centred.reshape(len(scores), -1)

    def _regress(self, x: Scores, y: NDArray[np.float64]) -> dict[str, Scores]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression, Ridge

        mean, deviation = x.mean(axis=0), x.std(axis=0)
        deviation[deviation == 0] = 1
        strength = float(self.params["C"])
        model: Any = (
            Ridge(alpha=1 / strength)
            if self.target == "continuous"
            else LogisticRegression(C=strength, max_iter=int(self.params["max_iter"]))
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                model.fit((x - mean) / deviation, y)
        except ConvergenceWarning as error:
            msg = f"Stacking did not settle in {self.params['max_iter']} iterations."
            raise UsageError(msg, hint="Raise max_iter, or lower C.") from error
        coef, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        if self.target == "multiclass" and len(coef) == 1:  # of two classes scikit-learn gives one
            coef, intercept = (np.concatenate([-one / 2, one / 2]) for one in (coef, intercept))
        found = {"mean": mean, "deviation": deviation, "coef": coef, "intercept": intercept}
        made = self._linked((x - mean) / deviation @ found["coef"].T + found["intercept"])
        return {**found, "error": np.array([self._error(made, y)])}

    def _linked(self, z: Scores) -> Scores:
        from scipy.special import expit, softmax

        if self.target == "continuous":
            return z[:, 0]
        made: Scores = expit(z[:, 0]) if self.target == "binary" else softmax(z, axis=1)
        return made

    def _error(self, made: Scores, y: NDArray[np.float64]) -> float:
        """Return the mean squared error, of probabilities the Brier score."""
        wanted = np.eye(made.shape[1])[y.astype(np.intp)] if made.ndim == 2 else y
        return float(np.square(made - wanted).mean())

    def _best(self, pattern: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the members of the model that a record with these members gets.

        Raises:
            NotEnoughDataError: No model can do with them.
        """
        fitting = []
        for name, error in self.fitted.items():
            code, _, what = name.partition(".")
            used = np.array([digit == "1" for digit in code])
            if what == "error" and not (used & ~pattern).any():
                fitting.append((-used.sum(), error[0], code, used))
        if not fitting:
            lacking = ", ".join(str(i + 1) for i in np.flatnonzero(~pattern))
            msg = f"Stacking learned nothing for records that lack member {lacking}: too few "
            msg += "training records have the others."
            raise NotEnoughDataError(msg, task="stacking", hint="Embed more training records.")
        return min(fitting)[3]


def _code(pattern: NDArray[np.bool_]) -> str:
    """Write which members are there, such as ``101``."""
    return "".join("1" if one else "0" for one in pattern)
