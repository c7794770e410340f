-- How many records have a vector, one row a model, version and pooling.
create or replace view coverage as
select
    model,
    version,
    pooling,
    max(dim) as dim,
    count(*) as n_embedded,
    (select count(*) from records) as n_records,
    count(*) / (select count(*) from records) as share
from embeddings
semi join records using (record_id)
group by all;
