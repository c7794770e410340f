"""Published figures come out of published predictions: PTB-XL's benchmark and the CODE test set."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ecgstore.statistics.bootstrap import counts_of
from ecgstore.statistics.metrics import METRICS, measure
from ecgstore.statistics.operating import confusion

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def ptbxl(test_data: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], Path]:
    folder = test_data / "data" / "reference_outputs" / "ptbxl_exp0"
    labels = np.load(folder / "y_test.npy").astype(np.float64)
    return labels, np.load(folder / "fastai_xresnet1d101" / "y_test_pred.npy"), folder


def test_macro_averages_over_the_statements_of_ptbxl(test_data: Path) -> None:
    labels, scores, _ = ptbxl(test_data)
    found = [measure(y, s) for y, s in zip(labels.T, scores.T, strict=True)]
    assert np.mean([one["AUROC"] for one in found]) == pytest.approx(0.9254358590, abs=1e-10)
    assert np.mean([one["AUCPR"] for one in found]) == pytest.approx(0.3705829615, abs=1e-10)


def test_the_published_bootstrap_of_ptbxl(test_data: Path) -> None:
    # The benchmark draws a hundred resamples that hold every statement and stores them; it tells
    # their mean and the percentiles at 5 and 95 (te_results.csv of Strodthoff et al. 2021).
    labels, scores, folder = ptbxl(test_data)
    drawn = np.load(folder / "test_bootstrap_ids.npy", allow_pickle=False)
    with (folder / "fastai_xresnet1d101" / "te_results.csv").open(newline="") as stream:
        published = {row[""]: float(row["macro_auc"]) for row in csv.DictReader(stream)}
    counts = counts_of(drawn)
    auroc = METRICS["AUROC"]
    each = [auroc.of(y, s, counts) for y, s in zip(labels.T, scores.T, strict=True)]
    macro = np.mean(each, axis=0)
    assert macro.mean() == pytest.approx(published["mean"], abs=1e-12)
    low, high = np.percentile(macro, [5, 95])
    assert (low, high) == pytest.approx((published["lower"], published["upper"]), abs=1e-12)


CODE = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
"""The abnormalities of the CODE test set, in the order of its files (Ribeiro et al. 2020)."""


READERS = {
    "DNN": "dnn",
    "cardio.": "cardiology_residents",
    "emerg.": "emergency_residents",
    "stud.": "medical_students",
}


def read(path: Path) -> dict[str, NDArray[np.intp]]:
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: np.array([int(row[name]) for row in rows]) for name in CODE}


@pytest.mark.parametrize("reader", READERS)
def test_the_table_of_the_code_test_set(test_data: Path, reader: str) -> None:
    folder = test_data / "data" / "reference_outputs" / "code_test"
    truth = read(folder / "data" / "annotations" / "gold_standard.csv")
    said = read(folder / "data" / "annotations" / f"{READERS[reader]}.csv")
    with (folder / "outputs" / "tables" / "scores.csv").open(newline="") as stream:
        figures, readers, *rows = csv.reader(stream)
    column = {
        figure: number
        for number, (figure, name) in enumerate(zip(figures, readers, strict=True))
        if name == reader
    }
    assert [row[0] for row in rows] == list(CODE)
    for row in rows:
        found = confusion(truth[row[0]], said[row[0]])
        told = (found.ppv, found.sensitivity, found.specificity, found.f1)
        printed = [row[column[one]] for one in ("Precision", "Recall", "Specificity", "F1 score")]
        assert [f"{one:.3f}" for one in told] == printed


# AUROC and average precision of the network's scores on the same set, to six digits: the README
# beside the test data, made with scikit-learn.
AREAS = {
    "1dAVb": (0.994234, 0.926347),
    "RBBB": (0.999073, 0.974951),
    "LBBB": (1.000000, 1.000000),
    "SB": (0.997457, 0.849012),
    "AF": (0.997448, 0.915322),
    "ST": (0.998563, 0.964220),
}


def test_the_areas_of_the_code_test_set(test_data: Path) -> None:
    folder = test_data / "data" / "reference_outputs" / "code_test"
    truth = read(folder / "data" / "annotations" / "gold_standard.csv")
    scores = np.load(folder / "dnn_predicts" / "model.npy")
    for column, name in enumerate(CODE):
        found = measure(truth[name], scores[:, column])
        assert (round(found["AUROC"], 6), round(found["AUCPR"], 6)) == AREAS[name]
