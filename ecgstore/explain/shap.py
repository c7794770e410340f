"""TreeSHAP of a stored XGBoost classifier, summed by model: whose numbers make the score.

The value of a number is its mean marginal contribution over all orders in which numbers could
become known (Shapley 1953; Lundberg and Lee 2017, "A unified approach to interpreting model
predictions", NeurIPS); XGBoost computes it exactly for its trees (Lundberg et al. 2020, "From local
explanations to global understanding with explainable AI for trees", Nature Machine Intelligence
2:56). The values of a record add up to its score before the link, less the mean over training
records; so sums over the numbers of one model add up too.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.explain.head import changed, head_of
from ecgstore.features import matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xgboost
    from numpy.typing import NDArray

    from ecgstore.explain.head import Head
    from ecgstore.features import Member
    from ecgstore.warehouse import Warehouse

__all__ = ["ShapResult", "shap_of_run"]

_AT_ONCE = 1024
"""Records explained in one piece: 13 MB of values at 3,072 numbers a record."""

_TEST_RECORDS = """
    select record_id from splits semi join records using (record_id)
    where split_id = $split_id and repeat = $repeat and split = 'test'
"""

_PATIENTS = """
    with named as (
        select
            record_id,
            case
                when patient_id is null then record_id
                else min(record_id) over (partition by patient_id)
            end as first
        from records
    )
    select record_id, dense_rank() over (order by first) - 1 as patient
    from named
    where record_id in (select unnest($ids))
    order by record_id
