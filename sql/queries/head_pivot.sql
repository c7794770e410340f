-- What a model's head gives each record, one column a label.
-- set model = : model, or model@version; every model when not set
with chosen as (
    select
        record_id,
        model,
        version,
        label,
        probability
    from head_outputs
    semi join records using (record_id)
    where lower(coalesce(nullif(getvariable('model'), ''), model)) in (
        lower(model),
        lower(model || '@' || version)
    )
),
wide as (
    pivot chosen
    on label
    using any_value(probability)
    group by
        record_id,
        model,
        version
)
select
    record_id,
    model,
    version,
    columns(* exclude (record_id, model, version))
from wide
order by
    record_id,
    model,
    version;
