"""The part of the facade that makes vectors: what it costs, embedding, and joining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ecgstore.errors import UsageError
from ecgstore.opened import Opened
from ecgstore.settings import device_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ecgstore.codes import CodesResult
    from ecgstore.embed import EmbedResult
    from ecgstore.estimate import Estimate
    from ecgstore.fuse import FuseResult
    from ecgstore.lead_repair import RepairResult
    from ecgstore.progress import Progress
    from ecgstore.warehouse import Warehouse

__all__ = ["EmbeddingStore"]


class EmbeddingStore(Opened):
    """A warehouse whose records are embedded."""

    def embed(
        self,
        model: str,
        *,
        weights: str | Path | None = None,
        readout: str | None = None,
        settings: Mapping[str, object] | None = None,
        where: str | None = None,
        shard: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        keep_windows: bool = False,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> EmbedResult:
        """Embed the records that lack this model's vector; see `embed_all`."""
        return self.embed_all(
            [model],
            weights=[weights],
            readout=readout,
            settings=[settings or {}],
            where=where,
            shard=shard,
            device=device,
            batch_size=batch_size,
            precision=precision,
            keep_windows=keep_windows,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )[0]

    def embed_all(
        self,
        models: Sequence[str],
        *,
        weights: Sequence[str | Path | None] | None = None,
        readout: str | None = None,
        settings: Sequence[Mapping[str, object]] | None = None,
        where: str | None = None,
        shard: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        keep_windows: bool = False,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> list[EmbedResult]:
        """Embed the records that lack the vector of a model, with several models in one pass.

        Encoders are loaded by `ecgstore.models.load_encoders`; the rest is
        `ecgstore.embed.embed_all`.

        Args:
            models: Registry names, with ``:variant`` or ``:readout`` where not the default.
            weights: A file, or None, for each model.
            readout: Read-out of all models.
            settings: What a file does not tell, for each model.
            where: SQL predicate over ``records``.
            shard: ``i/n``: the i-th of n parts of the records only.
            device: ``auto``, ``cpu``, ``cuda:N``, or several as ``cuda:0,cuda:1``.
            batch_size: Windows per forward pass.
            precision: ``fp32``, ``bf16`` or ``auto``.
            keep_windows: Also keep the vector of each window.
            overwrite: Embed again what is there.
            dry_run: Count and write nothing.
            progress: Told of every record.
        """
        from ecgstore.embed import embed_all
        from ecgstore.models import load_encoders

        warehouse = self._now()
        encoders = load_encoders(
            models,
            weights=weights,
            readout=readout,
            settings=settings,
            device=device_name(device),
            precision=precision,
        )
        return embed_all(
            warehouse,
            encoders,
            where=where,
            shard=shard,
            batch_size=batch_size,
            keep_windows=keep_windows,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

    def codes(
        self,
        model: str,
        *,
        weights: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        where: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "fp32",
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CodesResult:
        """Name the rhythm codes of the records that lack them; see `ecgstore.codes.fill_codes`.

        Less than single precision names other codes where two are about equally near.
        """
        from ecgstore.codes import fill_codes
        from ecgstore.models import load_encoder

        warehouse = self._now()
        encoder = load_encoder(
            model,
            weights=weights,
            settings=settings,
            device=device_name(device),
            precision=precision,
        )
        return fill_codes(
            warehouse,
            encoder,
            where=where,
            batch_size=batch_size,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

    def repair(
        self,
        record_id: str,
        *,
        lead: str,
        model: str = "anyecg",
        weights: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        device: str | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> RepairResult:
        """Make a lead of a record from the others, and draw it; see `ecgstore.lead_repair.repair`.

        It runs in single precision. With ``out`` the record is drawn into that file.
        """
        from ecgstore.lead_repair import repair
        from ecgstore.models.lead_generation import LeadGenerator

        warehouse = self._now()
        generator = LeadGenerator.load(
            model, weights=weights, settings=settings, device=device_name(device)
        )
        result = repair(
            warehouse,
            generator,
            record_id,
            lead,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )
        if out is not None and not dry_run:
            result.draw(self.read(record_id), out)
        return result

    def estimate(
        self,
        models: Sequence[str],
        *,
        weights: Sequence[str | Path | None] | None = None,
        readout: str | None = None,
        settings: Sequence[Mapping[str, object]] | None = None,
        where: str | None = None,
        shard: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
    ) -> list[Estimate]:
        """Tell what `embed_all` would cost, by a probe of two seconds a model."""
        from ecgstore.embed import plan, windows_at_once
        from ecgstore.estimate import estimate
        from ecgstore.models import load_encoders

        devices = load_encoders(
            models,
            weights=weights,
            readout=readout,
            settings=settings,
            device=device_name(device),
            precision=precision,
        )
        return estimate(
            self.warehouse,
            [plan(self.warehouse, one, where=where, shard=shard) for one in devices[0]],
            devices=len(devices),
            batch_size=batch_size or windows_at_once(devices),
        )

    def fuse(
        self,
        models: Sequence[str],
        *,
        name: str,
        method: str = "concat",
        settings: Mapping[str, object] | None = None,
        scale: Literal["minmax", "zscore", "none"] | None = None,
        fit: Literal["train", "all"] = "train",
        missing: Literal["drop", "error", "keep"] = "drop",
        dry_run: bool = False,
    ) -> FuseResult:
        """Name a set that joins the vectors of several models; see `ecgstore.fuse.fuse`."""
        from ecgstore.fuse import fuse

        return fuse(
            self._now(),
            models,
            name=name,
            method=method,
            settings=settings,
            scale=scale,
            fit=fit,
            missing=missing,
            dry_run=dry_run,
        )

    # ------------------------------------------------------------------ private

    def _now(self) -> Warehouse:
        """Return the tables at their newest versions, to be written."""
        self._refuse_past()
        return self.warehouse

    def _refuse_past(self) -> None:
        if self._at is not None:
            msg = "A warehouse opened as it was at a time or for a run can only be read."
            raise UsageError(msg, hint="Write to it without --at.")
