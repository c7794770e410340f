"""From millivolts to the windows a model was trained on: what it takes, and what it refuses."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch

from ecgstore import signal as on_host
from ecgstore.errors import UnfitRecordError, UsageError
from ecgstore.models import tensor_signal as on_device
from ecgstore.models.rows import has_samples, is_flat, rows_by_lead
from ecgstore.record import INVALID

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from ecgstore.models.arithmetic import Arithmetic, Signal
    from ecgstore.models.spec import ModelSpec, Variant

__all__ = ["Preparation"]


class Preparation(abc.ABC):
    """The half of an encoder that comes before its network.

    Attributes:
        spec: The facts about the model.
        variant: How records are prepared.
        readout: How a vector is made of what the network computes.
        rate_hz: Samples per second of a prepared window.
        window_samples: Samples of a full prepared window.
    """

    spec: ModelSpec
    variant: Variant
    readout: str
    rate_hz: float
    window_samples: int

    @abc.abstractmethod
    def _starts(self, n_samples: int, rate_hz: float) -> tuple[float, ...]:
        """Return the second at which each window of a record starts; ``()`` if it is too short."""

    @abc.abstractmethod
    def _cut(self, signal: Signal, rate_hz: float, dsp: Arithmetic[Signal]) -> Signal:
        """Resample, filter, normalise and cut.

        Written once for a record in memory and for batches on a device: it uses nothing but
        operators that arrays and tensors share and the functions of ``dsp``.

        Args:
            signal: ``(…, leads, samples)`` float64 millivolts, array or tensor; finite, but for
                lost samples where ``spec.lost_samples`` is ``fill``.
            rate_hz: Its samples per second.
            dsp: `ecgstore.signal` for arrays, `ecgstore.models.tensor_signal` for tensors.

        Returns:
            ``(…, windows, leads, samples)`` of the same kind.
        """

    def accept(
        self,
        lost: Mapping[str, bool],
        n_samples: int,
        *,
        rate_hz: float,
        flat: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Return the leads that would be taken of a record, in the model's order.

        Args:
            lost: Whether a lead has lost samples, for each that has any valid one.
            n_samples: Samples of the record.
            rate_hz: Its samples per second.
            flat: Leads that are constant throughout.

        Raises:
            UnfitRecordError: The record is too short, has lost samples, is sampled too slowly,
                lacks leads it must have, or has no signal in any.
        """
        kept = tuple(lead for lead in self.spec.leads if lead in lost)
        lacking = [lead for lead in self.spec.leads if lead not in lost]
        whole = self.spec.missing_leads == "refuse" or self.readout == "lead"
        if not kept or (lacking and whole):
            self._refuse("missing leads", f"lacks the leads {', '.join(lacking)}")
        bad = [lead for lead in kept if lost[lead]]
        if bad and self.spec.lost_samples == "refuse":
            self._refuse("NaN", f"has NaN or infinite samples in {', '.join(bad)}")
        if rate_hz < self.variant.least_rate_hz:
            least = self.variant.least_rate_hz
            self._refuse("rate too low", f"has {rate_hz:g} Hz, expected at least {least:g} Hz")
        if not self._starts(n_samples, rate_hz):
            needed = self.least_seconds()
            what = f"has {n_samples / rate_hz:g} s of signal, expected at least {needed:g} s"
            self._refuse("too short", what)
        if all(lead in flat for lead in kept):
            self._refuse("flat", "is constant in every lead")
        return kept

    def least_seconds(self) -> float:
        """Return how long a record must be."""
        return self.window_samples / self.rate_hz

    def prepare(
        self, signal: ArrayLike, *, rate_hz: float, leads: Sequence[str]
    ) -> NDArray[np.float32]:
        """Turn a record into the windows the model was trained on.

        The steps are those of ``variant.preparation``. Nothing is repaired in silence: a lead that
        is NaN throughout counts as one the record lacks, an infinite sample refuses the record,
        and so does any other NaN unless the preparation says what to put. What becomes of
        lacking leads is told by ``spec.missing_leads``.

        Args:
            signal: ``(leads, samples)`` in millivolts, leads in any order.
            rate_hz: Samples per second.
            leads: Name of each row, in any usual spelling.

        Returns:
            ``(windows, leads, samples)`` float32; `window_leads` names the middle axis.

        Raises:
            UnfitRecordError: See `accept`.
            UnknownNameError: A name is not one of the twelve standard leads.
            UsageError: Shape, names or rate make no sense.
        """
        rows = rows_by_lead(signal, leads)
        if not (np.isfinite(rate_hz) and rate_hz > 0):
            msg = f"A rate of {rate_hz!r} Hz makes no sense."
            raise UsageError(msg)
        there = {lead: row for lead, row in rows.items() if has_samples(row)}
        kept = self.accept(
            {lead: not np.isfinite(row).all() for lead, row in there.items()},
            np.shape(signal)[1],
            rate_hz=rate_hz,
            flat=[lead for lead, row in there.items() if is_flat(row)],
        )
        array = np.stack([rows[lead] for lead in kept])
        if np.isinf(array).any():
            self._refuse("NaN", "has infinite samples")
        windows = np.ascontiguousarray(self._cut(array, rate_hz, on_host), dtype=np.float32)
        if self.spec.missing_leads != "zero" or len(kept) == len(self.spec.leads):
            return windows
        filled = np.zeros((len(windows), len(self.spec.leads), windows.shape[2]), np.float32)
        filled[:, self._places(kept)] = windows
        return filled

    def window_starts(self, n_samples: int, *, rate_hz: float) -> tuple[float, ...]:
        """Return the second at which each window of a record starts; ``()`` if it has none."""
        return self._starts(n_samples, rate_hz)

    def window_leads(
        self, leads: Sequence[str], *, signal: ArrayLike | None = None
    ) -> tuple[str, ...]:
        """Return the leads of `prepare`'s rows, in order.

        Args:
            leads: The leads of the record.
            signal: The record's samples, if some leads may be NaN throughout.
        """
        blank = np.zeros((len(leads), 1)) if signal is None else signal
        rows = rows_by_lead(blank, leads)
        kept = tuple(x for x in self.spec.leads if x in rows and has_samples(rows[x]))
        return self.spec.leads if self.spec.missing_leads == "zero" else kept

    @torch.inference_mode()
    def prepare_batch(
        self,
        counts: Tensor,
        gain: Tensor,
        baseline: Tensor,
        *,
        rate_hz: float,
        leads: Sequence[str],
    ) -> Tensor:
        """Turn records of equal length and leads into windows, where the tensors are.

        On a CPU this is what `prepare` does, elsewhere the same within 1e-5. The records must have
        passed `accept`.

        Args:
            counts: ``(records, leads, samples)`` int16 as stored.
            gain: ``(records, leads)`` float64 counts per millivolt.
            baseline: ``(records, leads)`` the count that stands for 0 mV.
            rate_hz: Samples per second.
            leads: Standard names of the middle axis; those the model does not know are left out.

        Returns:
            ``(records, windows, leads, samples)`` float32.
        """
        kept = [lead for lead in self.spec.leads if lead in leads]
        if tuple(leads) != tuple(kept):
            rows = torch.tensor([list(leads).index(lead) for lead in kept], device=counts.device)
            counts, gain, baseline = (x.index_select(1, rows) for x in (counts, gain, baseline))
        signal = (counts - baseline[..., None].double()) / gain[..., None].double()
        if self.spec.lost_samples == "fill":
            signal = signal.masked_fill(counts == INVALID, torch.nan)
        windows = self._cut_batch(signal, rate_hz).float()
        if self.spec.missing_leads != "zero" or len(kept) == len(self.spec.leads):
            return windows
        shape = (*windows.shape[:2], len(self.spec.leads), windows.shape[3])
        filled = windows.new_zeros(shape)
        filled[:, :, self._places(kept)] = windows
        return filled

    def _cut_batch(self, signal: Tensor, rate_hz: float) -> Tensor:
        """Prepare where the signal is; SciPy is up to ten times faster on a CPU than tensors."""
        if signal.device.type == "cpu":
            return torch.from_numpy(self._cut(signal.numpy(), rate_hz, on_host))
        return self._cut(signal, rate_hz, on_device)

    def _places(self, leads: Sequence[str]) -> list[int]:
        return [self.spec.leads.index(lead) for lead in leads]

    def _refuse(self, reason: str, what: str) -> NoReturn:
        msg = f"The record {what}; {self.spec.name!r} cannot take it."
        raise UnfitRecordError(msg, model=self.spec.name, reason=reason)
