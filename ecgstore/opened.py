"""A warehouse opened to be read, now or as it was: all of the facade that writes nothing to it.

Every method here answers for the moment the warehouse was opened at; what writes is in `Store`.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from ecgstore import settings
from ecgstore.catalog import Catalog, init_script
from ecgstore.errors import WarehouseError
from ecgstore.history import invocations, moment
from ecgstore.warehouse import Warehouse, log_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import duckdb
    import pyarrow as pa

    from ecgstore.export import ExportResult
    from ecgstore.fuse import FuseResult
    from ecgstore.history import Invocation
    from ecgstore.neighbours import Neighbours
    from ecgstore.progress import Progress
    from ecgstore.project import Projection
    from ecgstore.record import Record
    from ecgstore.reproduce import ReproduceResult
    from ecgstore.splitting.split import SplitResult

__all__ = ["Opened", "name_of"]


class Opened:
    """A warehouse that is looked at.

    Args:
        root: The warehouse folder.
        at: An ISO time, a datetime, or the id of a run; None opens what is newest.
    """

    def __init__(self, root: str | Path, *, at: str | datetime | None = None) -> None:
        self.root = Path(root)
        self._at = at
        self._catalog: Catalog | None = None
        self._versions: dict[str, int] | None = None
        self._stamp: tuple[object, ...] | None = None

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
            WarehouseError: There is no warehouse in this folder, or there was none then.
            UnknownNameError: No run has this id.
            UsageError: ``at`` is neither a time nor the id of a run.
        """
        return Warehouse(self.root, at=moment(self.root, self._at))

    def read(self, record_id: str) -> Record:
        """Return one ECG as its source stored it; see `ecgstore.stored.stored_record`."""
        from ecgstore.stored import stored_record

        return stored_record(self.warehouse, record_id)

    def neighbours(
        self, features: str | FuseResult, *, split: str | SplitResult | None = None, repeat: int = 0
    ) -> Neighbours:
        """Hold the vectors of a feature set to be asked for the nearest; see `Neighbours.of`.

        Build it once and ask often.
        """
        from ecgstore.neighbours import Neighbours

        of_split = None if split is None else name_of(split)
        return Neighbours.of(self._connected(), name_of(features), split=of_split, repeat=repeat)

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

    def export(
        self,
        table: str,
        out: str | Path,
        *,
        where: str | None = None,
        form: Literal["parquet", "csv", "wfdb"] | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ExportResult:
        """Write rows of a table as Parquet or CSV, or signals as WFDB; see `ecgstore.export`."""
        from ecgstore.export import export

        return export(
            self.warehouse,
            table,
            Path(out),
            where=where,
            form=form,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=progress,
        )

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
            name_of(features),
            split=None if split is None else name_of(split),
            method=method,
            n=n,
            seed=seed,
        )

    def log(
        self, *, limit: int | None = None, table: str | None = None, maintenance: bool = False
    ) -> list[Invocation]:
        """List what was done to the warehouse, newest first; see `ecgstore.history.invocations`."""
        return invocations(self.warehouse, limit=limit, table=table, maintenance=maintenance)

    def reproduce(self, run: str, *, progress: Progress | None = None) -> ReproduceResult:
        """Run a run again on what it read, and compare; see `ecgstore.reproduce.reproduce`."""
        from ecgstore.reproduce import reproduce

        return reproduce(self.warehouse, run, progress=progress)

    def _connected(self) -> Catalog:
        stamp = log_stamp(self.root)  # before the logs are read: what comes meanwhile changes it
        if self._catalog is not None and stamp is not None and stamp == self._stamp:
            return self._catalog
        warehouse = self.warehouse
        versions = warehouse.versions()
        if self._catalog is None or versions != self._versions:
            self.close()
            self._catalog = Catalog(warehouse.relations(), threads=settings.threads())
            self._versions = versions
        self._stamp = stamp
        return self._catalog

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def _repr_html_(self) -> str:
        try:
            count = self.table("select count(*) as n from records")["n"][0]
        except WarehouseError:
            return f"<b>{escape(self.root.name)}</b>: no warehouse yet"
        return f"<b>{escape(self.root.name)}</b>: {count} records"


def name_of(thing: object) -> str:
    """Return a name given as such or through the result that made it."""
    return thing if isinstance(thing, str) else str(getattr(thing, "name"))  # noqa: B009
