-- How common a label is in each decade of age and each sex.
-- set task = MI: task to count
select
    sex,
    floor(age / 10)::integer * 10 as age_from,
    count(*) as n,
    count(*) filter (where label > 0) as n_positive,
    avg((label > 0)::integer) as prevalence
from labels
join records using (record_id)
where task = coalesce(getvariable('task'), 'MI')
group by all
order by
    sex,
    age_from;
