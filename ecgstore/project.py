"""A map of a feature set: training records laid out in two dimensions, half of each class."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ecgstore.catalog import Catalog
from ecgstore.errors import MissingDependencyError, NotEnoughDataError, UsageError
from ecgstore.features import FeatureSet, feature_set, matrix
from ecgstore.scaling import fused, statistics
from ecgstore.splitting.split import Reshuffle, reshuffles
from ecgstore.terms import drawn_splits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ecgstore.warehouse import Warehouse

__all__ = ["METHODS", "Method", "Projection", "lay_out", "only_split", "project"]

Method = Literal["tsne", "pca", "umap"]

METHODS = {"tsne": "t-SNE", "pca": "PCA", "umap": "UMAP"}
"""The methods of `project` by name, as they are written for readers."""

_ITERATIONS = 500
"""Steps of t-SNE, half of scikit-learn's: 500 points are within 0.5 % of their divergence then."""

# Okabe and Ito's blue and vermilion, which the colour-blind can tell apart; shapes differ as well.
_NEGATIVE, _POSITIVE = "#0072b2", "#d55e00"


@dataclass(frozen=True, eq=False)
class Projection:
    """Records of one feature set at their places in the plane.

    Attributes:
        features: Name of the feature set.
        split_id: Split whose training part was drawn from.
        repeat: Reshuffle of that split.
        task: Task whose labels are shown.
        method: ``tsne``, ``pca`` or ``umap``.
        seed: Seed of the sample and of the layout.
        record_ids: Records drawn, sorted.
        xy: ``(records, 2)`` float32 positions; only their relative places mean anything.
        labels: ``(records,)`` float64, 1 for positives.
        available: Positives and negatives of the training part that have all vectors.
        definition: What the features are made of and how they were scaled.
    """

    features: str
    split_id: str
    repeat: int
    task: str
    method: Method
    seed: int
    record_ids: tuple[str, ...]
    xy: NDArray[np.float32]
    labels: NDArray[np.float64]
    available: tuple[int, int]
    definition: Mapping[str, object]

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a record: ``record_id``, ``label``, ``x``, ``y``."""
        return [
            {"record_id": record_id, "label": float(label), "x": float(x), "y": float(y)}
            for record_id, label, (x, y) in zip(self.record_ids, self.labels, self.xy, strict=True)
        ]

    def save(self, path: str | Path) -> Path:
        """Draw the map into a PNG file; the same projection gives the same bytes.

        Raises:
            UsageError: The file name does not end in ``.png``, or it cannot be written.
        """
        from matplotlib.figure import Figure

        path = Path(path)
        if path.suffix.lower() != ".png":
            msg = f"Cannot draw into {path.name!r}: the picture is a PNG file."
            raise UsageError(msg, hint=f"Name it {path.stem}.png.")
        figure = Figure(figsize=(5.4, 5.6), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        positive = self.labels == 1
        drawn = {}
        for chosen, colour, marker, word in (
            (~positive, _NEGATIVE, "o", "negative"),
            (positive, _POSITIVE, "^", "positive"),
        ):
            drawn[f"{self.task} {word} ({int(chosen.sum())})"] = axes.scatter(
                self.xy[chosen, 0],
                self.xy[chosen, 1],
                s=16,
                c=colour,
                marker=marker,
                alpha=0.75,
                linewidths=0,
            )
        title = f"{self.features}, {METHODS[self.method]} of training records"
        axes.set_title(title, fontsize=11, parse_math=False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#b4b9be")
        legend = figure.legend(
            drawn.values(), drawn, loc="outside lower center", ncols=2, frameon=False, fontsize=10
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a task may be called anything
        picture = BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a script the font lacks shows as boxes
            figure.savefig(picture, format="png")
        try:
            path.write_bytes(picture.getvalue())
        except OSError as error:
            msg = f"Cannot write {str(path)!r}: {error.strerror}."
            raise UsageError(msg) from error
        return path

    def __repr__(self) -> str:
        positives = int(self.labels.sum())
        return (
            f"Projection({self.features!r}, {self.method}, {positives} positive + "
            f"{len(self.labels) - positives} negative for {self.task})"
        )

    def _repr_html_(self) -> str:
        picture = ", ".join(f"{n} {word}" for n, word in zip(self._counts, _CLASSES, strict=True))
        return f"{METHODS[self.method]} of training records: {picture}"

    @property
    def _counts(self) -> tuple[int, int]:
        positives = int(self.labels.sum())
        return positives, len(self.labels) - positives


_CLASSES = ("positive", "negative")


def project(
    warehouse: Warehouse,
    features: str,
    *,
    split: str | None = None,
    method: Method = "tsne",
    n: int = 500,
    repeat: int = 0,
    seed: int = 0,
) -> Projection:
    """Lay out a balanced sample of training records in two dimensions.

    Half of the sample are positives. Where the training part holds fewer than ``n / 2`` of a
    class, all of them are taken and as many of the other class. Which records are drawn depends on
    their ids and the seed alone, so feature sets over the same records show the same ones.

    Args:
        warehouse: Where vectors, labels and splits are read; nothing is written.
        features: A feature set: a fused name, ``model``, ``model@version`` or ``model:readout``.
        split: Split whose training part is drawn from; default the only one.
        method: ``tsne``, ``pca``, or ``umap``, which needs umap-learn.
        n: Records to draw.
        repeat: Reshuffle of the split.
        seed: Seed of the sample and of the layout.

    Raises:
        UsageError: There are several splits and none was named, or an argument is out of range.
        UnknownNameError: No such feature set, or no such split.
        NotEnoughDataError: A class has fewer than two records, or all vectors are equal.
        MissingDependencyError: ``umap`` was asked for and is not installed.
    """
    with Catalog(warehouse.relations()) as catalog:
        return lay_out(
            catalog,
            feature_set(catalog, features),
            _reshuffle(catalog, split, repeat),
            method=method,
            n=n,
            seed=seed,
        )


def lay_out(
    catalog: Catalog,
    features: FeatureSet,
    reshuffle: Reshuffle,
    *,
    method: Method = "tsne",
    n: int = 500,
    seed: int = 0,
) -> Projection:
    """Lay out training records of a reshuffle that is at hand; see `project`."""
    if method not in METHODS:
        msg = f"Unknown method {method!r}; known: {', '.join(METHODS)}."
        raise UsageError(msg)
    if n < 4:
        msg = f"n is {n}; a map needs at least 4 records."
        raise UsageError(msg)
    ids, blocks = matrix(catalog, features.members, reshuffle.train)
    labels = _labels(catalog, reshuffle.task, ids)
    chosen = _balanced(ids, labels, n=n, seed=seed, task=reshuffle.task)
    fitted = [
        statistics(x, np.ones((1, len(x)), dtype=bool))[0]
        for x in (_fitted_on(catalog, features, i, reshuffle) for i in range(len(blocks)))
    ]
    x = fused([block[chosen] for block in blocks], fitted, scale=features.scale)
    if not np.ptp(x, axis=0).any():
        msg = f"All vectors of {features.name!r} are equal; there is nothing to lay out."
        raise NotEnoughDataError(msg, task=reshuffle.task)
    return Projection(
        features=features.name,
        split_id=reshuffle.split_id,
        repeat=reshuffle.repeat,
        task=reshuffle.task,
        method=method,
        seed=seed,
        record_ids=tuple(ids[chosen]),
        xy=_reduce(x, method, seed=seed),
        labels=labels[chosen],
        available=(int((labels == 1).sum()), int((labels == 0).sum())),
        definition=features.definition,
    )


def only_split(catalog: Catalog) -> str | None:
    """Return the name of the only split, or None where there is none yet.

    Raises:
        UsageError: There are several; the message lists them.
    """
    names = drawn_splits(catalog)
    if len(names) > 1:
        msg = f"The warehouse has {len(names)} splits: {', '.join(names)}."
        raise UsageError(msg, hint="Name one of them with --split.")
    return names[0] if names else None


def _reshuffle(catalog: Catalog, split: str | None, repeat: int) -> Reshuffle:
    name = split or only_split(catalog)
    if name is None:
        msg = "The warehouse has no split, so no training part to draw from."
        raise UsageError(msg, hint="Draw one: ecgstore split NAME --task TASK")
    found = {one.repeat: one for one in reshuffles(catalog, name)}
    if repeat not in found:
        msg = f"The split {name!r} has no reshuffle {repeat}; it has 0 to {max(found)}."
        raise UsageError(msg)
    return found[repeat]


def _labels(catalog: Catalog, task: str, ids: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the label of each record, NaN where there is none (any more)."""
    rows = catalog.table("select record_id, label from labels where task = $task", {"task": task})
    known = dict(zip(rows["record_id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    return np.array([known.get(record_id, np.nan) for record_id in ids], dtype=np.float64)


def _balanced(
    ids: NDArray[np.object_], labels: NDArray[np.float64], *, n: int, seed: int, task: str
) -> NDArray[np.intp]:
    """Return the places of the sample, ascending: equally many of each class."""

    def rank(place: np.intp) -> bytes:
        return hashlib.blake2b(f"{seed}/{ids[place]}".encode(), digest_size=16).digest()

    classes = [np.flatnonzero(labels == value) for value in (1, 0)]
    size = min(n // 2, *(len(places) for places in classes))
    if size < 2:
        counts = {name: len(places) for name, places in zip(_CLASSES, classes, strict=True)}
        msg = (
            f"The training part has {counts['positive']} positive and {counts['negative']} "
            f"negative records with all vectors for task {task!r}; 2 of each are needed."
        )
        raise NotEnoughDataError(msg, task=task, counts=counts)
    drawn = [place for places in classes for place in sorted(places, key=rank)[:size]]
    return np.array(sorted(drawn), dtype=np.intp)


def _fitted_on(
    catalog: Catalog, features: FeatureSet, i: int, reshuffle: Reshuffle
) -> NDArray[np.float32]:
    """Return the vectors of a member that its scaling is fitted on, as runs do it."""
    records: Sequence[str] | None = None if features.fit == "all" else reshuffle.train
    return matrix(catalog, features.members[i : i + 1], records)[1][0]


def _reduce(x: NDArray[np.float32], method: Method, *, seed: int) -> NDArray[np.float32]:
    # One thread: sums over several come in any order, and t-SNE magnifies the last bit.
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return np.asarray(_reducer(len(x), method, seed).fit_transform(x), dtype=np.float32)


def _reducer(n: int, method: Method, seed: int) -> Any:  # noqa: ANN401  three libraries' estimators
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError as error:
            raise MissingDependencyError(
                purpose="The projection method 'umap'", package="umap-learn", extra="umap"
            ) from error
        return UMAP(n_neighbors=min(15, n - 1), random_state=seed, n_jobs=1)
    if method == "pca":
        from sklearn.decomposition import PCA

        return PCA(n_components=2, random_state=seed)
    from sklearn.manifold import TSNE

    return TSNE(
        perplexity=min(30.0, (n - 1) / 3),
        init="pca",
        max_iter=_ITERATIONS,
        random_state=seed,
        n_jobs=1,
    )
