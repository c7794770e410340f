"""One self-contained HTML page about a split: cohort, scores, curves, maps, provenance.

The page is made from the tables alone and holds no time but that of the newest run, so the same
warehouse always gives the same bytes and a second call changes nothing.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore import settings
from ecgstore.catalog import Catalog
from ecgstore.errors import NotEnoughDataError, UnknownNameError, UsageError
from ecgstore.features import SIGNAL, FeatureSet, feature_set, is_member, member_parameters
from ecgstore.progress import Progress, Silent
from ecgstore.project import lay_out, only_split
from ecgstore.report import chapters, lineage, summary
from ecgstore.report.cohort import cohort
from ecgstore.report.findings import Study, models, newest, pr_curve, roc_curve, runs, split_named
from ecgstore.report.page import document, join, tag
from ecgstore.split import Reshuffle, reshuffles
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.project import Projection
    from ecgstore.report.findings import Run

__all__ = ["ReportResult", "report"]

_PACKAGES = ("duckdb", "numpy", "pyarrow", "scikit-learn", "torch", "xgboost")


@dataclass(frozen=True)
class ReportResult:
    """What a `report` call wrote.

    Attributes:
        path: The page.
        split: Split it is about, None where there is none.
        runs: Runs in its Table 1.
        written: False when the page was there already, byte for byte.
        seconds: Time taken.
    """

    path: Path
    split: str | None
    runs: int
    written: bool
    seconds: float

    @property
    def rows(self) -> list[dict[str, object]]:
        """The result as one row."""
        return [
            {
                "path": str(self.path),
                "split": self.split,
                "runs": self.runs,
                "written": self.written,
                "seconds": round(self.seconds, 3),
            }
        ]

    def __repr__(self) -> str:
        state = "" if self.written else ", unchanged"
        return f"ReportResult({str(self.path)!r}, {self.runs} runs{state})"

    def _repr_html_(self) -> str:
        return tag("span", f"{self.runs} runs in ", tag("b", self.path.name))


def report(
    warehouse: Warehouse,
    out: Path,
    *,
    split: str | None = None,
    title: str | None = None,
    progress: Progress | None = None,
) -> ReportResult:
    """Write the page about a split, or about the cohort alone while nothing is evaluated.

    Args:
        warehouse: What the page is about; nothing is written to it.
        out: The HTML file.
        split: Name of the split; default the only one.
        title: Title of the page; default the task and the split.
        progress: Told of every part.

    Raises:
        UsageError: There are several splits and none was named, or ``out`` cannot be written.
        UnknownNameError: There is no such split.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    versions = warehouse.versions()
    with Catalog(Warehouse(warehouse.root, at=versions).relations()) as catalog:
        name = split or only_split(catalog)
        study = _gather(catalog, name, versions, progress)
    written = _write(Path(out), _page(study, title))
    return ReportResult(Path(out), name, len(study.runs), written, time.perf_counter() - began)


def _gather(
    catalog: Catalog, split: str | None, versions: dict[str, int], progress: Progress
) -> Study:
    found = runs(catalog, split) if split else []
    shown = newest(found)
    sets = _sets(catalog, shown)
    progress.start(len(shown) + len(sets), "figures")
    curves = {}
    for run in shown:
        drawn = roc_curve(catalog, run), pr_curve(catalog, run)
        if drawn[0] is not None and drawn[1] is not None:
            curves[run.run_id] = (drawn[0], drawn[1])
        progress.advance()
    maps: dict[str, Projection | str] = {}
    for name, features in sets.items():
        maps[name] = _map(catalog, features, reshuffles(catalog, split or "")[0])
        progress.advance()
    [SIGNAL, *sets, *(run.features for run in shown)]
    return Study(
        cohort=cohort(catalog, split),
        split=split_named(catalog, split) if split else None,
        runs=sorted(
            shown, key=lambda run: len(sets[run.features].members) if run.features in sets else 0
        ),
        earlier=[run for run in found if run not in shown],
        sets=sets,
        covered={name: _covered(catalog, features, split) for name, features in sets.items()},
        models=models(catalog),
        curves=curves,
        maps=maps,
        versions=versions,
    )


def _sets(catalog: Catalog, found: Sequence[Run]) -> dict[str, FeatureSet]:
    """Return what the features of each run are made of, single models before fused ones."""
    sets = {}
    for name in dict.fromkeys(run.features for run in found if run.features != SIGNAL):
        try:
            sets[name] = feature_set(catalog, name)
        except (UnknownNameError, UsageError):
            continue  # its vectors were erased, or the name has come to fit several
    return dict(sorted(sets.items(), key=lambda pair: len(pair[1].members)))


def _map(catalog: Catalog, features: FeatureSet, reshuffle: Reshuffle) -> Projection | str:
    try:
        return lay_out(catalog, features, reshuffle)
    except NotEnoughDataError as error:
        return f"{features.name}: {error.message}"


def _covered(catalog: Catalog, features: FeatureSet, split: str | None) -> int:
    """Count the records of the split that have the vector of every member."""
    members = range(len(features.members))
    rows = catalog.table(
        f"""
        with covered as (
            select record_id
            from embeddings
            where ({" or ".join(f"({is_member(i)})" for i in members)})
                and record_id in (select record_id from splits where split_id = $split)
            group by record_id
            having count(*) = {len(members)}
        )
        select count(*) as n
        from covered
        """,
        {**member_parameters(features.members), "split": split},
    )
    count: int = rows["n"][0].as_py()
    return count


def _page(study: Study, title: str | None) -> str:
    split = study.split
    title = title or (f"{split.task} from the ECG" if split else "The cohort")
    parts = {
        "Result": chapters.result_chapter(study),
        "Curves": chapters.curves_chapter(study),
        "Maps": chapters.maps_chapter(study),
        "Cohort": lineage.cohort_chapter(study),
        "Models": lineage.models_chapter(study),
        "Method": lineage.method_chapter(study),
        "Sources": lineage.sources_chapter(study, _environment()),
    }
    header = join(
        [
            tag("h1", title),
            summary.question(study),
            summary.answer(study),
            summary.headline(study),
            *summary.warnings(study),
        ]
    )
    scored = max((run.at for run in study.runs), default=None)
    newest_run = f" Newest score on this page: {scored:%Y-%m-%d %H:%M} UTC." if scored else ""
    return document(
        title,
        header=header,
        contents=[(name.lower(), name) for name, part in parts.items() if part is not None],
        main=join([part for part in parts.values() if part is not None], "\n"),
        footer=tag("p", f"Made by ecgstore {settings.version()}.{newest_run}"),
    )


def _environment() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _write(out: Path, page: str) -> bool:
    """Put the page in place whole or not at all, and tell whether it changed."""
    content = page.encode()
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.exists() and out.read_bytes() == content:
            return False
        try:
            temporary.write_bytes(content)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        msg = f"Cannot write {str(out)!r}: {error.strerror}."
        raise UsageError(msg) from error
    return True
