"""The facade: one object for a warehouse and everything that can be done with it.

What only reads is in `Opened`, what makes vectors in `EmbeddingStore`; the rest of what writes is
here, and refuses a warehouse opened as it was.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ecgstore import settings
from ecgstore.evaluation import EvaluationStore
from ecgstore.opened import name_of
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from ecgstore.assess import QualityResult
    from ecgstore.fuse import FuseResult
    from ecgstore.ingest import IngestResult
    from ecgstore.labels import LabelResult
    from ecgstore.progress import Progress
    from ecgstore.scored import EvaluateResult
    from ecgstore.splitting.split import SplitResult
    from ecgstore.tasks import Target
    from ecgstore.train import TrainResult
    from ecgstore.upkeep.compact import CompactResult
    from ecgstore.upkeep.forget import ForgetResult
    from ecgstore.upkeep.gc import GcResult
    from ecgstore.upkeep.verify import VerifyResult

__all__ = ["Store", "connect"]


class Store(EvaluationStore):
    """A warehouse of ECGs, their vectors, labels, splits and scores.

    Made by `connect`. Every writing call is idempotent: run twice, the second does nothing.

    Args:
        root: The warehouse folder. It is made by `init` or by the first `ingest`.
        at: Read the warehouse as it was: an ISO time, a datetime, or the id of a run, which
            opens the table versions the run read. Nothing can be written then.

    Example:
        >>> import ecgstore, tempfile
        >>> with tempfile.TemporaryDirectory() as folder, ecgstore.connect(folder) as store:
        ...     _ = store.init()
        ...     store.sql("select count(*) from records").fetchone()
        (0,)
    """

    def init(self) -> Warehouse:
        """Make an empty warehouse here; an existing one is left as it is."""
        self._refuse_past()
        return Warehouse.create(self.root)

    # ------------------------------------------------------------------ data in

    def ingest(
        self,
        *sources: str | Path,
        dataset: str,
        reader: str = "auto",
        rate: int | None = None,
        jobs: int | None = None,
        limit: int | None = None,
        layout: Mapping[str, str] | None = None,
        manifest: str | Path | None = None,
        keep_ids: bool = False,
        shift_dates: int = 0,
        pool_ages: bool = False,
        on_error: Literal["skip", "stop"] = "skip",
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> IngestResult:
        """Read ECG files into the tables, making the warehouse; see `ecgstore.ingest.ingest`."""
        from ecgstore.ingest import ingest

        with self._to_fill(dry_run=dry_run) as warehouse:
            return ingest(
                warehouse,
                [Path(source) for source in sources],
                dataset=dataset,
                reader=reader,
                rate=rate,
                jobs=jobs,
                limit=limit,
                layout=layout,
                manifest=None if manifest is None else Path(manifest),
                keep_ids=keep_ids,
                shift_dates=shift_dates,
                pool_ages=pool_ages,
                on_error=on_error,
                dry_run=dry_run,
                progress=progress,
            )

    def label(
        self,
        file: str | Path,
        *,
        task: str,
        id: str = "record_id",  # noqa: A002  the column's name is the public option --id
        label: str = "label",
        patient: str | None = None,
        keep_ids: bool = False,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> LabelResult:
        """Attach a cohort's own labels, and patient ids; see `ecgstore.labels.label`."""
        from ecgstore.labels import label as attach

        return attach(
            self._now(),
            Path(file),
            task=task,
            id=id,
            label=label,
            patient=patient,
            keep_ids=keep_ids,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

    def quality(
        self,
        *,
        where: str | None = None,
        worst: int = 3,
        jobs: int | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> QualityResult:
        """Assess signal quality and find duplicates; see `ecgstore.assess.assess_records`."""
        from ecgstore.assess import assess_records

        return assess_records(
            self._now(),
            where=where,
            worst=worst,
            jobs=jobs,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

    # ----------------------------------------------------------------- learning

    def train(
        self,
        features: str | FuseResult,
        split: str | SplitResult,
        *,
        classifier: str = "xgboost",
        task: str | None = None,
        target: Target | None = None,
        params: Mapping[str, str] | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> TrainResult:
        """Fit and keep a classifier for each reshuffle; see `ecgstore.train.train`."""
        from ecgstore.train import train

        return train(
            self._now(),
            name_of(features),
            name_of(split),
            classifier=classifier,
            task=task,
            target=target,
            params=params,
            dry_run=dry_run,
            progress=progress,
        )

    def evaluate(
        self,
        features: Sequence[str | FuseResult],
        split: str | SplitResult | None = None,
        *,
        protocol: str | Sequence[str] = (),
        task: str | Sequence[str] = (),
        target: Target | None = None,
        repeats: int = 10,
        test_size: float = 0.2,
        seed: int = 0,
        only: Sequence[int] = (),
        classifier: str = "xgboost",
        baseline: str | None = None,
        params: Mapping[str, str] | None = None,
        out_of_fold: int | None = None,
        tune: float = 0,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> EvaluateResult:
        """Score feature sets over a split, or over one that a protocol draws for a task.

        ``repeats``, ``test_size`` and ``seed`` are of that drawing; for the rest see
        `ecgstore.evaluate.evaluate`.
        """
        from ecgstore.evaluate import Drawing, evaluate

        return evaluate(
            self._now(),
            [name_of(one) for one in features],
            None if split is None else name_of(split),
            protocols=[protocol] if isinstance(protocol, str) else protocol,
            tasks=[task] if isinstance(task, str) else task,
            target=target,
            drawing=Drawing(repeats, test_size, seed),
            only=only,
            classifier=classifier,
            baseline=baseline,
            params=params,
            out_of_fold=out_of_fold,
            tune=tune,
            dry_run=dry_run,
            progress=progress,
        )

    # ------------------------------------------------------------------- upkeep

    def declare_seen(self, model: str, *, dataset: str, source: str) -> int:
        """Say that a model has seen a dataset in pretraining; see `ecgstore.leakage.declare`."""
        from ecgstore.leakage import declare

        return declare(self._now(), model, dataset, source)

    def verify(
        self,
        tables: Sequence[str] | None = None,
        *,
        fast: bool = False,
        repair: bool = False,
        progress: Progress | None = None,
    ) -> VerifyResult:
        """Check everything the warehouse consists of; see `ecgstore.upkeep.verify.verify`."""
        from ecgstore.upkeep.verify import verify

        return verify(self._now(), tables=tables, fast=fast, repair=repair, progress=progress)

    def forget(
        self,
        patients: Sequence[str],
        *,
        yes: bool = False,
        progress: Progress | None = None,
    ) -> ForgetResult:
        """Erase patients everywhere; without `yes` only tell what would go.

        See `ecgstore.upkeep.forget.forget`.
        """
        from ecgstore.upkeep.forget import forget

        return forget(self._now(), patients, yes=yes, progress=progress)

    def compact(
        self,
        tables: Sequence[str] | None = None,
        *,
        retention_days: float = 30,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CompactResult:
        """Merge small shards and let old versions go; see `ecgstore.upkeep.compact.compact`."""
        from ecgstore.upkeep.compact import compact

        return compact(
            self._now(), tables, retention_days=retention_days, dry_run=dry_run, progress=progress
        )

    def gc(
        self,
        *,
        grace_s: float = 86_400,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> GcResult:
        """Remove files that nothing names; see `ecgstore.upkeep.gc.gc`."""
        from ecgstore.upkeep.gc import gc

        return gc(self._now(), grace_s=grace_s, dry_run=dry_run, progress=progress)

    # ------------------------------------------------------------------ private

    @contextmanager
    def _to_fill(self, *, dry_run: bool) -> Iterator[Warehouse]:
        """Make the warehouse when it is not there; for a dry run, elsewhere and not to stay."""
        self._refuse_past()
        if not dry_run:
            yield self.init()
        elif (self.root / "records").exists():
            yield self._now()
        else:
            with tempfile.TemporaryDirectory(prefix="ecgstore-") as folder:
                yield Warehouse.create(Path(folder))


def connect(path: str | Path | None = None, *, at: str | datetime | None = None) -> Store:
    """Return the store of a warehouse folder.

    Args:
        path: The folder; default ``ECGSTORE_WAREHOUSE``, else ``warehouse``.
        at: Read it as it was at a time or for a run; see `Store`.
    """
    return Store(settings.warehouse_home(path), at=at)
