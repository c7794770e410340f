-- Why files were refused, how often, with one of them as an example.
select
    reason,
    reader,
    count(*) as n,
    max(rejects.at) as last_at,
    min(source_uri) as example
from rejects
group by
    reason,
    reader
order by
    n desc,
    reason,
    reader;
