-- Deletes up to `batch` due rows of a table, oldest first, skipping rows that another transaction has locked.
WITH old AS (
    SELECT {key} FROM {table} t WHERE {where}
    ORDER BY {order} LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {table} t USING old WHERE {same} RETURNING 1
)
SELECT count(*) AS deleted FROM gone
