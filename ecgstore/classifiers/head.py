"""The head of a finetuned encoder as a classifier: its own output is the score."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ecgstore.classifiers.classifier import Classifier, Setting, classifiers
from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ecgstore.tasks import Target

__all__ = ["Head"]


class Head(Classifier):
    """Passes one output of a head through: for features such as ``stmem@1f3a…:logits``.

    ``output`` is the number of the output, from 0, in the order of the head's labels. A logit
    becomes a probability; a number stays as it is.
    """

    name = "head"
    reads = "features"
    format = "json"
    targets = frozenset({"binary", "continuous"})
    defaults: ClassVar[Mapping[str, Setting]] = {"output": 0}

    _dim: int

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
        output = int(self.params["output"])
        if not 0 <= output < x.shape[1]:
            msg = f"A vector has {x.shape[1]} numbers; there is no output {output}."
            raise UsageError(msg, hint="Embed with the read-out logits, and count from 0.")
        self._dim = x.shape[1]
        step()

    def _predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        from scipy.special import expit

        told: NDArray[np.float64] = x[:, int(self.params["output"])].astype(np.float64)
        return told if self.target == "continuous" else np.asarray(expit(told))

    def save(self) -> bytes:
        """Return which output it is, of how many, as JSON."""
        return json.dumps({"dim": self._dim, "output": self.params["output"]}).encode()

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
