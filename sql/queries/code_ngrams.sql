-- Which rhythm codes follow each other from second to second of a lead, most frequent first.
-- set n = 2: codes in a row
-- set model = : model, or model@version; every one when not set
-- set record_id = : one record; all when not set
-- set lead = : one lead; all when not set
with chosen as (
    select
        record_id,
        model,
        version,
        codes
    from rhythm()
    where lower(coalesce(nullif(getvariable('model'), ''), model)) in (
        lower(model),
        lower(model || '@' || version)
    )
        and record_id = coalesce(nullif(getvariable('record_id'), ''), record_id)
        and lower(lead) = lower(coalesce(nullif(getvariable('lead'), ''), lead))
),
grams as (
    select
        record_id,
        model,
        version,
        unnest(code_ngrams(codes, coalesce(getvariable('n')::integer, 2))) as gram
    from chosen
)
select
    model,
    version,
    gram,
    count(*) as n,
    count(*) / sum(count(*)) over (partition by model, version) as share,
    count(distinct record_id) as records
from grams
group by
    model,
    version,
    gram
order by
    model,
    version,
    n desc,
    gram;
