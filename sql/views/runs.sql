-- One row a run: mean and sample standard deviation of AUROC and AUCPR over its reshuffles.
create or replace view runs as
select
    run_id,
    max(scores.at) as scored_at,
    task,
    split_id,
    features,
    classifier,
    any_value(params) as params,
    count(distinct repeat) as n_repeats,
    avg(value) filter (where metric = 'AUROC') as auroc_mean,
    stddev_samp(value) filter (where metric = 'AUROC') as auroc_std,
    avg(value) filter (where metric = 'AUCPR') as aucpr_mean,
    stddev_samp(value) filter (where metric = 'AUCPR') as aucpr_std,
    any_value(versions) as versions,
    any_value(code) as code
from scores
group by
    run_id,
    task,
    split_id,
    features,
    classifier;
