-- How many records each model has embedded, by version and pooling, and what made the vectors.
select
    model,
    version,
    pooling,
    coverage.dim,
    n_embedded,
    n_records,
    share,
    precision,
    source
from coverage
left join models using (model, version, pooling)
order by
    model,
    version,
    pooling;
