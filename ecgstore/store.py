"""The facade: one object for a warehouse and everything that can be done with it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from ecgstore import settings
from ecgstore.catalog import Catalog, init_script
from ecgstore.errors import UnknownNameError, UsageError, WarehouseError
from ecgstore.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb
    import pyarrow as pa

    from ecgstore.embed import EmbedResult
    from ecgstore.evaluate import EvaluateResult
    from ecgstore.fuse import FuseResult
    from ecgstore.ingest import IngestResult
    from ecgstore.labels import LabelResult
    from ecgstore.progress import Progress
    from ecgstore.project import Projection
    from ecgstore.report import ReportResult
    from ecgstore.split import SplitResult
    from ecgstore.train import TrainResult

__all__ = ["Store", "connect"]


class Store:
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

    def __init__(self, root: str | Path, *, at: str | datetime | None = None) -> None:
        self.root = Path(root)
        self._at = at
        self._catalog: Catalog | None = None
        self._versions: dict[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the DuckDB connection; relations made by `sql` end with it."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    @property
    def warehouse(self) -> Warehouse:
        """The tables, at their newest versions or as of ``at``.

        Raises:
            WarehouseError: There is no warehouse in this folder.
        """
        return Warehouse(self.root, at=self._moment())

    def init(self) -> Warehouse:
        """Make an empty warehouse here; an existing one is left as it is."""
        if self._at is not None:
            msg = "A warehouse opened at an earlier time cannot be written."
            raise UsageError(msg, hint="Open it without --at.")
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
        on_error: Literal["skip", "stop"] = "skip",
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> IngestResult:
        """Read ECG files into the tables, making the warehouse; see `ecgstore.ingest.ingest`."""
        from ecgstore.ingest import ingest

        return ingest(
            self.warehouse if dry_run and self.root.exists() else self.init(),
            [Path(source) for source in sources],
            dataset=dataset,
            reader=reader,
            rate=rate,
            jobs=jobs,
            limit=limit,
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
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> LabelResult:
        """Attach a cohort's own labels, and patient ids; see `ecgstore.labels.label`."""
        from ecgstore.labels import label as attach

        return attach(
            self.warehouse,
            Path(file),
            task=task,
            id=id,
            label=label,
            patient=patient,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

    # ------------------------------------------------------------------ vectors

    def embed(
        self,
        model: str,
        *,
        weights: str | Path | None = None,
        where: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        keep_windows: bool = False,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> EmbedResult:
        """Embed the records that lack this model's vector.

        The encoder is loaded as by `ecgstore.load_encoder`, the rest is `ecgstore.embed.embed`.
        """
        from ecgstore.embed import embed
        from ecgstore.models import load_encoder

        encoder = load_encoder(
            model, weights=weights, device=settings.device_name(device), precision=precision
        )
        return embed(
            self.warehouse,
            encoder,
            where=where,
            batch_size=batch_size,
            keep_windows=keep_windows,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

    def fuse(
        self,
        models: Sequence[str],
        *,
        name: str,
        scale: Literal["minmax", "zscore", "none"] = "minmax",
        fit: Literal["train", "all"] = "train",
        missing: Literal["drop", "error"] = "drop",
        dry_run: bool = False,
    ) -> FuseResult:
        """Name a set that joins the vectors of several models; see `ecgstore.fuse.fuse`."""
        from ecgstore.fuse import fuse

        return fuse(
            self.warehouse,
            models,
            name=name,
            scale=scale,
            fit=fit,
            missing=missing,
            dry_run=dry_run,
        )

    # ----------------------------------------------------------------- learning

    def split(
        self,
        name: str,
        *,
        task: str,
        repeats: int = 10,
        test_size: float = 0.2,
        seed: int = 0,
        group: Literal["patient_id", "none"] = "patient_id",
        dry_run: bool = False,
    ) -> SplitResult:
        """Draw stratified reshuffles of the labelled records; see `ecgstore.split.split`."""
        from ecgstore.split import split

        return split(
            self.warehouse,
            name,
            task=task,
            repeats=repeats,
            test_size=test_size,
            seed=seed,
            group=group,
            dry_run=dry_run,
        )

    def train(
        self,
        features: str | FuseResult,
        split: str | SplitResult,
        *,
        classifier: str = "xgboost",
        params: Mapping[str, str] | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> TrainResult:
        """Fit and keep a classifier for each reshuffle; see `ecgstore.train.train`."""
        from ecgstore.train import train

        return train(
            self.warehouse,
            _name(features),
            _name(split),
            classifier=classifier,
            params=params,
            dry_run=dry_run,
            progress=progress,
        )

    def evaluate(
        self,
        features: Sequence[str | FuseResult],
        split: str | SplitResult,
        *,
        classifier: str = "xgboost",
        baseline: str | None = None,
        params: Mapping[str, str] | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> EvaluateResult:
        """Score feature sets over the reshuffles of a split; see `ecgstore.evaluate.evaluate`."""
        from ecgstore.evaluate import evaluate

        return evaluate(
            self.warehouse,
            [_name(one) for one in features],
            _name(split),
            classifier=classifier,
            baseline=baseline,
            params=params,
            dry_run=dry_run,
            progress=progress,
        )

    # -------------------------------------------------------------- looking at it

    def project(
        self,
        features: str | FuseResult,
        *,
        split: str | SplitResult | None = None,
        method: Literal["tsne", "pca", "umap"] = "tsne",
        n: int = 500,
        seed: int = 0,
    ) -> Projection:
        """Lay a balanced sample of training records out in two dimensions."""
        from ecgstore.project import project

        return project(
            self.warehouse,
            _name(features),
            split=None if split is None else _name(split),
            method=method,
            n=n,
            seed=seed,
        )

    def report(
        self,
        out: str | Path = "report.html",
        *,
        split: str | SplitResult | None = None,
        title: str | None = None,
        progress: Progress | None = None,
    ) -> ReportResult:
        """Write one self-contained HTML page about the cohort and every score."""
        from ecgstore.report import report

        return report(
            self.warehouse,
            Path(out),
            split=None if split is None else _name(split),
            title=title,
            progress=progress,
        )

    def sql(
        self, query: str, parameters: Mapping[str, object] | Sequence[object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Run one SQL statement over the tables, which are views; see `Catalog.sql`."""
        return self._connected().sql(query, parameters)

    def table(
        self, query: str, parameters: Mapping[str, object] | Sequence[object] | None = None
    ) -> pa.Table:
        """Run one SQL statement and fetch its result as an Arrow table; see `Catalog.table`."""
        return self._connected().table(query, parameters)

    def query(self, name: str, **parameters: str) -> duckdb.DuckDBPyRelation:
        """Run a named query of `ecgstore.queries`; see `Catalog.query`."""
        return self._connected().query(name, parameters)

    def init_script(self) -> str:
        """Return SQL that gives any DuckDB client the same macros, tables and views."""
        return init_script(self.warehouse.relations())

    # ------------------------------------------------------------------ private

    def _connected(self) -> Catalog:
        warehouse = self.warehouse
        versions = warehouse.versions()
        if self._catalog is None or versions != self._versions:
            self.close()
            self._catalog = Catalog(warehouse.relations(), threads=settings.threads())
            self._versions = versions
        return self._catalog

    def _moment(self) -> datetime | dict[str, int] | None:
        if self._at is None or isinstance(self._at, datetime):
            return self._at
        try:
            moment = datetime.fromisoformat(self._at)
        except ValueError:
            return self._versions_of_run(self._at)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _versions_of_run(self, run_id: str) -> dict[str, int]:
        with Catalog(Warehouse(self.root).relations()) as catalog:
            rows = catalog.table("select distinct run_id, versions from scores").to_pylist()
        stored = {row["run_id"]: row["versions"] for row in rows}
        if run_id not in stored:
            raise UnknownNameError(run_id, kind="run or time", known=stored)
        versions: dict[str, int] = json.loads(stored[run_id])
        return versions

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def _repr_html_(self) -> str:
        try:
            count = self.table("select count(*) as n from records")["n"][0]
        except WarehouseError:
            return f"<b>{escape(self.root.name)}</b>: no warehouse yet"
        return f"<b>{escape(self.root.name)}</b>: {count} records"


def connect(path: str | Path | None = None, *, at: str | datetime | None = None) -> Store:
    """Return the store of a warehouse folder.

    Args:
        path: The folder; default ``ECGSTORE_WAREHOUSE``, else ``warehouse``.
        at: Read it as it was at a time or for a run; see `Store`.
    """
    return Store(settings.warehouse_home(path), at=at)


def _name(thing: object) -> str:
    """Return a name given as such or through the result that made it."""
    return thing if isinstance(thing, str) else str(getattr(thing, "name"))  # noqa: B009
