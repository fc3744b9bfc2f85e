-- Delete up to `batch` rows of a table that are due, oldest first, skipping those that another transaction holds.
WITH old AS (
    SELECT {key} FROM {table} t WHERE {where}
    ORDER BY {order} LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {table} t USING old WHERE {same} RETURNING 1
)
SELECT count(*) AS deleted FROM gone
