-- How well each feature set does: mean and standard deviation over the reshuffles, best first.
-- set task = : only this task; all when not set
-- set split_id = : only this split; all when not set
select
    task,
    split_id,
    features,
    classifier,
    n_repeats,
    auroc_mean,
    auroc_std,
    aucpr_mean,
    aucpr_std,
    run_id,
    scored_at
from runs
where task = coalesce(nullif(getvariable('task'), ''), task)
    and split_id = coalesce(nullif(getvariable('split_id'), ''), split_id)
order by
    task,
    split_id,
    auroc_mean desc,
    run_id;
