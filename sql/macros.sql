-- Scalar and table macros. They use table names only, so they work on any warehouse.

-- Scale a vector by per-dimension limits; a dimension without spread becomes 0, nothing is clipped.
create or replace macro minmax01(e, lo, hi) as
    list_transform(
        list_zip(e, lo, hi),
        lambda z: case when z[3] > z[2] then (z[1] - z[2]) / (z[3] - z[2]) else 0::float end
    );

-- Cosine similarity of two vectors of equal length, from -1 to 1.
create or replace macro cosine(a, b) as
    list_cosine_similarity(a, b);

-- Place of a lead in the lists gain and baseline of waveforms, from 1; NULL for no such lead.
create or replace macro lead_index(lead_name) as
    list_position(
        ['i', 'ii', 'iii', 'avr', 'avl', 'avf', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6'],
        lower(lead_name)
    );

-- Samples of one lead in millivolts: mv(ii, gain[2], baseline[2]). A lost sample, stored as -32768
-- (WFDB's code for 16 bits), is NULL, so that list_min, list_avg and the like leave it out.
create or replace macro mv(x, lead_gain, lead_baseline) as
    list_transform(
        x,
        lambda s: case when s <> -32768 then (s::integer - lead_baseline) / lead_gain end
    );

-- One lead of every record in millivolts: from lead_mv('II').
create or replace macro lead_mv(lead_name) as table
    select
        record_id,
        mv(
            columns(lambda c: c = lower(lead_name)),
            gain[lead_index(lead_name)],
            baseline[lead_index(lead_name)]
        ) as mv
    from waveforms;

-- Vectors of one model in all its versions and poolings: from embedding('ecgfm').
create or replace macro embedding(model_name) as table
    select
        record_id,
        version,
        pooling,
        dim,
        n_windows,
        embedding
    from embeddings
    where model = model_name;

-- Vectors of the records of one reshuffle, scaled to 0..1 by the stored statistics of its training
-- records: from scaled('ecgfm', '0a1b2c', 'record_mean', 'acs10', 0). Values of test records may
-- leave the range.
create or replace macro scaled(
    model_name,
    version_name,
    pooling_name,
    split_name,
    repeat_number
) as table
    select
        record_id,
        splits.split,
        minmax01(embeddings.embedding, norm_stats.mn, norm_stats.mx) as features
    from embeddings
    join splits using (record_id)
    join norm_stats using (model, version, pooling, split_id, repeat)
    where model = model_name
        and version = version_name
        and pooling = pooling_name
        and split_id = split_name
        and repeat = repeat_number;

-- The probability that a model's own head gives a record of the query around it, which needs a
-- column record_id: select record_id from records where p('ecgfm', 'Tachycardia') > 0.9. Case does
-- not matter; a record without one has NULL. A model or label of which nothing is stored is an
-- error; so is a model of several versions, unless one is named: p('ecgfm@0a1b2c', 'Tachycardia').
create or replace macro p(model_name, label_name) as
    case
        when (
            select
                case count(distinct {'model': model, 'version': version, 'label': label})
                    when 0 then error(
                        'No probability of ''' || label_name || ''' by ''' || model_name
                        || ''' is stored; what is: select distinct model, version, label '
                        || 'from head_outputs'
                    )
                    when 1 then true
                    else error(
                        '''' || model_name || ''' stands for several: '
                        || string_agg(distinct model || '@' || version, ', ')
                        || '; name one of them.'
                    )
                end
            from head_outputs
            where lower(label) = lower(label_name)
                and lower(model_name) in (lower(model), lower(model || '@' || version))
        )
            then (
                select probability
                from (
                    select
                        record_id as of_record,
                        probability
                    from head_outputs
                    where lower(label) = lower(label_name)
                        and lower(model_name) in (lower(model), lower(model || '@' || version))
                )
                where of_record = record_id
            )
    end;

-- The rhythm codes of each lead in one list, second by second from the record's start, by every
-- model and version: from rhythm() where model = 'anyecg'.
create or replace macro rhythm() as table
    select
        record_id,
        model,
        version,
        lead,
        list(code order by second) as codes
    from codes
    semi join records using (record_id)
    group by
        record_id,
        model,
        version,
        lead;

-- All runs of n codes in such a list: code_ngrams(codes, 3).
create or replace macro code_ngrams(codes, n) as
    list_transform(range(1, len(codes) - n + 2), lambda i: codes[i:i + n - 1]);

-- Seconds of such a list at which a sequence of codes begins, none where it does not occur:
-- select record_id from rhythm() where len(code_places(codes, [12, 7, 7])) > 0.
create or replace macro code_places(codes, sequence) as
    list_filter(
        range(0, len(codes) - len(sequence) + 1),
        lambda i: codes[i + 1:i + len(sequence)] = sequence::smallint[]
    );
