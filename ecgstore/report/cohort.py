"""Who and what was recorded: the figures a reader needs before any score.

Everything is counted in DuckDB from the rows of ``records``, ``labels`` and ``rejects``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecgstore.catalog import Catalog

__all__ = ["Cohort", "Task", "cohort"]

# The records of a split, or all of them where there is none.
_MEMBERS = """
    with members as (
        select *
        from records
        where $split is null
            or record_id in (select record_id from splits where split_id = $split)
    )
"""


@dataclass(frozen=True)
class Task:
    """Labels of one task in a cohort: ``positives`` of ``labelled`` records."""

    name: str
    positives: int
    labelled: int

    @property
    def prevalence(self) -> float:
        """Positives over labelled records."""
        return self.positives / self.labelled


@dataclass(frozen=True)
class Cohort:
    """Who and what was recorded.

    Attributes:
        records: ECGs in the cohort.
        stored: ECGs in the warehouse.
        patients: Different patients among those with a patient id.
        unidentified: ECGs without a patient id.
        complete: ECGs that have all twelve leads.
        recorded: First and last year of recording, None where no time is stored.
        age: First quartile, median, third quartile in years; None where no age is stored.
        age_known: ECGs with an age.
        ages: Sex to one count a decade of age, from 0–9 to 90 and over.
        datasets: Dataset to ECGs.
        sexes: Sex to ECGs.
        rates: Sampling rate in Hz to ECGs.
        durations: Length in seconds to ECGs.
        flags: Quality flag to ECGs that carry it.
        rejects: Reason to files refused, of the whole warehouse.
        tasks: Binary tasks, most positives first.
    """

    records: int
    stored: int
    patients: int
    unidentified: int
    complete: int
    recorded: tuple[int, int] | None
    age: tuple[float, float, float] | None
    age_known: int
    ages: Mapping[str, Sequence[int]]
    datasets: Mapping[str, int]
    sexes: Mapping[str, int]
    rates: Mapping[float, int]
    durations: Mapping[float, int]
    flags: Mapping[str, int]
    rejects: Mapping[str, int]
    tasks: Sequence[Task]


def cohort(catalog: Catalog, split: str | None) -> Cohort:
    """Count the records of a split, or of the whole warehouse where ``split`` is None."""

    def rows(query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = catalog.table(_MEMBERS + query, {"split": split}).to_pylist()
        return found

    def counts(query: str) -> dict[Any, int]:
        return {row["name"]: row["n"] for row in rows(query)}

    total = rows("""
        select
            count(*) as records,
            (select count(*) from records) as stored,
            count(distinct (dataset, patient_id)) filter (patient_id is not null) as patients,
            count(*) filter (patient_id is null) as unidentified,
            count(*) filter (len(leads) = 12) as complete,
            min(year(recorded_at)) as first_year,
            max(year(recorded_at)) as last_year,
            count(age) as age_known,
            quantile_cont(age, [0.25, 0.5, 0.75]) as age
        from members
    """)[0]
    decades = rows("""
        select
            coalesce(sex, 'unknown') as sex,
            least(floor(age / 10), 9)::integer as decade,
            count(*) as n
        from members
        where age >= 0
        group by all
        order by all
    """)
    ages: dict[str, list[int]] = {}
    for row in decades:
        ages.setdefault(row["sex"], [0] * 10)[row["decade"]] += row["n"]
    by_count = "group by all order by n desc, name"
    return Cohort(
        records=total["records"],
        stored=total["stored"],
        patients=total["patients"],
        unidentified=total["unidentified"],
        complete=total["complete"],
        recorded=(total["first_year"], total["last_year"]) if total["first_year"] else None,
        age=tuple(total["age"]) if total["age_known"] else None,
        age_known=total["age_known"],
        ages=ages,
        datasets=counts(f"select dataset as name, count(*) as n from members {by_count}"),
        sexes=counts(
            f"select coalesce(sex, 'unknown') as name, count(*) as n from members {by_count}"
        ),
        rates=counts(f"select rate_hz as name, count(*) as n from members {by_count}"),
        durations=counts(
            f"select round(n_samples / rate_hz, 1) as name, count(*) as n from members {by_count}"
        ),
        flags=counts(
            "select name, count(*) as n from members, unnest(quality) as flag(name) " + by_count
        ),
        rejects=counts(f"select reason as name, count(*) as n from rejects {by_count}"),
        tasks=[
            Task(**row)
            for row in rows("""
                select
                    task as name,
                    count(*) filter (label = 1) as positives,
                    count(*) as labelled
                from labels
                join members using (record_id)
                where label is not null
                group by task
                having bool_and(label in (0, 1))
                order by positives desc, name
            """)
        ],
    )
