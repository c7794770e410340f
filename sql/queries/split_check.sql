-- What crosses from the training to the test side of a split: patients, signals, copies, scaling.
-- A row is clean when crossing is 0; it is NULL where nothing can be told.
-- set split_id = : the split; the first one when not set
with chosen as (
    select
        split_id,
        repeat,
        record_id,
        split
    from splits
    where split_id = coalesce(
        nullif(getvariable('split_id'), ''),
        (select min(split_id) from splits)
    )
),
known as (
    select
        records.record_id,
        records.patient_id,
        records.assessed is not null as assessed,
        if(records.n_samples = 0, null, records.signal_sha256) as signal_sha256,
        coalesce(records.duplicate_of, records.record_id) as ecg,
        coalesce(earliest.near_duplicate_of, ecg) as like_ecg
    from records
    left join records as earliest
        on earliest.record_id = coalesce(records.duplicate_of, records.record_id)
),
things as (
    select
        chosen.repeat,
        chosen.split,
        unnest([
            {what: 'patient', thing: known.patient_id},
            {what: 'same signal', thing: known.signal_sha256},
            {what: 'duplicate', thing: if(known.assessed, known.ecg, null)},
            {what: 'near duplicate', thing: if(known.assessed, known.like_ecg, null)},
            {what: 'record twice', thing: chosen.record_id}
        ], recursive := true)
    from chosen
    left join known using (record_id)
),
sided as (
    select
        what,
        repeat,
        thing,
        count(distinct split) > 1 or (what = 'record twice' and count(*) > 1) as crosses
    from things
    where thing is not null
    group by
        what,
        repeat,
        thing
),
tallied as (
    select
        what,
        count(distinct repeat) filter (crosses) as repeats,
        count(distinct thing) filter (crosses) as crossing,
        count(distinct thing) as of
    from sided
    group by what
),
gaps as (
    select
        count(distinct record_id) as n_records,
        count(distinct record_id) filter (patient_id is null) as n_nobody,
        count(distinct record_id) filter (signal_sha256 is null) as n_unsigned,
        count(distinct record_id) filter (assessed is not true) as n_unassessed
    from chosen
    left join known using (record_id)
),
listed as (
    select
        listed.what,
        coalesce(tallied.repeats, 0) as repeats,
        coalesce(tallied.crossing, 0) as crossing,
        coalesce(tallied.of, 0) as of,
        case
            when listed.what = 'patient' and n_nobody > 0
                then n_nobody || ' records have no patient id'
            when listed.what = 'same signal' and n_unsigned > 0
                then n_unsigned || ' records have no digest of their signal'
            when listed.what like '%duplicate' and n_unassessed > 0
                then n_unassessed || ' records not assessed: ecgstore quality'
        end as note,
        case
            when listed.what = 'same signal' then n_unsigned = n_records
            when listed.what like '%duplicate' then n_unassessed = n_records
            else false
        end as blind,
        listed.place
    from (
        values
            (1, 'patient'),
            (2, 'same signal'),
            (3, 'duplicate'),
            (4, 'near duplicate'),
            (5, 'record twice')
    ) as listed(place, what)
    cross join gaps
    left join tallied using (what)
),
training as (
    select
        chosen.repeat,
        embeddings.model,
        embeddings.version,
        embeddings.pooling,
        count(*) as n_train
    from chosen
    join embeddings using (record_id)
    where chosen.split = 'train'
    group by all
),
scaled as (
    select
        norm_stats.repeat,
        norm_stats.n_train is null as untold,
        coalesce(norm_stats.n_train > coalesce(training.n_train, 0), false) as crosses
    from norm_stats
    semi join chosen using (split_id)
    left join training using (repeat, model, version, pooling)
),
scored as (
    select
        scores.repeat,
        scores.features,
        coalesce(json_extract_string(feature_sets.definition, '$.fit') = 'all', false) as crosses
    from scores
    semi join chosen using (split_id)
    left join feature_sets
        on feature_sets.name = scores.features
    group by all
),
nested as (
    select
        folds.repeat,
        folds.record_id,
        outer_side.split is distinct from 'train' as crosses
    from (
        select
            json_extract(params, '$.repeat')::integer as repeat,
            record_id
        from splits
        where json_extract_string(params, '$.inner_of') in (select split_id from chosen)
        group by all
    ) as folds
    left join chosen as outer_side using (repeat, record_id)
),
fitted as (
    select
        'scaling fitted on test records' as what,
        count(distinct repeat) filter (crosses) as repeats,
        count(*) filter (crosses) as crossing,
        count(*) as of,
        nullif(count(*) filter (untold), 0) || ' statistics do not tell their records' as note,
        count(*) > 0 and bool_and(untold) as blind,
        6 as place
    from scaled
    union all
    select
        'features scaled on all records' as what,
        count(distinct repeat) filter (crosses) as repeats,
        count(distinct features) filter (crosses) as crossing,
        count(distinct features) as of,
        null as note,
        false as blind,
        7 as place
    from scored
    union all
    select
        'inner fold outside its training part' as what,
        count(distinct repeat) filter (crosses) as repeats,
        count(distinct record_id) filter (crosses) as crossing,
        count(distinct record_id) as of,
        null as note,
        false as blind,
        8 as place
    from nested
)
select
    one.split_id as split,
    found.what,
    if(found.blind, null, found.repeats) as repeats,
    if(found.blind, null, found.crossing) as crossing,
    found.of,
    found.note
from (select distinct split_id from chosen) as one
cross join (
    from listed
    union all by name
    from fitted
) as found
order by
    found.place;
