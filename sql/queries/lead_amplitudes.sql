-- How far each lead swings within a record (highest less lowest sample, in mV), and lost samples.
-- set dataset = : only this dataset; all when not set
with samples as (
    unpivot (
        select
            record_id,
            gain,
            columns(['i', 'ii', 'iii', 'avr', 'avl', 'avf', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6'])
        from waveforms
        join records using (record_id)
        where dataset = coalesce(nullif(getvariable('dataset'), ''), dataset)
    )
    on i, ii, iii, avr, avl, avf, v1, v2, v3, v4, v5, v6
    into
        name lead
        value x
),
swings as (
    select
        lead,
        (list_max(valid)::integer - list_min(valid)::integer) / gain[lead_index(lead)] as swing_mv,
        len(x) - len(valid) as n_lost
    from (
        select
            lead,
            gain,
            x,
            list_filter(x, lambda s: s <> -32768) as valid
        from samples
    )
)
select
    lead,
    count(*) as n_records,
    quantile_cont(swing_mv, 0.01) as p01_mv,
    quantile_cont(swing_mv, 0.5) as median_mv,
    quantile_cont(swing_mv, 0.99) as p99_mv,
    count(*) filter (where swing_mv = 0) as n_flat,
    sum(n_lost)::bigint as n_lost_samples
from swings
group by lead
order by lead_index(lead);
