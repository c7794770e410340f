-- How common a label is in each decade of age and sex.
-- set task = MI: task to count
select
    sex,
    (age // 10)::integer * 10 as age_from,
    count(*) as n,
    count(*) filter (where label > 0) as n_positive,
    avg((label > 0)::double) as prevalence
from labels
join records using (record_id)
where task = coalesce(getvariable('task'), 'MI')
group by all
order by sex, age_from;
