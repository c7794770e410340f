"""What each test finds where there is nothing to find: real fits, permuted labels.

Each cohort has patients with one to three records and two feature sets of 16 numbers; a logistic
regression is fitted on each over reshuffles that keep patients together. With ``--signal`` both
sets tell the label equally well; without it the labels are permuted. Prints how often each p-value
is below 0.05 and how often each interval covers 0.

That 0 is the difference of the two ways of learning. DeLong's test, the permutation test and the
interval over patients ask another question: they take the fitted classifiers as they are, which do
differ a little by what they happened to learn, so here they find more than 0.05. Their own null is
in ``tests/statistics/test_null.py``.

    python benchmarks/null.py --cohorts 200 --signal 0.6
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression

from ecgstore.statistics.bootstrap import Sample
from ecgstore.statistics.metrics import METRICS
from ecgstore.statistics.pair import Draws, paired

if TYPE_CHECKING:
    from ecgstore.statistics.pair import Pair

Array = np.ndarray[Any, Any]


def cohort(rng: np.random.Generator, patients: int, signal: float) -> tuple[Array, Array, Array]:
    """Return labels, ``(2, records, 16)`` features and patients."""
    groups = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    labels = (rng.random(patients) < 0.35)[groups] * 1.0
    x = rng.normal(size=(2, len(groups), 16)) + rng.normal(size=(2, patients, 16))[:, groups]
    x[..., 0] += signal * labels
    return labels, x, groups


def compared(rng: np.random.Generator, patients: int, signal: float, repeats: int) -> Pair:
    """Fit both feature sets over reshuffles and compare them."""
    labels, x, groups = cohort(rng, patients, signal)
    runs: list[list[Sample]] = [[], []]
    records, trained = [], 0
    for _ in range(repeats):
        away = rng.permutation(patients)[: patients // 5]
        test = np.isin(groups, away)
        records.append(np.flatnonzero(test))
        trained += int((~test).sum())
        for run, one in zip(runs, x, strict=True):
            model = LogisticRegression(max_iter=200).fit(one[~test], labels[~test])
            scores = model.decision_function(one[test])
            run.append(Sample(labels[test], scores, groups[test]))
    ratio = sum(map(len, records)) / trained
    draws = Draws(resamples=300, seed=int(rng.integers(2**31)))
    return paired(*runs, records, METRICS["AUROC"], test_to_train=ratio, draws=draws)


def main() -> None:
    """Print the rates of false findings and of coverage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--signal", type=float, default=0.0)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    p: dict[str, list[float]] = {"corrected t": [], "DeLong": [], "permutation": [], "plain t": []}
    covers: Counter[str] = Counter()
    for _ in range(options.cohorts):
        pair = compared(rng, options.patients, options.signal, options.repeats)
        again, by_record, swapped = pair.over_reshuffles, pair.delong, pair.permuted
        if again is None or by_record is None or swapped is None:
            continue
        p["corrected t"].append(again.p)
        p["DeLong"].append(by_record.p)
        p["permutation"].append(swapped.p)
        intervals = {"corrected t": again.interval, "DeLong": by_record.interval}
        for name, one in {**intervals, "BCa over patients": pair.over_patients}.items():
            covers[name] += not one.excludes_zero
        # The t-test as it is often done, from the width that the correction left behind.
        ratio = 0.25
        t = stats.t.isf(again.p / 2, options.repeats - 1)
        p["plain t"].append(
            2 * stats.t.sf(t * np.sqrt(1 + options.repeats * ratio), options.repeats - 1)
        )
    low, high = stats.binom(options.cohorts, 0.05).interval(0.999) / np.array(options.cohorts)
    print(f"{options.cohorts} cohorts, {options.repeats} reshuffles, signal {options.signal:g}")
    for name, found in p.items():
        uniform = stats.kstest(found, "uniform").pvalue
        print(
            f"{name}: {np.mean(np.array(found) < 0.05):.3f} below 0.05 (right: {low:.3f} to "
            f"{high:.3f}), Kolmogorov-Smirnov p {uniform:.2g}"
        )
    for name, count in covers.items():
        print(f"{name}: 95 % interval covers 0 in {count / options.cohorts:.3f}")


if __name__ == "__main__":
    main()
