-- One row a task: how many records have a label and how many of them are positive.
create or replace view tasks as
select
    task,
    count(*) as n,
    count(*) filter (where label > 0) as n_positive,
    avg((label > 0)::integer) as prevalence
from labels
semi join records using (record_id)
group by all;
