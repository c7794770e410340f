"""The windows of long records, as a classifier over them is given: ragged, padded with NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ecgstore.errors import NotEnoughDataError, SchemaError, UsageError
from ecgstore.features import CONCATENATION, is_member, member_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ecgstore.catalog import Catalog
    from ecgstore.features import FeatureSet

__all__ = ["window_sequences"]


def window_sequences(
    catalog: Catalog, features: FeatureSet, record_ids: Sequence[str]
) -> tuple[NDArray[np.object_], list[NDArray[np.float32]]]:
    """Read the vectors of windows that were kept, as `ecgstore.features.matrix` reads vectors.

    Args:
        catalog: The warehouse.
        features: The vectors of one model, not scaled.
        record_ids: Records to take.

    Returns:
        The ids of the records that have windows, sorted, and one ``(records, windows, dim)``
        float32 array in that order, NaN behind the last window of a record. It is as wide as the
        longest record.

    Raises:
        UsageError: The set joins or scales several vectors.
        NotEnoughDataError: No record has windows.
        SchemaError: Their vectors differ in length or hold values that are not finite.
    """
    if len(features.members) != 1 or features.scale != "none" or features.method != CONCATENATION:
        msg = f"{features.name!r} joins or scales vectors; windows are read of one model as it is."
        raise UsageError(msg, hint="Give a model, such as anyecg:long.")
    (member,) = features.members
    rows = catalog.table(
        'select record_id, "window", embedding from windows\n'
        f"where {is_member(0)} and record_id in (select unnest($ids))\n"
        'order by record_id, "window"',
        {**member_parameters([member]), "ids": list(record_ids)},
    )
    if not rows.num_rows:
        msg = f"No window of {features.name!r} is kept for {len(record_ids)} records."
        hint = f"Keep them: embed --model {member.model}:{member.pooling} --keep-windows"
        raise NotEnoughDataError(msg, task=features.name, hint=hint)
    vectors = rows["embedding"].combine_chunks()
    lengths = np.unique(vectors.value_lengths().to_numpy())
    values = vectors.flatten().to_numpy()
    if len(lengths) != 1 or not np.isfinite(values).all():
        msg = f"The windows of {member} differ in length or hold values that are not finite."
        raise SchemaError(msg, table="windows", hint="Embed with overwrite.")
    names = rows["record_id"].to_numpy()
    ids, first, counts = np.unique(names.astype(str), return_index=True, return_counts=True)
    x = np.full((len(ids), counts.max(), lengths[0]), np.nan, np.float32)
    record = np.repeat(np.arange(len(ids)), counts)
    x[record, np.arange(len(names)) - first[record]] = values.reshape(len(names), -1)
    return ids.astype(object), [x]
