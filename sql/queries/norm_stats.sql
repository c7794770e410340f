-- Least and greatest value of each dimension of a model over the training records of a reshuffle,
-- computed anew from the vectors; the table norm_stats holds what fuse stored.
-- set model = : the model; the first one when not set
-- set version = : its version; the first one when not set
-- set pooling = : its pooling; the first one when not set
-- set split_id = : the split; the first one when not set
-- set repeat = 0: the reshuffle
with member as (
    select
        model,
        version,
        pooling
    from embeddings
    where model = coalesce(nullif(getvariable('model'), ''), model)
        and version = coalesce(nullif(getvariable('version'), ''), version)
        and pooling = coalesce(nullif(getvariable('pooling'), ''), pooling)
    group by all
    order by all
    limit 1
),
training as (
    select
        split_id,
        repeat,
        record_id
    from splits
    semi join records using (record_id)
    where split_id = coalesce(
        nullif(getvariable('split_id'), ''),
        (select min(split_id) from splits)
    )
        and repeat = coalesce(getvariable('repeat')::integer, 0)
        and split = 'train'
),
vectors as (
    select
        split_id,
        repeat,
        model,
        version,
        pooling,
        embedding
    from embeddings
    semi join member using (model, version, pooling)
    join training using (record_id)
),
limits as (
    select
        split_id,
        repeat,
        model,
        version,
        pooling,
        d,
        min(x) as lo,
        max(x) as hi,
        count(*) as n_train
    from (
        select
            split_id,
            repeat,
            model,
            version,
            pooling,
            unnest(embedding) as x,
            generate_subscripts(embedding, 1) as d
        from vectors
    )
    group by all
)
select
    split_id,
    repeat,
    model,
    version,
    pooling,
    list(lo order by d) as mn,
    list(hi order by d) as mx,
    max(n_train) as n_train
from limits
group by
    split_id,
    repeat,
    model,
    version,
    pooling
order by all;
