"""The report on a split: one self-contained page, the same as Markdown, or all figures as JSON.

It is made from the tables alone and holds no time but that of the newest run, so the same
warehouse always gives the same bytes and a second call changes nothing.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ecgstore import settings
from ecgstore.errors import UsageError
from ecgstore.progress import Progress, Silent
from ecgstore.report import lineage, summary
from ecgstore.report.checklist import checklist_chapter
from ecgstore.report.clinical import clinical_chapter
from ecgstore.report.contribution import contribution_chapter
from ecgstore.report.curves import curves_chapter
from ecgstore.report.examples import examples_chapter
from ecgstore.report.figures import as_json
from ecgstore.report.gather import gather
from ecgstore.report.maps import maps_chapter
from ecgstore.report.markdown import markdown
from ecgstore.report.method import method_chapter
from ecgstore.report.page import document, join, tag
from ecgstore.report.result import gap_chapter, result_chapter
from ecgstore.report.subgroups import subgroups_chapter
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgstore.report.study import Study

__all__ = ["Form", "ReportResult", "render", "report"]

Form = Literal["html", "md", "json"]
"""The forms of a report: a page, Markdown with the same words and figures, or figures alone."""


@dataclass(frozen=True)
class ReportResult:
    """What a `report` call wrote.

    Attributes:
        path: The file.
        split: Split it is about, None where there is none.
        runs: Runs in its Table 1.
        written: False when the file was there already, byte for byte.
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
    by: Sequence[str] = (),
    form: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> ReportResult:
    """Write the report on a split, or on the cohort alone while nothing is evaluated.

    Args:
        warehouse: What it is about; nothing is written to it.
        out: The file.
        split: Name of the split; default the only one.
        title: Title; default the task.
        by: SQL expressions over ``records`` whose groups are told apart, such as ``device``;
            default sex and age from 65 on, where they are known.
        form: ``html``, ``md`` or ``json``; default by the suffix of `out`, else ``html``.
        resamples: Bootstrap resamples of every interval.
        seed: Seed of the resamples and of the maps.
        progress: Told of every part.

    Raises:
        UsageError: There are several splits and none was named, the form is unknown, or ``out``
            cannot be written.
        UnknownNameError: There is no such split.
    """
    began = time.perf_counter()
    out = Path(out)
    form = _form(form, out)
    study = gather(
        Warehouse(warehouse.root, at=warehouse.versions()),
        split,
        title=title,
        by=by,
        resamples=resamples,
        seed=seed,
        progress=progress or Silent(),
    )
    content = render(study, form)
    name = study.split.name if study.split else None
    return ReportResult(
        out, name, len(study.runs), _write(out, content), time.perf_counter() - began
    )


def render(study: Study, form: Form) -> str:
    """Return what was gathered in one of the forms."""
    if form == "json":
        return as_json(study)
    page = _page(study)
    return markdown(page) if form == "md" else page


def _form(form: str | None, out: Path) -> Form:
    suffix = {".md": "md", ".markdown": "md", ".json": "json"}.get(out.suffix.lower(), "html")
    asked = form or suffix
    known: tuple[Form, ...] = get_args(Form)
    for one in known:
        if one == asked:
            return one
    msg = f"Unknown form {asked!r} of a report; known: {', '.join(known)}."
    raise UsageError(msg)


def _page(study: Study) -> str:
    parts = {
        "result": ("Result", result_chapter(study)),
        "protocols": ("Two protocols", gap_chapter(study)),
        "curves": ("Curves", curves_chapter(study)),
        "clinical": ("Usefulness", clinical_chapter(study)),
        "subgroups": ("For whom", subgroups_chapter(study)),
        "contribution": ("Models' shares", contribution_chapter(study)),
        "maps": ("Maps", maps_chapter(study)),
        "examples": ("ECGs", examples_chapter(study)),
        "cohort": ("Cohort", lineage.cohort_chapter(study)),
        "models": ("Models", lineage.models_chapter(study)),
        "method": ("Method", method_chapter(study)),
        "sources": ("Sources", lineage.sources_chapter(study)),
        "checklist": ("Checklist", checklist_chapter(study)),
    }
    header = join(
        [
            tag("h1", study.title),
            summary.question(study),
            summary.answer(study),
            summary.headline(study),
            *summary.warnings(study),
        ]
    )
    scored = max((run.at for run in study.runs), default=None)
    newest = f" Newest score on this page: {scored:%Y-%m-%d %H:%M} UTC." if scored else ""
    return document(
        study.title,
        header=header,
        contents=[(name, words) for name, (words, part) in parts.items() if part is not None],
        main=join([part for _, part in parts.values() if part is not None], "\n"),
        footer=tag("p", f"Made by ecgstore {settings.version()}.{newest}"),
    )


def _write(out: Path, text: str) -> bool:
    """Put the file in place whole or not at all, and tell whether it changed."""
    content = text.encode()
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
