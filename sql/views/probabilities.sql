-- One row a record, model and version: what the model's head gives it, p['ATRIAL FIBRILLATION'].
-- For many records ask for one label with the macro p: making a map takes its time.
create or replace view probabilities as
select
    record_id,
    model,
    version,
    map_from_entries(list_sort(list((label, probability)))) as p
from head_outputs
semi join records using (record_id)
group by
    record_id,
    model,
    version;
