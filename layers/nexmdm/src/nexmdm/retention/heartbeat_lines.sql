-- The next rows of a partition as lines of JSON, sorted by id, and their last id. `last` is null if there are no more
-- rows.
SELECT count(*) AS rows, max(hb_id) AS last, string_agg(line, E'\n' ORDER BY hb_id) AS lines
FROM (
    SELECT hb_id, row_to_json(r)::text AS line
    FROM (
        SELECT {columns} FROM "{partition}"
        WHERE %(after)s::bigint IS NULL OR hb_id > %(after)s
        ORDER BY hb_id
        LIMIT %(batch)s
    ) AS r
) AS line
