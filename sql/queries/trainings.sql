-- What was trained here: on how much, for how long, and how far the loss came; newest first.
-- set kind = : only pretrain, finetune or distil; all when not set
with ends as (
    select
        run_id,
        max(step) as done,
        arg_min(value, step) as first_loss,
        arg_max(value, step) as last_loss
    from losses
    where name = 'loss'
    group by run_id
)
select
    run_id,
    kind,
    method,
    size,
    array_to_string(datasets, ', ') as datasets,
    records,
    coalesce(done, 0) as done,
    steps,
    first_loss,
    last_loss,
    state,
    seconds,
    trainings.at,
    weights_sha256
from trainings
left join ends using (run_id)
where kind = coalesce(nullif(getvariable('kind'), ''), kind)
order by
    trainings.at desc,
    run_id;
