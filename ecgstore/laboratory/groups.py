"""Groups of records: which records have each value of an SQL expression that a user wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import QueryError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog

__all__ = ["NOT_KNOWN", "groups_of", "shut"]

NOT_KNOWN = "not known"
"""The group of records for which the expression is NULL."""

_MOST = 20


def shut(catalog: Catalog) -> None:
    """Let a catalog open its own shards from now on and no other file, whatever SQL it is given."""
    folders = {str(Path(one).parent) for files, _ in catalog.relations.values() for one in files}
    listed = ", ".join("'" + folder.replace("'", "''") + "'" for folder in sorted(folders))
    catalog.connection.execute(f"set allowed_directories = [{listed}]")
    catalog.connection.execute("set enable_external_access = false")


def groups_of(
    catalog: Catalog, expression: str, record_ids: NDArray[np.object_]
) -> dict[str, NDArray[np.bool_]]:
    """Return which records have each value of an expression, in the order of the values.

    Raises:
        UsageError: It is no SQL expression over ``records``, or has more than 20 values.
    """
    query = f"""
        with told as (
            select record_id as told_of, (
                {expression}
            ) as value
            from (select * exclude (patient_id) from records) as records
        )
        select told_of, value::varchar as name
        from told
        where told_of in (select unnest($ids))
        order by value nulls last, told_of
    """
    try:
        found = catalog.table(query, {"ids": list(record_ids)})
    except QueryError as error:
        reason = error.message.removesuffix(".")
        msg = f"Cannot group by {expression!r}: {reason}."
        hint = 'Write an SQL expression over the columns of records, such as "age >= 65".'
        if "patient_id" in expression:
            hint = "Patients' ids make no groups."
        raise UsageError(msg, hint=hint) from error
    ids = found["told_of"].to_numpy()
    if len(ids) != len(set(ids)):
        msg = f"Cannot group by {expression!r}: it gives a record several values."
        raise UsageError(msg, hint="Write an expression that has one value a record.")
    names = [NOT_KNOWN if name is None else name for name in found["name"].to_pylist()]
    known = list(dict.fromkeys(names))
    if len(known) > _MOST:
        msg = f"{expression!r} has {len(known)} values; at most {_MOST} groups are told."
        raise UsageError(
            msg, hint='Bin it, such as --by "age >= 65" or --by "floor(age / 10) * 10".'
        )
    value_of = dict(zip(ids, names, strict=True))
    mine = np.array([value_of.get(record_id, NOT_KNOWN) for record_id in record_ids], dtype=object)
    known += [NOT_KNOWN] if NOT_KNOWN in mine and NOT_KNOWN not in known else []
    return {name: mine == name for name in known}
