-- How many records of each dataset carry a quality flag.
with flagged as (
    select
        dataset,
        record_id,
        unnest(quality) as flag
    from records
)
select
    dataset,
    flag,
    count(distinct record_id) as n_records
from flagged
group by
    dataset,
    flag
order by
    dataset,
    n_records desc,
    flag;
