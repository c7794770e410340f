"""All of a stored run that comes after the encoders: scaling, fusion and classifier in one call."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.classifiers import classifiers
from ecgstore.classifiers.tensors import from_tensors, to_tensors
from ecgstore.errors import UnknownNameError, UsageError, WeightsError
from ecgstore.features import CONCATENATION, SIGNAL, FeatureSet, feature_set
from ecgstore.predictions import command_for, only_run, run_named
from ecgstore.runs import stored_scaling, under
from ecgstore.scaling import fused
from ecgstore.stored_fits import load_fitted
from ecgstore.terms import terms_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import xgboost
    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.classifiers import Classifier
    from ecgstore.fitting import Fitted
    from ecgstore.models import Encoder
    from ecgstore.scaling import Statistics
    from ecgstore.tasks import Target

    Block = NDArray[np.float32]

__all__ = ["Head", "changed", "encoders_of", "head_of"]

_SURE = 1e-7
"""Probabilities nearer to 0 or 1 are taken as this far from them: log-odds must be finite."""

_LEAST = 1e-30
"""A hazard below this is taken as this."""

_SAME = 1e-2
"""By how much a score may differ from the stored one: encoders and trees count in single precision,
and a sum of trees near a threshold may fall on its other side."""


@dataclass(frozen=True, eq=False)
class Head:
    """What a reshuffle of a run makes of the vectors of a record.

    Attributes:
        run_id: The run.
        repeat: The reshuffle.
        features: The feature set; without members where the classifier reads the ECG itself.
        classifier: Name of the classifier.
        target: What labels say.
        split_id: The split.
        fitted: Classifiers and fusion.
        statistics: What the vectors of each member are scaled by; empty without a scale.
    """

    run_id: str
    repeat: int
    features: FeatureSet
    classifier: str
    target: Target
    split_id: str
    fitted: Fitted
    statistics: tuple[Statistics, ...] = ()

    @property
    def unit(self) -> str:
        """What scores are counted in."""
        if self.features.method == "rank":
            return "rank from 0 to 1"
        units = {"binary": "log-odds", "survival": "log hazard" if self.is_trees else "risk"}
        return units.get(self.target, "units of the label")

    @property
    def alone(self) -> Classifier | None:
        """The classifier that makes the score; None where a fusion makes it."""
        fusion = self.fitted.fusion
        joins = fusion is None or fusion.makes == "vectors"
        return self.fitted.classifiers[0] if joins else None

    @property
    def is_trees(self) -> bool:
        """Whether XGBoost alone makes the score."""
        return self.classifier == "xgboost" and self.alone is not None

    @functools.cached_property
    def trees(self) -> xgboost.Booster:
        """The trees, where `is_trees`."""
        import xgboost

        model = bytearray(self.fitted.classifiers[0].save())
        return xgboost.Booster({"verbosity": 0}, model_file=model)

    @functools.cached_property
    def labels(self) -> tuple[float, float]:
        """Slope and shift from the output of a network that reads the ECG to the score."""
        arrays, _ = from_tensors(self.fitted.classifiers[0].save())
        mean, deviation = arrays.get("labels", (0.0, 1.0))
        return float(deviation), float(mean)

    def __call__(self, blocks: Sequence[Block]) -> NDArray[np.float64]:
        """Score records.

        Args:
            blocks: ``(records, dim)`` vectors of each member; of a classifier that reads the ECG
                its one output, ``(records, 1)`` log-odds.

        Returns:
            ``(records,)`` float64 in `unit`.
        """
        if not self.features.members:
            slope, shift = self.labels
            return blocks[0][:, 0].astype(np.float64) * slope + shift
        if self.is_trees:
            return self.margins(self.joined(blocks))
        return self.linked(self.fitted.predict(self._inputs(blocks)))

    def linked(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores as ``predictions`` holds them, ``(records,)``, in `unit`."""
        if self.unit == "log hazard":
            hazard: NDArray[np.float64] = np.log(np.maximum(scores, _LEAST))
            return hazard
        if self.unit != "log-odds":
            return scores
        sure = np.clip(scores, _SURE, 1 - _SURE)
        log_odds: NDArray[np.float64] = np.log(sure / (1 - sure))
        return log_odds

    def margins(self, x: Block) -> NDArray[np.float64]:
        """Return the sums of the trees, before any link, of what `joined` returns."""
        import xgboost

        found: NDArray[np.float64] = self.trees.predict(xgboost.DMatrix(x), output_margin=True)
        return found.astype(np.float64)

    def joined(self, blocks: Sequence[Block]) -> Block:
        """Return what the one classifier is given: ``(records, dims of all members)``."""
        inputs = self._inputs(blocks)
        fusion = self.fitted.fusion
        return inputs[0] if fusion is None else fusion.apply(inputs).astype(np.float32)

    def widths(self, blocks: Sequence[Block]) -> list[int]:
        """Return how many of the numbers of `joined` are each member's."""
        if self.fitted.fusion is None:
            return [block.shape[1] for block in blocks]
        learned = self.fitted.fusion.fitted
        return [learned[f"weights.{i}"].shape[1] for i in range(len(blocks))]

    def _inputs(self, blocks: Sequence[Block]) -> list[Block]:
        if self.features.method != CONCATENATION:
            return list(blocks)
        return [fused(blocks, self.statistics, scale=self.features.scale)]