"""


@dataclass(frozen=True, eq=False)
class ShapResult:
    """What each model of a run adds to the score of each record.

    Attributes:
        run_id: The run.
        features: Name of its feature set.
        repeat: The reshuffle whose classifier is explained.
        unit: What contributions are counted in.
        blocks: Name of each model.
        dims: How many numbers the classifier is given of each.
        record_ids: ``(records,)`` ids, sorted.
        patients: ``(records,)`` number of each record's patient, from 0.
        contributions: ``(records, blocks)`` sum of the SHAP values of a model's numbers.
        sizes: ``(records, blocks)`` sum of their magnitudes.
        bias: The mean score over training records, which contributions start from.
        scores: ``(records,)`` score before the link.
        remarks: What else to mind when reading it.
    """

    run_id: str
    features: str
    repeat: int
    unit: str
    blocks: tuple[str, ...]
    dims: tuple[int, ...]
    record_ids: NDArray[np.object_]
    patients: NDArray[np.intp]
    contributions: NDArray[np.float64]
    sizes: NDArray[np.float64]
    bias: float
    scores: NDArray[np.float64]
    remarks: tuple[str, ...] = ()

    @property
    def additive_error(self) -> float:
        """The most by which bias and contributions of a record miss its score."""
        return float(np.abs(self.bias + self.contributions.sum(axis=1) - self.scores).max())

    @property
    def shares(self) -> NDArray[np.float64]:
        """``(blocks,)`` part of all SHAP magnitude that is each model's; every patient counts once.

        All 0 where the trees never split.
        """
        size = self._by_patient(self.sizes).mean(axis=0)
        shares: NDArray[np.float64] = size / (size.sum() or 1.0)
        return shares

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a model: means over patients, each of whom is the mean of their records."""
        size = self._by_patient(self.sizes).mean(axis=0)
        net = self._by_patient(np.abs(self.contributions)).mean(axis=0)
        return [
            {
                "block": block,
                "dim": dim,
                "mean_abs_shap": float(size[i]),
                "share": float(self.shares[i]),
                "mean_abs_contribution": float(net[i]),
                "unit": self.unit,
                "records": len(self.record_ids),
                "patients": int(self.patients.max()) + 1,
                "additive_error": self.additive_error,
            }
            for i, (block, dim) in enumerate(zip(self.blocks, self.dims, strict=True))
        ]

    @property
    def record_rows(self) -> list[dict[str, object]]:
        """One row a record: its score, and what each model adds to the bias."""
        return [
            {
                "record_id": record_id,
                "score": float(score),
                "bias": self.bias,
                **dict(zip(self.blocks, map(float, values), strict=True)),
                "unit": self.unit,
            }
            for record_id, score, values in zip(
                self.record_ids, self.scores, self.contributions, strict=True
            )
        ]

    @property
    def patient_rows(self) -> list[dict[str, object]]:
        """One row a patient, by number: the mean over their records of what each model adds."""
        means = self._by_patient(self.contributions)
        scores = self._by_patient(self.scores[:, None])[:, 0]
        counts = np.bincount(self.patients)
        return [
            {
                "patient": number,
                "records": int(counts[number]),
                "score": float(scores[number]),
                **dict(zip(self.blocks, map(float, values), strict=True)),
                "unit": self.unit,
            }
            for number, values in enumerate(means)
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to mind when reading it."""
        miss = f"Contributions of a record add up to its score within {self.additive_error:.2g}"
        return (f"{miss} {self.unit}; each patient counts once.", *self.remarks)

    def table(self, each: str = "block") -> list[dict[str, object]]:
        """Return rows of the kind asked for: ``block``, ``record`` or ``patient``."""
        if each == "record":
            return self.record_rows
        return self.patient_rows if each == "patient" else self.rows

    def _by_patient(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(patients, …)`` means over the records of each patient."""
        total = np.zeros((int(self.patients.max()) + 1, values.shape[1]))
        np.add.at(total, self.patients, values)
        return total / np.bincount(self.patients)[:, None]

    def __repr__(self) -> str:
        return f"ShapResult({self.features}, {len(self.record_ids)} records: {self._told})"

    def _repr_html_(self) -> str:
        return f"<b>{escape(self.features)}</b>: {escape(self._told)}"

    @property
    def _told(self) -> str:
        return ", ".join(
            f"{block} {share:.0%}" for block, share in zip(self.blocks, self.shares, strict=True)
        )


def shap_of_run(
    warehouse: Warehouse,
    run: str,
    *,
    repeat: int = 0,
    where: str | None = None,
    record: str | None = None,
) -> ShapResult:
    """Explain the scores that the XGBoost classifier of a reshuffle gives, model by model.

    Args:
        warehouse: Where the run and its vectors are.
        run: Id of a run whose classifiers `ecgstore.train.train` kept, or the beginning of one.
        repeat: The reshuffle.
        where: SQL predicate over ``records``: which of its test records; None for all.
        record: One record instead, wherever the split put it.

    Raises:
        UnknownNameError: There is no such run or reshuffle.
        UsageError: The run's score is not made by XGBoost.
        NotEnoughDataError: No record is left.
        QueryError: ``where`` is not a predicate over ``records``.
    """
    with Catalog(warehouse.relations()) as catalog:
        head = head_of(catalog, run, repeat)
        _check(head)
        given = {"split_id": head.split_id, "repeat": repeat}
        wanted = [record] if record else catalog.table(_TEST_RECORDS, given)[0].to_pylist()
        if where:
            chosen = catalog.table(f"select record_id from records where ({where}\n)")
            wanted = sorted({*wanted} & {*chosen["record_id"].to_pylist()})
        members = head.features.members
        lacking: Literal["drop", "keep"] = "keep" if head.features.missing == "keep" else "drop"
        ids, blocks = matrix(catalog, members, wanted, lacking=lacking)
        if not len(ids):
            msg = f"None of {len(wanted)} records has the vectors that run {head.run_id!r} reads."
            raise NotEnoughDataError(
                msg, task=head.features.name, hint="Choose other records, or embed these first."
            )
        x = head.joined(blocks)
        scores = head.margins(x)
        told = changed(catalog, head, ids.tolist(), scores)
        numbers = catalog.table(_PATIENTS, {"ids": ids.tolist()})["patient"].to_numpy()
    _, patients = np.unique(numbers, return_inverse=True)
    widths = head.widths(blocks)
    values, bias = _tree_shap(head.trees, x)
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    return ShapResult(
        run_id=head.run_id,
        features=head.features.name,
        repeat=repeat,
        unit=head.unit,
        blocks=_names(members),
        dims=tuple(widths),
        record_ids=ids,
        patients=patients,
        contributions=np.add.reduceat(values, starts, axis=1),
        sizes=np.add.reduceat(np.abs(values), starts, axis=1),
        bias=bias,
        scores=scores,
        remarks=told,
    )


def _check(head: Head) -> None:
    if head.is_trees:
        return
    who = f"the fusion {head.features.method!r}" if head.alone is None else repr(head.classifier)
    msg = f"TreeSHAP explains trees; the score of run {head.run_id!r} is made by {who}."
    hint = "Train the features with --classifier xgboost, or explain a record with --record ID."
    raise UsageError(msg, hint=hint)


def _tree_shap(trees: xgboost.Booster, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Return ``(records, numbers)`` SHAP values, and their bias."""
    import xgboost

    parts = [
        trees.predict(xgboost.DMatrix(x[start : start + _AT_ONCE]), pred_contribs=True)
        for start in range(0, len(x), _AT_ONCE)
    ]
    values: NDArray[np.float64] = np.concatenate(parts).astype(np.float64)
    return values[:, :-1], float(values[0, -1])


def _names(members: Sequence[Member]) -> tuple[str, ...]:
    """Return the models' names; whole where two members are of one model."""
    models = [member.model for member in members]
    return tuple(str(m) if models.count(m.model) > 1 else m.model for m in members)
