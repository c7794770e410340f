-- How often a model's tokeniser gave each rhythm code, most frequent first.
-- set model = : model, or model@version; every one when not set
-- set record_id = : one record; all when not set
-- set lead = : one lead; all when not set
with chosen as (
    select
        record_id,
        model,
        version,
        code
    from codes
    semi join records using (record_id)
    where lower(coalesce(nullif(getvariable('model'), ''), model)) in (
        lower(model),
        lower(model || '@' || version)
    )
        and record_id = coalesce(nullif(getvariable('record_id'), ''), record_id)
        and lower(lead) = lower(coalesce(nullif(getvariable('lead'), ''), lead))
)
select
    model,
    version,
    code,
    count(*) as n,
    count(*) / sum(count(*)) over (partition by model, version) as share,
    count(distinct record_id) as records
from chosen
group by
    model,
    version,
    code
order by
    model,
    version,
    n desc,
    code;
