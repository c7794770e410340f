"""One interface for every way to join what several models say of a record, and their register."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from ecgstore.errors import NotEnoughDataError, UsageError
from ecgstore.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.classifiers import Setting
    from ecgstore.tasks import Target

__all__ = ["Fusion", "fusions", "need_records", "present"]


class Fusion(ABC):
    """A way to join the members of a feature set, fitted on training records and nothing else.

    What is fitted is a handful of arrays: they are saved as safetensors, never pickled.

    Args:
        params: Settings that differ from `defaults`.
        target: What the labels say.

    Attributes:
        name: Name it is asked for by.
        takes: ``vectors`` of each member, or ``scores`` of a classifier fitted to each member.
        makes: ``vectors`` for one classifier, or the final ``scores``.
        learns: Whether `fit` looks at the blocks at all; of scores that it does not, none need be
            made out of fold.
        takes_missing: Whether rows of a block may be NaN: that member's vector is lacking.
        targets: Kinds of target it can fit.
        defaults: Every setting with its default.
        params: The settings in force.
        target: What the labels say.
        fitted: What was learned, by name.

    Raises:
        UsageError: It cannot fit this kind of target.
    """

    name: ClassVar[str]
    takes: ClassVar[Literal["vectors", "scores"]]
    makes: ClassVar[Literal["vectors", "scores"]]
    learns: ClassVar[bool] = True
    takes_missing: ClassVar[bool] = True
    targets: ClassVar[frozenset[str]]
    defaults: ClassVar[Mapping[str, Setting]] = {}

    def __init__(
        self, params: Mapping[str, Setting] | None = None, *, target: Target = "binary"
    ) -> None:
        if target not in self.targets:
            msg = f"The fusion {self.name!r} cannot fit a {target} target; it fits "
            msg += f"{' and '.join(sorted(self.targets))} ones."
            raise UsageError(msg, hint="Use the fusion 'average', which fits every kind.")
        self.params: dict[str, Setting] = {**self.defaults, **(params or {})}
        self.target: Target = target
        self.fitted: dict[str, NDArray[Any]] = {}

    @abstractmethod
    def fit(
        self,
        blocks: Sequence[NDArray[np.floating]],
        y: NDArray[np.float64],
        *,
        groups: NDArray[np.intp],
    ) -> None:
        """Fit to training records.

        Args:
            blocks: One a member: ``(records, dim)`` vectors, or ``(records, 1)`` out-of-fold
                scores, for several classes ``(records, classes)`` probabilities.
            y: ``(records,)`` labels.
            groups: ``(records,)`` number of the patient.

        Raises:
            NotEnoughDataError: Too few records have what is needed.
            UsageError: A setting has a value that cannot be used.
        """

    @abstractmethod
    def apply(self, blocks: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
        """Join records, none of which changes what another gets.

        Returns:
            ``(records, dim)`` float32 vectors, or ``(records,)`` float64 scores; for several
            classes ``(records, classes)`` probabilities.

        Raises:
            NotEnoughDataError: A record lacks every member, so that it cannot be scored.
        """

    def save(self) -> bytes:
        """Return settings and arrays as safetensors."""
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(array) for name, array in self.fitted.items()}
        data: bytes = save(arrays, metadata={"params": json.dumps(self.params)})
        return data

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the fusion that `save` saved; it applies the same, bit for bit."""
        from safetensors.numpy import load

        # The first 8 bytes are the length of the JSON header, which keeps the metadata.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        fusion = cls(json.loads(header["__metadata__"]["params"]), target=target)
        fusion.fitted = load(data)
        return fusion

    @staticmethod
    def library() -> str:
        """Return the name and version of the library that fits."""
        return f"numpy {np.__version__}"


def present(
    blocks: Sequence[NDArray[np.floating]], *, members: int | None = None
) -> NDArray[np.bool_]:
    """Tell which member each record has: ``(records, members)`` bool; no number of it is NaN.

    Raises:
        UsageError: There are not as many blocks as members were fitted.
    """
    if not blocks or (members is not None and len(blocks) != members):
        msg = f"{len(blocks)} members were given; {members or 'at least 1'} were expected."
        raise UsageError(msg)
    return np.stack([~np.isnan(block).any(axis=1) for block in blocks], axis=1)


def need_records(has: NDArray[np.bool_], *, least: int, name: str) -> None:
    """Raise `NotEnoughDataError` unless each member has some training records, ``(n, members)``."""
    for number, count in enumerate(has.sum(axis=0).tolist(), 1):
        if count < least:
            msg = f"Only {count} training records have member {number} of the fusion; {name!r} "
            msg += f"needs {least}."
            raise NotEnoughDataError(
                msg, task=name, counts={"records": count}, hint="Embed more records."
            )


fusions: Registry[type[Fusion]] = Registry("fusion")
"""Every way to fuse, by name."""
