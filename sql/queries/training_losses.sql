-- How the loss of a training and its terms fell: the mean of each over so many steps.
-- set run = : the training, or the beginning of its id; the newest when not set
-- set every = 1: steps in a row
with chosen as (
    select run_id
    from trainings
    where starts_with(run_id, coalesce(getvariable('run'), ''))
    order by trainings.at desc
    limit 1
)
select
    run_id,
    max(step) as step,
    name,
    avg(value) as value,
    max(learning_rate) as learning_rate
from losses
semi join chosen using (run_id)
group by
    run_id,
    name,
    (step - 1) // coalesce(getvariable('every')::integer, 1)
order by
    step,
    name;
