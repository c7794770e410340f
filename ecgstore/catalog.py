"""SQL over a warehouse: an in-memory DuckDB with macros, a view a table, and named queries.

No database file is kept. Each view lists the shards of one table version, so a catalog sees the
same rows for as long as it is open, whatever is written beside it. Times are UTC, without a zone.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import duckdb
import pyarrow as pa

from ecgstore import settings
from ecgstore.errors import EcgStoreError, QueryError, UnknownNameError, WarehouseError
from ecgstore.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

__all__ = ["Catalog", "Parameter", "Query", "init_script", "queries", "quote"]

_TIME = pa.timestamp("us", tz="UTC")
_TYPES = {
    pa.string(): "varchar",
    pa.binary(): "blob",
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    _TIME: "timestamp",
}
_SETTINGS = (
    "set TimeZone = 'UTC'",
    "set parquet_metadata_cache = true",  # shards never change, so their footers are read once
)
_SHARD = re.compile(r"[0-9a-f]{64}\.parquet")
_PARAMETER = re.compile(r"set (\w+) = (.*?): (.+)")


@dataclass(frozen=True)
class Parameter:
    """A value that a named query takes: its default, as text, and what it means."""

    default: str
    meaning: str


@dataclass(frozen=True)
class Query:
    """A named query: a file of ``sql/queries``.

    Attributes:
        name: File name without its suffix.
        summary: What the query answers.
        parameters: What it takes, by name.
        text: The SQL.
    """

    name: str
    summary: str
    parameters: Mapping[str, Parameter] = field(repr=False)
    text: str = field(repr=False)


class Catalog:
    """An in-memory DuckDB with the macros, tables and views of a warehouse.

    Args:
        relations: Shards and columns of each table, from ``Warehouse.relations()``.
        threads: Threads DuckDB uses; see ``settings.threads``.
        memory_limit: Memory it may use before it writes to disk; see ``settings.memory_limit``.

    Attributes:
        connection: The DuckDB connection, for what is not wrapped here.
        relations: Shards and columns of every table.

    Raises:
        WarehouseError: A shard is missing.

    Example:
        >>> with Catalog({}) as catalog:
        ...     catalog.sql("select cosine([1, 0]::float[], [1, 1]::float[]) as c").fetchone()
        (0.7071...,)
    """

    def __init__(
        self,
        relations: Mapping[str, tuple[list[Path], pa.Schema]],
        *,
        threads: int | None = None,
        memory_limit: str | None = None,
    ) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": settings.threads(threads),
            "autoinstall_known_extensions": False,
            "memory_limit": settings.memory_limit(memory_limit),
            "temp_directory": str(Path(tempfile.gettempdir()) / f"ecgstore-{uuid.uuid4().hex}"),
        }
        nothing: dict[str, tuple[list[Path], pa.Schema]]
        nothing = {name: ([], table.arrow) for name, table in TABLES.items()}
        self.relations = nothing | dict(relations)
        self.connection = duckdb.connect(config=config)
        self._script: list[str] = []
        try:
            self._define()
        except duckdb.Error as error:
            self.close()
            raise _unreadable(relations, error) from error
        except BaseException:
            self.close()
            raise

    @property
    def script(self) -> str:
        """The statements that made this catalog; they make it in any other DuckDB client."""
        return "".join(f"{statement};\n" for statement in self._script)

    def sql(
        self, query: str, parameters: Mapping[str, object] | Sequence[object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Run one SQL statement.

        Args:
            query: One statement; one that returns no rows gives an empty relation.
            parameters: Values for ``$name`` or ``?`` in it.

        Returns:
            A DuckDB relation; rows are computed when it is fetched.

        Raises:
            QueryError: DuckDB refused the statement; the message is its first line.
        """
        with _Refusals():
            self._check_single(query)
            given = parameters if parameters is None else _plain(parameters)
            relation = self.connection.sql(query, params=given)
            if relation is None:  # a statement without a result, such as CREATE
                relation = self.connection.sql("select null as result where false")
            return relation

    def table(
        self, query: str, parameters: Mapping[str, object] | Sequence[object] | None = None
    ) -> pa.Table:
        """Run one SQL statement and fetch its result as an Arrow table.

        Raises:
            QueryError: DuckDB refused the statement, or failed while running it.
        """
        if parameters is None:
            relation = self.sql(query)
            with _Refusals():
                return relation.to_arrow_table()
        # A relation with parameters keeps its rows in a form from which vectors are fetched some
        # 50 times more slowly (DuckDB 1.5.5).
        with _Refusals():
            self._check_single(query)
            return self.connection.execute(query, _plain(parameters)).to_arrow_table()

    def batches(self, query: str, *, rows: int) -> Iterator[pa.RecordBatch]:
        """Run one SQL statement and fetch its result bit by bit, in bounded memory.

        Args:
            query: One statement.
            rows: Rows of a batch, about.

        Raises:
            QueryError: DuckDB refused the statement, or failed while running it.
        """
        relation = self.sql(query)
        with _Refusals():
            reader = relation.to_arrow_reader(rows)
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowException) as error:  # what DuckDB says, through Arrow
                raise QueryError(str(error).splitlines()[0]) from error
            yield batch

    def query(
        self, name: str, parameters: Mapping[str, str] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Run a named query; it is computed at once, so later parameters do not change it.

        Raises:
            UnknownNameError: There is no such query or parameter.
            QueryError: DuckDB refused a value.
        """
        known = queries()
        if name not in known:
            raise UnknownNameError(name, kind="query", known=known)
        query, given = known[name], parameters or {}
        for parameter in given:
            if parameter not in query.parameters:
                raise UnknownNameError(parameter, kind="parameter", known=query.parameters)
        with _Refusals():
            for parameter in query.parameters:
                self.connection.execute(f"reset variable {quote(parameter)}")
            for parameter, value in given.items():
                self.connection.execute(f"set variable {quote(parameter)} = ?", [value])
        rows = self.table(query.text)
        return self.connection.from_arrow(rows)

    def close(self) -> None:
        """Close the connection; relations of it can no longer be fetched."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _define(self) -> None:
        for statement in _SETTINGS:
            self._run(statement)
        for name, (files, schema) in self.relations.items():
            self._run(f"create or replace view {quote(name)} as\n{_select(files, schema)}")
        for path in (_home() / "macros.sql", *sorted((_home() / "views").glob("*.sql"))):
            for parsed in self.connection.extract_statements(path.read_text("utf-8")):
                self._run(parsed.query.strip())

    def _check_single(self, query: str) -> None:
        # before a pivot whose columns are not named DuckDB makes an enum, a statement without text
        found = self.connection.extract_statements(query)
        count = sum(one.type != duckdb.StatementType.CREATE or bool(one.query) for one in found)
        if count != 1:
            msg = f"Expected one SQL statement, found {count}."
            raise QueryError(msg)

    def _run(self, statement: str) -> None:
        self.connection.execute(statement)
        self._script.append(statement)


class _Refusals:
    """Let what DuckDB refuses leave as a `QueryError` of one line."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, duckdb.Error):
            if _is_gone(error):
                raise _gone(Path()) from error
            first, *others = str(error).splitlines() or [type(error).__name__]
            more = others[0].strip() if others else ""
            hint = more if more and not more.startswith("LINE ") else None
            if isinstance(error, duckdb.OutOfMemoryException):
                hint = "Give DuckDB more memory with ECGSTORE_MEMORY, or ask for less at once."
            raise QueryError(first, hint=hint) from error


def queries() -> dict[str, Query]:
    """Return the named queries of ``sql/queries`` by name.

    Example:
        >>> queries()["label_prevalence"].parameters["task"].default
        'MI'
    """
    return {path.stem: _query(path) for path in sorted((_home() / "queries").glob("*.sql"))}


def init_script(relations: Mapping[str, tuple[list[Path], pa.Schema]]) -> str:
    """Return the SQL that gives any DuckDB client the tables, macros and views of a warehouse.

    The script names today's shards: make it anew after the warehouse has changed.

    Raises:
        WarehouseError: A shard is missing or damaged.
    """
    with Catalog(relations) as catalog:
        return catalog.script


def quote(identifier: str) -> str:
    """Quote a name for SQL text; values never go into SQL text but through parameters.

    Example:
        >>> print(quote('stem"mi'))
        "stem""mi"
    """
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _select(files: Sequence[Path], schema: pa.Schema) -> str:
    """Return the SQL that selects the columns of a schema; where a shard has none it is NULL.

    The types are told, so no shard is opened to find them out, and a column that came later is
    found whichever shards have it.
    """
    if not files:
        columns = ",\n    ".join(f"null::{_type(one.type)} as {quote(one.name)}" for one in schema)
        return f"select\n    {columns}\nwhere false"
    columns = ",\n    ".join(map(_column, schema))
    paths = ",\n    ".join(_literal(str(path)) for path in files)
    types = ",\n    ".join(map(_typed, schema))
    return (
        f"select\n    {columns}\nfrom read_parquet([\n    {paths}\n], "
        f"schema = map {{\n    {types}\n}})"
    )


def _column(column: pa.Field) -> str:
    # times become plain UTC: DuckDB cannot hand times with a zone to Python without pytz
    name = quote(column.name)
    return f"{name} at time zone 'UTC' as {name}" if column.type == _TIME else name


def _typed(column: pa.Field) -> str:
    name, zone = _literal(column.name), " with time zone" if column.type == _TIME else ""
    kind = _literal(_type(column.type) + zone)
    return f"{name}: {{name: {name}, type: {kind}, default_value: null}}"


def _type(kind: pa.DataType) -> str:
    """Return the type of a column of a view."""
    if pa.types.is_list(kind):
        return f"{_type(kind.value_type)}[]"
    return _TYPES[kind]


def _plain(
    parameters: Mapping[str, object] | Sequence[object],
) -> dict[str, object] | list[object]:
    return dict(parameters) if isinstance(parameters, Mapping) else list(parameters)


def _unreadable(
    relations: Mapping[str, tuple[list[Path], pa.Schema]], error: duckdb.Error
) -> WarehouseError:
    folder = next((files[0].parent.parent for files, _ in relations.values() if files), Path())
    if _is_gone(error):
        return _gone(folder)
    msg = f"The tables could not be opened: {str(error).splitlines()[0]}"
    return WarehouseError(msg, path=folder)


def _is_gone(error: duckdb.Error) -> bool:
    return isinstance(error, duckdb.IOException) and bool(_SHARD.search(str(error)))


def _gone(folder: Path) -> WarehouseError:
    msg = "A shard went while it was queried: rows were erased or versions cleaned."
    return WarehouseError(msg, path=folder, hint="Ask again.")


def _home() -> Path:
    """Return the folder of SQL files: beside this module when installed, else of the checkout."""
    here = Path(__file__).resolve().parent
    for home in (here / "sql", here.parent / "sql"):
        if (home / "macros.sql").is_file():
            return home
    msg = f"The SQL files are missing beside {str(here)!r}."
    raise EcgStoreError(msg, hint="Install ecgstore again.")


def _query(path: Path) -> Query:
    text = path.read_text("utf-8")
    summary, parameters = [], {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        comment = line.removeprefix("--").strip()
        if found := _PARAMETER.fullmatch(comment):
            name, default, meaning = found.groups()
            parameters[name] = Parameter(default, meaning)
        else:
            summary.append(comment)
    return Query(path.stem, " ".join(summary), MappingProxyType(parameters), text)
