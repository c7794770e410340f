"""Linear fusion: each member's vectors are turned and shortened, then joined side by side.

All is done on standardised vectors, in double precision. The sign of a direction is that which
makes its greatest weight positive, so that it is the same on every machine. A record that lacks a
member keeps NaN in that member's part; each member is fitted to the records that have it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ecgstore.errors import UsageError
from ecgstore.fusion.fusion import Fusion, need_records, present
from ecgstore.tasks import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.classifiers import Setting

    Block = NDArray[np.floating]
    Matrix = NDArray[np.float64]

__all__ = ["CCA", "PCA", "Projection", "Whiten"]


class Projection(Fusion):
    """Vectors of each member times a matrix of its own."""

    takes = "vectors"
    makes = "vectors"
    targets: ClassVar[frozenset[str]] = frozenset(TARGETS)

    def fit(
        self, blocks: Sequence[Block], y: NDArray[np.float64], *, groups: NDArray[np.intp]
    ) -> None:
        """Fit; labels and patients are not looked at. See `Fusion.fit`."""
        has = present(blocks)
        need_records(has, least=2, name=self.name)
        if int(self.params["dims"]) < 1:
            msg = (
                f"The setting 'dims' of {self.name} is {self.params['dims']}; at least 1 is needed."
            )
            raise UsageError(msg)
        self.fitted = {}
        for i, block in enumerate(blocks):
            x = block[has[:, i]].astype(np.float64)
            deviation = x.std(axis=0, ddof=1)
            deviation[x.max(axis=0) == x.min(axis=0)] = 1  # a constant says nothing: it becomes 0
            self.fitted |= {f"mean.{i}": x.mean(axis=0), f"deviation.{i}": deviation}
        for i, weights in enumerate(self._weights(blocks, has)):
            self.fitted[f"weights.{i}"] = weights

    @property
    def dims(self) -> tuple[int, ...]:
        """How many numbers of the joined vector are of each member."""
        return tuple(self.fitted[f"weights.{i}"].shape[1] for i in range(len(self.fitted) // 3))

    @abstractmethod
    def _weights(self, blocks: Sequence[Block], has: NDArray[np.bool_]) -> list[Matrix]:
        """Return the ``(dim, dims)`` matrix of each member."""

    def _standardised(self, i: int, block: Block) -> Matrix:
        scaled: Matrix = (block - self.fitted[f"mean.{i}"]) / self.fitted[f"deviation.{i}"]
        return scaled

    def apply(self, blocks: Sequence[Block]) -> NDArray[np.float32]:
        """Return ``(records, dims of all members)`` float32; NaN where a member is lacking."""
        has = present(blocks, members=len(self.dims))
        parts = []
        for i, block in enumerate(blocks):
            weights = self.fitted[f"weights.{i}"]
            part = np.full((len(block), weights.shape[1]), np.nan, np.float32)
            part[has[:, i]] = self._standardised(i, block[has[:, i]]) @ weights
            parts.append(part)
        return np.hstack(parts)


class PCA(Projection):
    """The leading principal components of each member's standardised vectors.

    Pearson (1901), "On lines and planes of closest fit to systems of points in space"; Hotelling
    (1933). ``dims`` components a member, fewer where its vectors have no more.
    """

    name = "pca"
    defaults: ClassVar[Mapping[str, Setting]] = {"dims": 64}

    def _weights(self, blocks: Sequence[Block], has: NDArray[np.bool_]) -> list[Matrix]:
        found = [
            _principal(self._standardised(i, block[has[:, i]])) for i, block in enumerate(blocks)
        ]
        dims = int(self.params["dims"])
        return [self._scaled(axes[:, :dims], variance[:dims]) for axes, variance in found]

    def _scaled(self, axes: Matrix, variance: Matrix) -> Matrix:
        return axes


class Whiten(PCA):
    """`PCA` with every component scaled to unit variance.

    A component of variance v is divided by sqrt(v + ``ridge``), so that directions in which the
    training records hardly differ are not blown up; the variance of a standardised number is 1.
    """

    name = "whiten"
    defaults: ClassVar[Mapping[str, Setting]] = {"dims": 64, "ridge": 1e-6}

    def _scaled(self, axes: Matrix, variance: Matrix) -> Matrix:
        return axes / _root(variance + float(self.params["ridge"]))


class CCA(Projection):
    """Canonical variates: the directions in which the members agree best.

    MAXVAR generalised canonical correlation (Kettenring 1971, Biometrika 58:433): the variates of
    all members have the correlation matrix of the greatest first eigenvalue. For two members this
    is Hotelling's (1936) canonical correlation. The covariance of each member is shrunk towards
    that of independent numbers by the part ``shrinkage`` (as ridge CCA, Vinod 1976), without which
    vectors of hundreds of numbers agree by chance. Fitted to the records that have every member;
    each variate has unit variance over them.
    """

    name = "cca"
    defaults: ClassVar[Mapping[str, Setting]] = {"dims": 32, "shrinkage": 0.1}

    def _weights(self, blocks: Sequence[Block], has: NDArray[np.bool_]) -> list[Matrix]:
        shrinkage = float(self.params["shrinkage"])
        if len(blocks) < 2 or not 0 <= shrinkage <= 1:
            msg = f"The fusion 'cca' was given {len(blocks)} members and a shrinkage of "
            msg += f"{shrinkage:g}; it takes 2 members or more and a shrinkage from 0 to 1."
            raise UsageError(msg)
        whole = np.asarray(has.all(axis=1))
        need_records(whole[:, None], least=3, name="cca")
        spread: list[Matrix] = []
        white: list[Matrix] = []
        for i, block in enumerate(blocks):
            x = self._standardised(i, block[whole])
            axes, variance = _principal(x)
            shrunk = (1 - shrinkage) * variance + shrinkage * variance.sum() / x.shape[1]
            spread.append(axes / _root(shrunk))
            white.append((x - x.mean(axis=0)) @ spread[i])
        shared, _ = _principal(np.hstack(white))
        dims = min(int(self.params["dims"]), *(z.shape[1] for z in white))
        parts = np.split(shared[:, :dims], np.cumsum([z.shape[1] for z in white])[:-1])
        return [
            axes @ (part / _root((z @ part).var(axis=0, ddof=1)))
            for axes, z, part in zip(spread, white, parts, strict=True)
        ]


def _principal(x: Matrix) -> tuple[Matrix, Matrix]:
    """Return the principal axes ``(dim, rank)`` of vectors and the variance along each."""
    centred = x - x.mean(axis=0)
    if len(x) > x.shape[1]:
        centred = np.linalg.qr(centred, mode="r")  # the same axes, from a smaller matrix
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    rank = max(int((size > size[0] * max(x.shape) * np.finfo(np.float64).eps).sum()), 1)
    axes, size = axes[:rank], size[:rank]
    greatest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(rank), greatest])[:, None]
    return axes.T, size**2 / (len(x) - 1)


def _root(variance: Matrix) -> Matrix:
    """Return standard deviations; 1 for what does not vary, so that one can divide by it."""
    return np.sqrt(np.where(variance > 0, variance, 1))
