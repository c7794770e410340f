-- Which tasks there are, with the number of labelled and positive records.
-- set min_positive = 0: leave out tasks with fewer positive records
select
    task,
    n,
    n_positive,
    prevalence
from tasks
where n_positive >= coalesce(getvariable('min_positive')::bigint, 0)
order by
    n_positive desc,
    task;
