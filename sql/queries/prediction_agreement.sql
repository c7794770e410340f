-- How far two runs agree on the test records they share, by reshuffle: correlation of their scores
-- and, at a threshold, the share of equal decisions and Cohen's kappa.
-- set run_a = : first run; the newest one when not set
-- set run_b = : second run; the newest one before the first when not set
-- set threshold = 0.5: a score at or above it is a positive decision
with chosen as (
    select
        coalesce(nullif(getvariable('run_a'), ''), arg_max(run_id, scored_at)) as run_a
    from runs
),
other as (
    select
        run_a,
        coalesce(
            nullif(getvariable('run_b'), ''),
            (select arg_max(run_id, scored_at) from runs where run_id <> run_a)
        ) as run_b
    from chosen
),
paired as (
    select
        run_a,
        run_b,
        a.repeat,
        a.score as score_a,
        b.score as score_b,
        (a.score >= coalesce(getvariable('threshold')::double, 0.5))::integer as decision_a,
        (b.score >= coalesce(getvariable('threshold')::double, 0.5))::integer as decision_b
    from other
    join predictions as a on a.run_id = run_a
    join predictions as b on b.run_id = run_b
        and b.repeat = a.repeat
        and b.record_id = a.record_id
        and b.split = a.split
    where a.split = 'test'
),
counted as (
    select
        run_a,
        run_b,
        repeat,
        count(*) as n,
        corr(score_a, score_b) as correlation,
        avg((decision_a = decision_b)::integer) as agreement,
        avg(decision_a) * avg(decision_b)
        + (1 - avg(decision_a)) * (1 - avg(decision_b)) as by_chance
    from paired
    group by all
)
select
    run_a,
    run_b,
    repeat,
    n,
    correlation,
    agreement,
    case when by_chance < 1 then (agreement - by_chance) / (1 - by_chance) end as kappa
from counted
order by repeat;
