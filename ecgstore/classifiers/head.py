"""The head of a finetuned encoder as a classifier: its own output is the score."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Classifier, Setting, classifiers
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Head"]


class Head(Classifier):
    """Passes one output of a head through: for features such as ``stmem@1f3a…:logits``.

    ``output`` names the output, by its label or by its number from 0; by default it is the one
    that has the name of the task. A logit becomes a probability; a number stays as it is.
    """

    name = "head"
    reads = "features"
    format = "json"
    targets = frozenset({"binary", "continuous"})
    defaults: ClassVar[Mapping[str, Setting]] = {"output": ""}

    _dim: int

    @classmethod
    def settled(
        cls, params: Mapping[str, Setting], *, task: str, labels: Sequence[str]
    ) -> Mapping[str, Setting]:
        """Return the settings with the number of the output of that name.

        Raises:
            UsageError: No output has that name, or nothing tells the names.
        """
        asked = str(params["output"])
        if asked.isdecimal():
            return {**params, "output": int(asked)}
        if (wanted := asked or task) in labels:
            return {**params, "output": labels.index(wanted)}
        if labels:
            msg = f"The head has no output {wanted!r}; it has {', '.join(labels)}."
            hint = "Write the one that is to be scored as --set output=NAME."
        else:
            msg = f"Nothing tells which number of these vectors is the output {wanted!r}."
            hint = "Embed with the read-out logits, or write --set output=0 for the first number."
        raise UsageError(msg, hint=hint)

    @property
    def dim(self) -> int:
        """Length of the vectors it was given."""
        return self._dim

    def _fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float64],
        *,
        step: Callable[[], None],
        groups: NDArray[np.intp] | None,
    ) -> None:
        if not 0 <= self._output < x.shape[1]:
            msg = f"A vector has {x.shape[1]} numbers; there is no output {self._output}."
            raise UsageError(msg, hint="Embed with the read-out logits, and count from 0.")
        self._dim = x.shape[1]
        step()

    @property
    def _output(self) -> int:
        if not (told := str(self.params["output"])).isdecimal():
            msg = f"The setting 'output' is {told!r}; the number of an output was expected."
            raise UsageError(msg, hint="Outputs are counted from 0.")
        return int(told)

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        from scipy.special import expit

        told: NDArray[np.float64] = x[:, self._output].astype(np.float64)
        return told if self.target == "continuous" else np.asarray(expit(told))

    def save(self) -> bytes:
        """Return which output it is, of how many, as JSON."""
        return json.dumps({"dim": self._dim, "output": self._output}).encode()

    @classmethod
    def load(cls, data: bytes, *, target: Target = "binary") -> Self:
        """Return the classifier that `save` saved."""
        told = json.loads(data)
        classifier = cls({"output": told["output"]}, target=target)
        classifier._dim = int(told["dim"])
        return classifier

    @staticmethod
    def library() -> str:
        """Return nothing: no library fits."""
        return "none"


classifiers.add(Head.name, Head)
