-- Which records hold a sequence of rhythm codes in some lead, and from which seconds on.
-- set sequence = : the codes in a row, such as 12,7,7
-- set model = : model, or model@version; every one when not set
-- set lead = : one lead; all when not set
with given as (
    select coalesce(getvariable('sequence'), '') as listed
),
wanted as (
    select string_split(listed, ',')::smallint[] as sequence
    from given
    where listed <> ''
),
found as (
    select
        record_id,
        model,
        version,
        lead,
        code_places(codes, sequence) as seconds
    from rhythm()
    cross join wanted
    where lower(coalesce(nullif(getvariable('model'), ''), model)) in (
        lower(model),
        lower(model || '@' || version)
    )
        and lower(lead) = lower(coalesce(nullif(getvariable('lead'), ''), lead))
)
select
    record_id,
    model,
    version,
    lead,
    len(seconds) as n,
    seconds
from found
where len(seconds) > 0
order by
    record_id,
    model,
    version,
    lead;
