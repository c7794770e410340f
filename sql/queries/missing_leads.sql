-- Which leads are missing, in how many records of each dataset.
with expected as (
    select unnest(
        ['I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6']
    ) as lead
)
select
    dataset,
    lead,
    count(*) as n_records,
    count(*) filter (where not list_contains(leads, lead)) as n_missing,
    avg((not list_contains(leads, lead))::integer) as share_missing
from records
cross join expected
group by
    dataset,
    lead
order by
    dataset,
    lead_index(lead);
