"""The predictions of a run, read back as arrays: what every statistic of a run is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.terms import terms_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.tasks import Target

__all__ = ["Part", "Predictions", "command_for", "only_run", "predictions_of", "run_named"]


@dataclass(frozen=True, eq=False)
class Part:
    """One reshuffle: scores of its test records, and of its training records where those were made.

    Attributes:
        repeat: Number of the reshuffle.
        n_train: Records of the training part.
        test: ``(n_test,)`` places of the test records in the arrays of `Predictions`.
        scores: ``(n_test,)`` probability of label 1, predicted value or risk; for several classes
            ``(n_test, classes)`` probabilities.
        train: ``(n,)`` places of training records with an out-of-fold score; empty where none
            were made.
        train_scores: Their out-of-fold scores, shaped as `scores`: each made by a classifier that
            was fitted on the other training records, no record of the same patient among them.
    """

    repeat: int
    n_train: int
    test: NDArray[np.intp]
    scores: NDArray[np.float64]
    train: NDArray[np.intp]
    train_scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """All that a run predicted.

    Attributes:
        run_id: The run.
        features: Name of its feature set.
        classifier: Name of its classifier.
        task: Its task.
        target: What its labels say.
        split_id: Its split.
        protocol: Protocol the split belongs to: ``paper``, ``sound``, or empty.
        record_ids: ``(records,)`` ids, sorted, of every record that has a score.
        labels: ``(records,)`` the label at the time of the run.
        patients: ``(records,)`` number of the patient, from 0; a record without a patient id is a
            patient of its own, as in `ecgstore.splitting.split`.
        parts: The reshuffles, in order.
    """

    run_id: str
    features: str
    classifier: str
    task: str
    target: Target
    split_id: str
    protocol: str
    record_ids: NDArray[np.object_]
    labels: NDArray[np.float64]
    patients: NDArray[np.intp]
    parts: tuple[Part, ...]


_ROWS = """
    with named as (
        select
            record_id,
            case
                when patient_id is null then record_id
                else min(record_id) over (partition by patient_id)
            end as first
        from records
    )
    select
        p.repeat,
        p.record_id,
        p.split,
        p.score,
        p.label,
        coalesce(n.first, p.record_id) as first
    from predictions p
    left join named n using (record_id)
    where p.run_id = $run_id
    order by p.repeat, p.split, p.record_id
"""

_CLASSES = """
    select repeat, split, record_id, list(probability order by class) as scores
    from class_probabilities
    where run_id = $run_id
    group by all
    order by repeat, split, record_id
"""


def command_for(verb: str, run: Predictions | Mapping[str, str], *, features: str = "") -> str:
    """Return what to type to ``train`` or ``evaluate`` as a run was made, or other features so.

    Args:
        verb: The command.
        run: The run, or a row of it.
        features: Another feature set than the run's.
    """
    told = run if isinstance(run, Mapping) else vars(run)
    words = [f"ecgstore {verb} --features {quote(features or told['features'])}"]
    words += [
        f"--{option} {quote(told[name])}"
        for option, name in (("split", "split_id"), ("task", "task"), ("classifier", "classifier"))
    ]
    return " ".join(words)


def run_named(catalog: Catalog, name: str) -> str:
    """Return the id of the scored run that a name, or the beginning of one, stands for.

    Raises:
        UnknownNameError: No run that was evaluated has this id.
        UsageError: Several have ids that begin so.
    """
    rows = catalog.table("select distinct run_id from scores order by run_id")
    return only_run(name, rows["run_id"].to_pylist())


def only_run(name: str, known: Sequence[str], *, kind: str = "run") -> str:
    """Return the one of some ids that a name, or the beginning of one, stands for.

    Raises:
        UnknownNameError: None is so or begins so.
        UsageError: Several begin so.
    """
    fitting = [one for one in known if one == name] or [i for i in known if i.startswith(name)]
    if not fitting:
        raise UnknownNameError(name, kind=kind, known=known)
    if len(fitting) > 1:
        msg = f"{name!r} fits {len(fitting)} runs: {', '.join(fitting[:5])}"
        msg += ", …." if len(fitting) > 5 else "."
        raise UsageError(msg, hint="Write more of the id.")
    return fitting[0]


def predictions_of(catalog: Catalog, run: str) -> Predictions:
    """Read the predictions of a run that was evaluated.

    Args:
        catalog: The warehouse.
        run: Its id, or the beginning of it.

    Raises:
        UnknownNameError: There is no such run.
        UsageError: Several runs begin so.
        NotEnoughDataError: Its predictions are gone.
    """
    run_id = run_named(catalog, run)
    told = catalog.table(
        "select * from scores where run_id = $run_id order by repeat limit 1", {"run_id": run_id}
    ).to_pylist()[0]
    target: Target = told["target"] or "binary"
    rows = catalog.table(_ROWS, {"run_id": run_id})
    if not len(rows):
        msg = f"No prediction of run {run_id!r} is stored any more."
        raise NotEnoughDataError(msg, task=told["task"])
    repeat = rows["repeat"].to_numpy()
    test = rows["split"].to_numpy() == "test"
    labels = rows["label"].to_numpy()
    scores = rows["score"].to_numpy()
    if target == "multiclass":
        found = catalog.table(_CLASSES, {"run_id": run_id})
        scores = np.array(found["scores"].to_pylist(), dtype=np.float64)
    ids, first, place = np.unique(
        rows["record_id"].to_numpy().astype(str), return_index=True, return_inverse=True
    )
    _, patients = np.unique(rows["first"].to_numpy().astype(str)[first], return_inverse=True)
    fitted = _fitted_on(catalog, told["split_id"])
    return Predictions(
        run_id=run_id,
        features=told["features"],
        classifier=told["classifier"],
        task=told["task"],
        target=target,
        split_id=told["split_id"],
        protocol=terms_of(catalog, told["split_id"]).protocol,
        record_ids=ids.astype(object),
        labels=labels[first],
        patients=patients,
        parts=tuple(
            Part(
                repeat=number,
                n_train=fitted.get(number, 0),
                test=place[(repeat == number) & test],
                scores=scores[(repeat == number) & test],
                train=place[(repeat == number) & ~test],
                train_scores=scores[(repeat == number) & ~test],
            )
            for number in np.unique(repeat).tolist()
        ),
    )


def _fitted_on(catalog: Catalog, split_id: str) -> dict[int, int]:
    """Count the records of each training part."""
    rows = catalog.table(
        "select repeat, count(*) as n from splits where split_id = $split and split = 'train' "
        "group by repeat",
        {"split": split_id},
    )
    return dict(zip(rows["repeat"].to_pylist(), rows["n"].to_pylist(), strict=True))
