"""How fast thousands of resamples are next to plain scikit-learn, and how DeLong's test grows.

Both ways get the same resamples of patients as places of records, and give the AUROC and the
average precision of each; counting how often each record was drawn is part of our time. The loop
is timed over part of the resamples, as it takes the same for each. The values are compared first.

    python benchmarks/resamples.py --records 5000 --resamples 2000
"""

from __future__ import annotations

import argparse
import statistics as stats
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgstore.statistics.bootstrap import counts_of
from ecgstore.statistics.delong import paired
from ecgstore.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]
NAMES = ("AUROC", "AUCPR")


def vectorised(labels: Array, scores: Array, drawn: Array) -> Array:
    """Return ``(resamples, 2)`` with ecgstore."""
    counts = counts_of(drawn)
    return np.stack([METRICS[name].of(labels, scores, counts) for name in NAMES], axis=1)


def plain(labels: Array, scores: Array, drawn: Array) -> Array:
    """Return ``(resamples, 2)`` with a loop over scikit-learn."""
    return np.array(
        [
            (roc_auc_score(labels[i], scores[i]), average_precision_score(labels[i], scores[i]))
            for i in drawn
        ]
    )


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return stats.median(taken)


def main() -> None:
    """Time both ways and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--loop", type=int, default=200, help="resamples of the plain loop")
    options = parser.parse_args()
    n = options.records
    rng = np.random.default_rng(0)
    labels = (rng.random(n) < 0.2) * 1.0
    for what, scores in (
        ("all different", rng.normal(size=n) + labels),
        ("in a hundred steps", (rng.normal(size=n) + labels).round(1)),
    ):
        drawn = rng.integers(0, n, (options.resamples, n))
        ours, theirs = vectorised(labels, scores, drawn), plain(labels, scores, drawn[:50])
        if np.abs(ours[:50] - theirs).max() > 1e-12:
            msg = "The two differ."
            raise SystemExit(msg)
        fast = seconds(lambda s=scores, d=drawn: vectorised(labels, s, d), 5)  # type: ignore[misc]
        part = drawn[: options.loop]
        slow = seconds(lambda s=scores, d=part: plain(labels, s, d), 1)  # type: ignore[misc]
        slow *= options.resamples / len(part)
        print(
            f"{options.resamples} bootstraps over {n} scores, {what}: ecgstore {fast:.3f} s, "
            f"scikit-learn {slow:.1f} s: {slow / fast:.0f} times; wanted >= 50; equal to 1e-12"
        )
    before = None
    for n in (1_000, 10_000, 100_000):
        y = (rng.random(n) < 0.2) * 1
        a, b = rng.normal(size=(2, n)) + y
        taken = seconds(lambda y=y, a=a, b=b: paired(y, a, b), 5)  # type: ignore[misc]
        grown = f", {taken / before:.1f} times as long" if before else ""
        print(f"DeLong, paired, {n} scores: {1e3 * taken:.1f} ms{grown}; n log n is 12 to 13 times")
        before = taken


if __name__ == "__main__":
    main()
