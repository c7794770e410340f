-- Which patients have several ECGs, and over how many days.
-- set min_records = 2: leave out patients with fewer records
select
    dataset,
    patient_id,
    count(*) as n_records,
    min(recorded_at) as first_recorded_at,
    max(recorded_at) as last_recorded_at,
    date_diff('day', min(recorded_at), max(recorded_at)) as days,
    list(record_id order by recorded_at, record_id) as record_ids
from records
where patient_id is not null
group by
    dataset,
    patient_id
having count(*) >= coalesce(getvariable('min_records')::integer, 2)
order by
    n_records desc,
    dataset,
    patient_id;
