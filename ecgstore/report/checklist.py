"""The TRIPOD+AI checklist, answered where the store knows the answer.

TRIPOD+AI is the reporting guideline for prediction models by regression or machine learning
(Collins et al., BMJ 385 (2024), e078378). Its 27 main items stand here by their numbers, in words
of this project's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecgstore.report.lineage import span
from ecgstore.report.page import Column, Html, details, section, table, tag
from ecgstore.report.summary import name_of, percent, repeats, spread, unit

if TYPE_CHECKING:
    from ecgstore.report.study import Study

__all__ = ["ITEMS", "UNKNOWN", "answers", "checklist_chapter"]

UNKNOWN = "not known to the store - to be answered by the authors"
"""The answer to what no table holds."""

ITEMS: dict[int, tuple[str, str]] = {
    1: ("Title", "That a prediction model is developed or evaluated, for whom and what."),
    2: ("Abstract", "A summary by the checklist for abstracts."),
    3: ("Background", "The health question, why a model, what is there, known inequalities."),
    4: ("Objectives", "Whether a model is developed, evaluated, or both."),
    5: ("Data", "Where the data are from, why these, and when they were collected."),
    6: ("Participants", "The setting, who was eligible, what treatment they had."),
    7: ("Data preparation", "Cleaning and preparation, the same for all groups or not."),
    8: ("Outcome", "What is predicted, over what time, who assessed it and how blindly."),
    9: ("Predictors", "What the model is given, how it is measured and by whom."),
    10: ("Sample size", "How the number of participants came about, for fitting and testing."),
    11: ("Missing data", "What was done about missing values and left-out records."),
    12: (
        "Analytical methods",
        (
            "How data were divided, predictors handled, the model chosen and fitted, and which "
            "measures of performance were taken."
        ),
    ),
    13: ("Class imbalance", "What was done about it, and about calibration afterwards."),
    14: ("Fairness", "How it was looked at whether the model works alike for groups of people."),
    15: ("Model output", "What the model gives, and how thresholds were chosen."),
    16: ("Training versus evaluation", "How the data fitted to differ from those tested on."),
    17: ("Ethical approval", "The board that approved it, and consent."),
    18: (
        "Open science",
        "Funding, conflicts of interest, protocol, registration, where data and code are.",
    ),
    19: ("Patient and public involvement", "Who took part in the study, or that nobody did."),
    20: ("Participants in the results", "Flow of participants, their characteristics, events."),
    21: ("Model development", "Participants and events in each analysis."),
    22: ("Model specification", "The whole model, so that others can use or test it."),
    23: ("Model performance", "Performance with intervals, also by group and by site."),
    24: ("Model updating", "What came of updating the model, if it was."),
    25: ("Interpretation", "What the results mean beside other evidence and for fairness."),
    26: ("Limitations", "What weakens the study: sample, bias, missing data."),
    27: ("Usability", "What a user must put in, poor input, and what is still to be studied."),
}
"""Number to name and what is asked, in short."""


def checklist_chapter(study: Study) -> Html:
    """Show every item with its answer, or that the authors must give it."""
    known = answers(study)
    rows = [
        [f"{number}", name, asked, known.get(number, UNKNOWN)]
        for number, (name, asked) in ITEMS.items()
    ]
    return section(
        "checklist",
        "TRIPOD+AI checklist",
        tag(
            "p",
            f"Of the {len(ITEMS)} main items of the reporting guideline for prediction models "
            f"(Collins et al., BMJ 385 (2024), e078378), the store answers {len(known)}, in part "
            "or whole, from its tables; the others are for the authors. What is asked is put "
            "in this page's own words.",
        ),
        details(
            "All items",
            table(
                "TRIPOD+AI, what the store knows",
                [Column("Item"), Column("Name"), Column("What is asked"), Column("Answer")],
                rows,
            ),
        ),
    )


def answers(study: Study) -> dict[int, str]:
    """Return item number to what the store knows of it."""
    cohort, split, best = study.cohort, study.split, study.best
    found: dict[int, str] = {}
    years = f", recorded {cohort.recorded[0]} to {cohort.recorded[1]}" if cohort.recorded else ""
    sources = ", ".join(f"{name} ({n:,} ECGs)" for name, n in cohort.datasets.items())
    refused = sum(cohort.rejects.values())
    if cohort.records:
        found[5] = f"{sources}{years}."
        found[7] = (
            "ECGs are stored as the source has them, unfiltered; each model's preparation is part "
            f"of its version, see Models. {refused:,} files were refused, see Cohort."
        )
        found[11] = _missing(study)
        found[18] = (
            f"Software: ecgstore {_codes(study)}; every figure can be asked for in SQL, see Where "
            f"each figure is from. Funding, conflicts, protocol, registration: {UNKNOWN}."
        )
        found[20] = f"{cohort.records:,} ECGs of {cohort.patients:,} patients, see Cohort."
    if split is None:
        return found
    sizes = split.sizes
    found[4] = f"The ECG's value for “{study.task}” is developed and tested within one cohort."
    found[10] = (
        f"All labelled records were used: {span([size['train'] for size in sizes])} to fit and "
        f"{span([size['test'] for size in sizes])} to test in each {unit(split)}. No calculation "
        "of a sample size is stored."
    )
    found[12] = (
        f"{repeats(len(sizes), split)} by {split.params.get('group', 'a rule that is not stated')}"
        ", see How it was computed; everything fitted was fitted on training records unless the "
        "table of features says otherwise."
    )
    apart = "None" if not split.shared_patients else f"{split.shared_patients:,}"
    found[16] = f"Both parts are of the same cohort. Patients on both sides: {apart}."
    if best is None:
        return found
    found[1] = f"This page: “{study.title}”."
    found[8] = f"“{study.task}”, a {study.target} label from the table labels. {_share(study)}"
    found[9] = (
        "; ".join(
            f"{name}: {', '.join(str(member) for member in features.members)}"
            for name, features in study.sets.items()
        )
        or f"The ECG itself, by {best.classifier}."
    )
    found[13] = "No resampling or weighting is stored beyond the classifier's settings, see there."
    found[15] = (
        "A score for each record"
        + (", a probability of the label" if study.target == "binary" else "")
        + ". Thresholds, where told, are chosen on out-of-fold scores of training records."
    )
    metric = study.metrics[0]
    found[21] = f"{name_of(best, study)} was tested on {span(best.tested)} records a {unit(split)}."
    found[22] = (
        f"{best.classifier} with the settings under What was fitted; run {best.run_id}. "
        "A run that was trained is kept in the table classifiers and can score new records."
    )
    found[23] = (
        f"{metric} of {name_of(best, study)}: {spread(best.values[metric])} over "
        f"{repeats(len(best.repeats), split)}; intervals in Table 1."
    )
    if study.subgroups is not None and not isinstance(study.subgroups, str):
        found[14] = "By group, see For whom: " + " ".join(study.subgroups.sentences)
    return found


def _missing(study: Study) -> str:
    lines = [
        f"{name}: {n:,} of {study.cohort.records:,} ECGs have every vector"
        for name, n in study.covered.items()
    ]
    told = "; ".join(lines)
    return (
        f"Records without a label are left out. {told}."
        if told
        else ("Records without a label are left out.")
    )


def _share(study: Study) -> str:
    task = next((one for one in study.cohort.tasks if one.name == study.task), None)
    if task is None:
        return ""
    return f"{percent(task.positives, task.labelled)} of {task.labelled:,} ECGs are positive."


def _codes(study: Study) -> str:
    return ", ".join(sorted({run.code for run in study.runs})) or "of this page's foot"
