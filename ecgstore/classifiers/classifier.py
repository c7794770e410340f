"""What every classifier is: settings, one fit, one predict, and a form to keep it in.

A fitted classifier is saved in a format that holds numbers only; nothing is ever pickled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Classifier", "Setting", "classifiers", "converted", "read_settings"]

Setting = int | float | str
"""A value of a classifier's settings; its type is that of the default."""


class Classifier(ABC):
    """A classifier with settings; of continuous labels it is a regression, of times a risk.

    Args:
        params: Settings that differ from `defaults`.
        target: What labels say; one of `targets`.

    Attributes:
        name: Name it is asked for by.
        reads: ``features`` for vectors, ``windows`` for those of each window of a long record,
            ``signal`` for the ECG itself.
        format: Format of what `save` returns.
        defaults: Every setting with its default.
        later: Settings that came after runs had been stored, with their defaults. `params` holds
            them only where they differ, so that those runs are found again.
        targets: What it can be fitted to.
        takes_missing: Whether a value it is given may be NaN.
        space: Where `ecgstore.tune` looks for better settings: ``("whole", low, high)``,
            ``("number", low, high)``, ``("log", low, high)`` or ``("choice", value, …)``.
        params: The settings in force.
        target: What it is fitted to.

    Raises:
        UsageError: It cannot be fitted to such labels, or a setting cannot be used.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["features", "windows", "signal"]]
    format: ClassVar[str]
    defaults: ClassVar[Mapping[str, Setting]]
    later: ClassVar[Mapping[str, Setting]] = {}
    targets: ClassVar[frozenset[str]]
    takes_missing: ClassVar[bool] = False
    space: ClassVar[Mapping[str, tuple[Setting, ...]]] = {}

    def __init__(
        self, params: Mapping[str, Setting] | None = None, *, target: Target = "binary"
    ) -> None:
        if target not in self.targets:
            msg = f"{self.name!r} cannot be fitted to {target} labels"
            msg += f"; it takes {_listed(self.targets)} ones."
            fit = [name for name in classifiers if target in classifiers.get(name).targets]
            raise UsageError(msg, hint=f"These can: {', '.join(fit)}.")
        self.params: dict[str, Setting] = _stored(self, {**self.defaults, **(params or {})})
        self.target: Target = target

    @property
    def steps(self) -> int:
        """How often `fit` tells of progress."""
        return 1

    @classmethod
    def known_settings(cls) -> set[str]:
        """Return the names of all settings, those that came later among them."""
        return {*cls.defaults, *cls.later}

    @classmethod
    def settled(
        cls, params: Mapping[str, Setting], *, task: str, labels: Sequence[str]
    ) -> Mapping[str, Setting]:
        """Return settings with what depends on the task filled in.

        Args:
            params: What `read_settings` returned.
            task: What will be learned.
            labels: What the numbers of a vector stand for, where they are outputs of a head.

        Raises:
            UsageError: They do not fit the task.
        """
        return params

    def setting(self, key: str) -> Setting:
        """Return a setting, be it in `params` or one of `later` at its default."""
        return self.params[key] if key in self.params else self.later[key]

    def fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None = None,
    ) -> None:
        """Fit to training records, and to nothing else.

        Args:
            x: ``(records, dim)`` vectors, ``(records, windows, dim)`` with NaN behind the last
                window of a record, or ``(records, leads, samples)`` millivolts.
            y: ``(records,)`` labels: 0 or 1; class 0, 1, 2, …; numbers; or times, negative where
                the event was not seen until then. Every class occurs.
            step: Called `steps` times, as the work goes on.
            groups: ``(records,)`` number of each record's patient, for classifiers that hold
                records out inside the fit; without it each record is a patient of its own.

        Raises:
            UsageError: A setting or a value has a value that cannot be used.
            NotEnoughDataError: A class does not occur, or too rarely for inner folds.
        """
        self._refuse(x)
        _check_labels(y, self.target)
        self._fit(x, y, step=step, groups=groups)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return a score of each record.

        It is ``(records,)``: the probability of label 1, the value, or the risk; for several
        classes ``(records, classes)`` probabilities.

        Raises:
            UsageError: A value is NaN and may not be, or there are more or fewer of them than
                it was fitted to.
        """
        self._refuse(x)
        if self.dim is not None and x.shape[1] != self.dim:
            msg = f"A vector has {x.shape[1]} numbers; {self.name} was fitted to {self.dim}."
            raise UsageError(msg, hint="Give the features of the run, made as they were then.")
        return self._predict(x)

    @property
    @abstractmethod
    def dim(self) -> int | None:
        """Length of the vectors it was fitted to; None where it reads something else."""

    @abstractmethod
    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        """Fit to what `fit` has checked."""

    @abstractmethod
    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score what `predict` has checked."""

    @abstractmethod
    def save(self) -> bytes:
        """Return what was fitted, in `format`."""

    @classmethod
    @abstractmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
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

    def _refuse(self, x: NDArray[np.float32]) -> None:
        """Raise `UsageError` for a value that this classifier cannot take."""
        if np.isfinite(x).all():
            return
        rows = int((~np.isfinite(x)).reshape(len(x), -1).any(axis=1).sum())
        if np.isinf(x).any():
            msg = f"{rows} of {len(x)} records hold a value that is infinite or missing."
            raise UsageError(msg, hint="Look at the vectors, or scale them otherwise.")
        if not self.takes_missing:
            can = [name for name in classifiers if classifiers.get(name).takes_missing]
            msg = f"{rows} of {len(x)} records lack a value (NaN), which {self.name} cannot take."
            hint = f"Leave those records out, or use one that can: {', '.join(can)}."
            raise UsageError(msg, hint=hint)


classifiers: Registry[type[Classifier]] = Registry("classifier")
"""Every classifier by name; a module that defines one adds it."""


def read_settings(
    kinds: Sequence[type[Classifier]], given: Mapping[str, object] | None
) -> list[dict[str, Setting]]:
    """Return the settings of each classifier in use.

    Args:
        kinds: The classifiers; the first is meant by a bare key.
        given: Values by ``key`` or ``classifier.key``; text is converted to the default's type.

    Raises:
        UsageError: An unknown key, or a value that cannot be converted.
    """
    read = {kind.name: {**kind.defaults, **kind.later} for kind in kinds}
    for name, value in (given or {}).items():
        owner, _, key = name.rpartition(".")
        owner = owner or kinds[0].name
        if owner not in read or key not in read[owner]:
            known = ", ".join(
                key if kind is kinds[0] else f"{kind.name}.{key}"
                for kind in dict.fromkeys(kinds)
                for key in {**kind.defaults, **kind.later}
            )
            msg = f"Unknown setting {name!r}; known: {known}."
            raise UsageError(msg)
        read[owner][key] = converted(name, value, like=read[owner][key])
    return [_stored(kind, read[kind.name]) for kind in kinds]


def _stored(
    kind: Classifier | type[Classifier], params: Mapping[str, Setting]
) -> dict[str, Setting]:
    """Leave out the settings of `Classifier.later` that have their default."""
    return {
        key: value
        for key, value in params.items()
        if key not in kind.later or value != kind.later[key]
    }


def converted(name: str, value: object, *, like: Setting) -> Setting:
    """Return a value in the type of another.

    Raises:
        UsageError: It cannot be converted; the message names the setting.
    """
    try:
        return type(like)(str(value))
    except ValueError as error:
        what = "a whole number" if isinstance(like, int) else "a number"
        msg = f"The setting {name!r} is {str(value)!r}; {what} was expected."
        raise UsageError(msg) from error


def _check_labels(y: NDArray[np.float64], target: Target) -> None:
    """Raise what is wrong with labels to learn from."""
    if not len(y):
        msg = "There is no record to learn from."
        raise NotEnoughDataError(msg, task=target)
    if not np.isfinite(y).all():
        msg = f"{int((~np.isfinite(y)).sum())} of {len(y)} labels are no number."
        raise UsageError(msg, hint="Leave records without a label out.")
    values = np.unique(y)
    if target in {"binary", "multiclass"}:
        known = [0.0, 1.0] if target == "binary" else list(range(max(2, int(values[-1]) + 1)))
        if strange := [value for value in values.tolist() if value not in known]:
            wanted = "0 and 1" if target == "binary" else "0, 1, 2, …"
            msg = f"A label is {strange[0]:g}; for {target} labels {wanted} were expected."
            raise UsageError(msg)
        counts = {f"{value:g}": int((y == value).sum()) for value in known}
        if lacking := [label for label, count in counts.items() if not count]:
            msg = f"None of {len(y)} training records has the label {lacking[0]}."
            hint = "Label more records, or draw another split."
            raise NotEnoughDataError(msg, task=target, counts=counts, hint=hint)
    elif target == "continuous" and len(values) < 2:
        msg = f"All {len(y)} training records have the label {values[0]:g}; nothing to learn."
        raise NotEnoughDataError(msg, task=target)
    elif target == "survival" and not (y > 0).any():
        msg = f"None of {len(y)} training records had the event; all times are negative."
        raise NotEnoughDataError(msg, task=target)


def _listed(names: frozenset[str]) -> str:
    """Return ``a, b and c``."""
    *most, last = sorted(names)
    return f"{', '.join(most)} and {last}" if most else last
