"""Fitting: a classifier, with the fusion before or behind it, to records at hand; arrays only.

One class holds what is fitted in any order the methods of fusion need: vectors joined and then
classified, members classified and then joined, or a network that does both. What it is given to
`fit` is all it ever learns from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.splitting.drawing import draw_inner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.classifiers import Classifier, Setting
    from ecgstore.fusion import Fusion
    from ecgstore.tasks import Target

    Blocks = Sequence[NDArray[np.float32]]

__all__ = ["FOLDS", "Fitted", "Plan", "out_of_fold"]

FOLDS = 5
"""Parts of the training records for scores out of fold; what a fusion of scores is fitted to."""


class Plan:
    """What is to be fitted: a kind of classifier and a kind of fusion, with their settings.

    Args:
        kind: The classifier.
        params: Its settings.
        fusion: How blocks become one, or None where there is one block for the classifier.
        settings: Settings of the fusion.
        target: What labels say.
        seed: Seed of inner folds.
    """

    def __init__(
        self,
        kind: type[Classifier],
        params: Mapping[str, Setting],
        *,
        fusion: type[Fusion] | None = None,
        settings: Mapping[str, Setting] | None = None,
        target: Target = "binary",
        seed: int = 0,
    ) -> None:
        self.kind = kind
        self.params = params
        self.fusion = fusion
        self.settings = settings or {}
        self.target = target
        self.seed = seed
        if target not in kind.targets:
            msg = f"The classifier {kind.name!r} cannot be fitted to a {target} target."
            raise UsageError(msg, hint=f"It takes: {', '.join(sorted(kind.targets))}.")
        if fusion is not None and target not in fusion.targets:
            msg = f"The fusion {fusion.name!r} cannot be fitted to a {target} target."
            raise UsageError(msg, hint=f"It takes: {', '.join(sorted(fusion.targets))}.")

    def classifier(self) -> Classifier:
        """Return an unfitted classifier."""
        return self.kind(self.params, target=self.target)

    def steps(self, n_blocks: int) -> int:
        """Return how often `Fitted.fit` tells of progress."""
        steps = self.kind(self.params, target=self.target).steps
        if self.fusion is None or self.fusion.takes == "vectors":
            return 1 if self.fusion is not None and self.fusion.makes == "scores" else steps
        return steps * n_blocks * (1 + (FOLDS if self.fusion.learns else 0))


class Fitted:
    """What was fitted to some records, and scores others.

    Attributes:
        classifiers: One, or with a fusion of scores one a member; none where the fusion makes the
            score of vectors itself.
        fusion: What the fusion learned, or None.
    """

    def __init__(
        self, plan: Plan, classifiers: Sequence[Classifier], fusion: Fusion | None
    ) -> None:
        self.plan = plan
        self.classifiers = list(classifiers)
        self.fusion = fusion

    @classmethod
    def fit(
        cls,
        plan: Plan,
        blocks: Blocks,
        y: NDArray[np.float64],
        groups: NDArray[np.intp],
        *,
        step: Callable[[], None],
    ) -> Fitted:
        """Fit to training records.

        Args:
            plan: What is fitted.
            blocks: ``(records, …)`` input of the classifier, or one block a member for the fusion;
                a row of NaN is a vector that is lacking.
            y: ``(records,)`` labels.
            groups: ``(records,)`` number of each record's patient.
            step: Told of progress.

        Raises:
            UsageError: A setting cannot be used, or a vector is lacking and cannot be.
            NotEnoughDataError: There are too few records for inner folds.
        """
        _refuse_lacking(plan, blocks)
        if plan.fusion is None:
            one = plan.classifier()
            one.fit(blocks[0], y, step=step, groups=groups)
            return cls(plan, [one], None)
        fusion = plan.fusion(plan.settings, target=plan.target)
        if fusion.takes == "scores":
            single = Plan(plan.kind, plan.params, target=plan.target, seed=plan.seed)
            members, scores = [], []
            for block in blocks:
                here = _present(block)
                if fusion.learns:
                    mine = out_of_fold(single, [block[here]], y[here], groups[here], step=step)
                    scores.append(_spread(mine, here))
                else:
                    scores.append(np.empty((0, 1)))
                members.append(
                    cls.fit(single, [block[here]], y[here], groups[here], step=step).classifiers[0]
                )
            fusion.fit(scores, y, groups=groups)
            return cls(plan, members, fusion)
        fusion.fit(blocks, y, groups=groups)
        if fusion.makes == "scores":
            step()
            return cls(plan, [], fusion)
        one = plan.classifier()
        one.fit(fusion.apply(blocks), y, step=step, groups=groups)
        return cls(plan, [one], fusion)

    @property
    def joins_vectors(self) -> bool:
        """Whether a fusion made vectors for the classifier; see `join`."""
        return self.fusion is not None and self.fusion.makes == "vectors"

    def join(self, blocks: Blocks) -> NDArray[np.float32]:
        """Return the vectors that the fusion gives the classifier, ``(records, dim)``."""
        if self.fusion is None or self.fusion.makes != "vectors":
            msg = "No fusion of vectors was fitted."
            raise UsageError(msg)
        return self.fusion.apply(blocks).astype(np.float32)

    def predict(self, blocks: Blocks) -> NDArray[np.float64]:
        """Return ``(records,)`` scores, or ``(records, classes)``; blocks as in `fit`."""
        _refuse_lacking(self.plan, blocks)
        if self.fusion is None:
            return self.classifiers[0].predict(blocks[0])
        if self.fusion.takes == "scores":
            scores = []
            for block, one in zip(blocks, self.classifiers, strict=True):
                here = _present(block)
                scores.append(_spread(one.predict(block[here]), here))
            return self.fusion.apply(scores).astype(np.float64)
        if self.fusion.makes == "scores":
            return self.fusion.apply(blocks).astype(np.float64)
        return self.classifiers[0].predict(self.fusion.apply(blocks))


def out_of_fold(
    plan: Plan,
    blocks: Blocks,
    y: NDArray[np.float64],
    groups: NDArray[np.intp],
    *,
    step: Callable[[], None],
    folds: int = FOLDS,
) -> NDArray[np.float64]:
    """Score each record by what was fitted to the records of other patients.

    Args:
        plan: What is fitted.
        blocks: As in `Fitted.fit`.
        y: Labels.
        groups: Number of each record's patient.
        step: Told of progress.
        folds: Parts, each scored by what was fitted to the others.

    Raises:
        NotEnoughDataError: There are too few records of a class for so many parts.
    """
    fold = draw_inner(y, groups, folds, seed=plan.seed, target=plan.target)
    found: list[NDArray[np.float64]] = [np.empty(0)] * folds
    for k in range(folds):
        rest = fold != k
        if plan.target in {"binary", "multiclass"} and len(np.unique(y[rest])) < len(np.unique(y)):
            msg = f"A class has too few patients for {folds} inner folds of the training part."
            raise NotEnoughDataError(msg, task="", hint="Label more records, or use fewer folds.")
        part = Fitted.fit(plan, [b[rest] for b in blocks], y[rest], groups[rest], step=step)
        found[k] = part.predict([b[~rest] for b in blocks])
    scores = np.empty((len(y), *found[0].shape[1:]))
    for k in range(folds):
        scores[fold == k] = found[k]
    return scores


def _present(block: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which records have this member's vector."""
    return ~np.isnan(block.reshape(len(block), -1)[:, 0])


def _spread(scores: NDArray[np.float64], here: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``(records, outputs)``, NaN for records without the member's vector."""
    rows = scores.reshape(len(scores), -1)
    out = np.full((len(here), rows.shape[1]), np.nan)
    out[here] = rows
    return out


def _refuse_lacking(plan: Plan, blocks: Blocks) -> None:
    """Raise `UsageError` where a vector is lacking and the classifier or fusion needs it."""
    if plan.kind.reads != "features":
        return
    if not any(np.isnan(block).any() for block in blocks):
        return
    if plan.fusion is not None and not plan.fusion.takes_missing:
        msg = f"The fusion {plan.fusion.name!r} needs the vectors of every member."
        raise UsageError(msg, hint="Use missing='drop', or a method that can do without.")
    joined = plan.fusion is None or plan.fusion.makes == "vectors"
    if joined and not plan.kind.takes_missing:
        msg = f"The classifier {plan.kind.name!r} needs the vectors of every member."
        raise UsageError(
            msg, hint="Use xgboost, missing='drop', or the fusion average, rank or stacking."
        )
