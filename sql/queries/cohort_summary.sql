-- What is in each dataset: records, patients, age, sex, rate, length and dates.
select
    dataset,
    count(*) as n_records,
    count(distinct patient_id) as n_patients,
    avg(age) as age_mean,
    stddev_samp(age) as age_std,
    avg((sex = 'female')::integer) as share_female,
    median(rate_hz) as rate_hz,
    median(n_samples / rate_hz) as duration_s,
    min(recorded_at) as first_recorded_at,
    max(recorded_at) as last_recorded_at
from records
group by all
order by dataset;