def head_of(catalog: Catalog, run: str, repeat: int = 0) -> Head:
    """Read what a run learned in a reshuffle.

    Args:
        catalog: The warehouse.
        run: Id of a run whose classifiers `ecgstore.train.train` kept, or the beginning of one.
        repeat: The reshuffle.

    Raises:
        UnknownNameError: There is no such run or reshuffle.
        UsageError: Several runs begin so, the run was only evaluated, or its task has several
            classes.
    """
    told = _told(catalog, run, repeat)
    target: Target = told["target"] or "binary"
    if target == "multiclass":
        msg = f"Run {told['run_id']!r} tells several classes apart, and has a score for each."
        raise UsageError(msg, hint="Attach a task with labels 0 and 1 for one class, and run that.")
    if classifiers.get(told["classifier"]).reads == "windows":
        msg = f"Run {told['run_id']!r} reads the windows of long records, which no method explains."
        raise UsageError(msg, hint="Explain a run on the vectors of whole records.")
    fitted = load_fitted(catalog, told["run_id"], repeat)
    features = FeatureSet(SIGNAL, ())
    statistics: list[Statistics] = []
    if told["features"] != SIGNAL:
        features = under(
            terms_of(catalog, told["split_id"]).protocol, feature_set(catalog, told["features"])
        )
        if features.scale != "none":
            by_repeat = stored_scaling(catalog, features, told["split_id"])
            key = 0 if features.fit == "all" else repeat
            statistics = [one[key] for one in by_repeat]
    return Head(
        run_id=told["run_id"],
        repeat=repeat,
        features=features,
        classifier=told["classifier"],
        target=target,
        split_id=told["split_id"],
        fitted=fitted,
        statistics=tuple(statistics),
    )


