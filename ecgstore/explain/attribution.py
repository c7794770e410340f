"""What an explanation of one ECG's score is: numbers by lead, and by lead and time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Attribution"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each part of an ECG raises (positive) or lowers (negative) its score.

    Attributes:
        method: ``occlusion`` or ``integrated gradients``.
        unit: What scores are counted in: ``log-odds`` or what the task's labels are.
        leads: Leads of the record that were looked at, in its order.
        edges_s: ``(bins + 1,)`` seconds of the record at which stretches of time begin and end.
        values: ``(leads, bins)`` what each stretch of each lead adds to the score; NaN where the
            models cannot take the record without it.
        by_lead: ``(leads,)`` what each lead adds as a whole; NaN likewise.
        score: The score of the record.
        baseline: The score of the reference without any signal; None where there is none.
        notes: What to mind when reading it.
    """

    method: str
    unit: str
    leads: tuple[str, ...]
    edges_s: NDArray[np.float64]
    values: NDArray[np.float64]
    by_lead: NDArray[np.float64]
    score: float
    baseline: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float | None:
        """What all parts together lack of score minus baseline; None without a baseline."""
        if self.baseline is None:
            return None
        return float(self.by_lead.sum() - (self.score - self.baseline))

    @property
    def rows(self) -> list[dict[str, object]]:
        """One row a lead, with the second about which its strongest stretch lies."""
        middle_s = (self.edges_s[1:] + self.edges_s[:-1]) / 2
        rows: list[dict[str, object]] = []
        for lead, effect, values in zip(self.leads, self.by_lead, self.values, strict=True):
            known = np.isfinite(values)
            peak = int(np.argmax(np.where(known, np.abs(values), -1))) if known.any() else None
            told = bool(np.isfinite(effect))
            rows.append(
                {
                    "lead": lead,
                    "effect": float(effect) if told else None,
                    "unit": self.unit,
                    "peak_s": None if peak is None else round(float(middle_s[peak]), 3),
                    "peak_effect": None if peak is None else float(values[peak]),
                    "score": self.score,
                    "method": self.method,
                    "reason": None if told else "the models take no record without this lead",
                }
            )
        return rows

    def noted(self, *notes: str) -> Attribution:
        """Return the same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def __repr__(self) -> str:
        return f"Attribution({self.method}: score {self.score:.3f} {self.unit}, {self._strongest})"

    def _repr_html_(self) -> str:
        found = f"<b>{escape(self.method)}</b>: score {self.score:.3f} {escape(self.unit)}"
        return f"{found}, {escape(self._strongest)}"

    @property
    def _strongest(self) -> str:
        known = np.isfinite(self.by_lead)
        if not known.any():
            return "no lead can be left out"
        lead = int(np.argmax(np.where(known, np.abs(self.by_lead), -1)))
        return f"strongest {self.leads[lead]} ({self.by_lead[lead]:+.3f})"
