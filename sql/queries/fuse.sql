-- The joined vectors of two models for the records of a reshuffle, each scaled to 0..1 by the
-- statistics of its training records (table norm_stats, which fuse fills).
-- set model_a = : first model; the first one that has statistics when not set
-- set version_a = : its version; the first one when not set
-- set pooling_a = : its pooling; the first one when not set
-- set model_b = : second model; the last one that has statistics when not set
-- set version_b = : its version; the first one when not set
-- set pooling_b = : its pooling; the first one when not set
-- set split_id = : the split; the first one when not set
-- set repeat = 0: the reshuffle
with statistics as (
    select
        model,
        version,
        pooling,
        mn,
        mx,
        split_id
    from norm_stats
    where split_id = coalesce(
        nullif(getvariable('split_id'), ''),
        (select min(split_id) from splits)
    )
        and repeat = coalesce(getvariable('repeat')::integer, 0)
),
stats_a as (
    select
        model,
        version,
        pooling,
        mn,
        mx
    from statistics
    where model = coalesce(
        nullif(getvariable('model_a'), ''),
        (select min(model) from statistics)
    )
        and version = coalesce(nullif(getvariable('version_a'), ''), version)
        and pooling = coalesce(nullif(getvariable('pooling_a'), ''), pooling)
    order by
        version,
        pooling
    limit 1
),
stats_b as (
    select
        model,
        version,
        pooling,
        mn,
        mx
    from statistics
    where model = coalesce(
        nullif(getvariable('model_b'), ''),
        (select max(model) from statistics)
    )
        and version = coalesce(nullif(getvariable('version_b'), ''), version)
        and pooling = coalesce(nullif(getvariable('pooling_b'), ''), pooling)
    order by
        version,
        pooling
    limit 1
),
scaled_a as (
    select
        record_id,
        minmax01(embedding, mn, mx) as features
    from embeddings
    join stats_a using (model, version, pooling)
),
scaled_b as (
    select
        record_id,
        minmax01(embedding, mn, mx) as features
    from embeddings
    join stats_b using (model, version, pooling)
),
reshuffle as (
    select
        record_id,
        split
    from splits
    semi join records using (record_id)
    where split_id = coalesce(
        nullif(getvariable('split_id'), ''),
        (select min(split_id) from splits)
    )
        and repeat = coalesce(getvariable('repeat')::integer, 0)
)
select
    record_id,
    split,
    list_concat(scaled_a.features, scaled_b.features) as features
from reshuffle
join scaled_a using (record_id)
join scaled_b using (record_id)
order by record_id;