def encoders_of(
    catalog: Catalog,
    head: Head,
    *,
    weights: Sequence[str | Path | None] | None = None,
    settings: Sequence[Mapping[str, object]] | None = None,
    device: str = "auto",
) -> list[Encoder]:
    """Load the encoders that made the vectors of a run, in the order of its members.

    Args:
        catalog: The warehouse.
        head: The run.
        weights: A file a member, None or ``-`` for a model that is built in.
        settings: What a file does not tell, for each member.
        device: As for `ecgstore.load_encoder`.

    Raises:
        UsageError: The numbers of members and files differ.
        WeightsError: Weights are absent, damaged, or other than those of the run.
    """
    from ecgstore.models import load_encoder

    members = head.features.members
    if not members:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "classifier.safetensors"
            arrays, params = from_tensors(head.fitted.classifiers[0].save())
            arrays.pop("labels", None)  # see `Head.labels`
            written.write_bytes(to_tensors(arrays, params))
            return [load_encoder("resnet50", weights=written, readout="logits", device=device)]
    files = weights or [None] * len(members)
    if len(files) != len(members):
        names = ", ".join(member.model for member in members)
        msg = f"{len(files)} weights files were given for {len(members)} models: {names}."
        hint = "Give one for each model, in order; '-' for a model that needs none."
        raise UsageError(msg, hint=hint)
    encoders = []
    for number, (member, file) in enumerate(zip(members, files, strict=True)):
        told = catalog.table(
            "select precision from models where model = $model and version = $version",
            {"model": member.model, "version": member.version},
        )["precision"].to_pylist()
        encoder = load_encoder(
            f"{member.model}:{member.pooling}",
            weights=None if str(file) == "-" else file,
            settings=settings[number] if settings else None,
            device=device,
            precision=told[0] if told else "auto",
        )
        if encoder.version != member.version:
            msg = f"These weights make version {encoder.version} of {member.model!r}; the run's "
            msg += f"vectors are of version {member.version}."
            hint = "Give the file that they were made with, and the same precision."
            raise WeightsError(msg, model=member.model, hint=hint)
        encoders.append(encoder)
    return encoders


def changed(
    catalog: Catalog, head: Head, record_ids: Sequence[str], scores: NDArray[np.float64]
) -> tuple[str, ...]:
    """Return a sentence where scores are not those that the run stored, else nothing.

    They differ where vectors or what they are scaled by were made anew since.

    Args:
        catalog: The warehouse.
        head: What made the scores.
        record_ids: The records.
        scores: ``(records,)`` in the head's unit.
    """
    rows = catalog.table(
        "select record_id, score from predictions where run_id = $run_id and repeat = $repeat "
        "and split = 'test' and record_id in (select unnest($ids))",
        {"run_id": head.run_id, "repeat": head.repeat, "ids": list(record_ids)},
    )
    stored = dict(
        zip(rows["record_id"].to_pylist(), head.linked(rows["score"].to_numpy()), strict=True)
    )
    apart = [
        abs(score - stored[record_id])
        for record_id, score in zip(record_ids, scores.tolist(), strict=True)
        if record_id in stored
    ]
    differ = sum(one > _SAME for one in apart)
    if not differ:
        return ()
    told = f"{differ} of {len(apart)} scores are not those that the run stored, by up to "
    told += f"{max(apart):.2g} {head.unit}: vectors or their scaling were made anew since."
    return (told,)


def _told(catalog: Catalog, run: str, repeat: int) -> dict[str, Any]:
    """Return the row of ``classifiers`` that a name stands for."""
    rows = catalog.table("select * exclude (model) from classifiers order by run_id, repeat")
    kept = rows.to_pylist()
    names = list(dict.fromkeys(row["run_id"] for row in kept))
    if not run or not any(name.startswith(run) for name in names):
        _explain_absence(catalog, run, names)
    run_id = only_run(run, names)
    mine = {row["repeat"]: row for row in kept if row["run_id"] == run_id}
    if repeat not in mine:
        known = [str(number) for number in mine]
        raise UnknownNameError(str(repeat), kind="reshuffle", known=known)
    row: dict[str, Any] = mine[repeat]
    if row.get("features") is None or row.get("split_id") is None:
        msg = f"Run {run_id!r} was kept by an older program, which did not note its features."
        raise UsageError(msg, hint="Train it again with: ecgstore train")
    return row


def _explain_absence(catalog: Catalog, run: str, names: Sequence[str]) -> None:
    """Raise what is wrong with a name that no kept run has."""
    try:
        scored = run_named(catalog, run)
    except UnknownNameError as error:
        raise UnknownNameError(run, kind="trained run", known=names) from error
    row = catalog.table(
        "select features, split_id, task, classifier from scores where run_id = $run_id limit 1",
        {"run_id": scored},
    ).to_pylist()[0]
    msg = f"Run {scored!r} was evaluated, and its classifiers were not kept."
    raise UsageError(msg, hint=f"Keep them with: {command_for('train', row)}")
