-- Which records are most like a given one, by the cosine of their vectors (exact search).
-- set record_id = : the record to start from; the first one that has a vector when not set
-- set model = : the model whose vectors are compared; the first one when not set
-- set k = 10: number of neighbours
with vectors as (
    select
        record_id,
        model,
        version,
        pooling,
        embedding
    from embeddings
    semi join records using (record_id)
    where model = coalesce(nullif(getvariable('model'), ''), (select min(model) from embeddings))
),
start as (
    select
        version,
        pooling,
        record_id as start_id,
        embedding as start_embedding
    from vectors
    where record_id = coalesce(
        nullif(getvariable('record_id'), ''),
        (select min(record_id) from vectors)
    )
),
neighbours as (
    select
        record_id,
        model,
        version,
        pooling,
        cosine(embedding, start_embedding) as similarity
    from vectors
    join start using (version, pooling)
    where record_id <> start_id
    qualify row_number() over (
        partition by version, pooling
        order by similarity desc, record_id
    ) <= coalesce(getvariable('k')::integer, 10)
)
select
    record_id,
    similarity,
    model,
    version,
    pooling,
    dataset,
    age,
    sex
from neighbours
join records using (record_id)
order by
    version,
    pooling,
    similarity desc,
    record_id;
