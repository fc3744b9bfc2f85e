-- Every column, constraint and index of the tables as PostgreSQL describes it: (table, kind, name, definition).
WITH ours AS (
    SELECT oid, relname AS table_name FROM pg_class
    WHERE relname IN ({tables}) AND relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
)
SELECT table_name, 'table', 'partition key', coalesce(pg_get_partkeydef(oid), 'none') FROM ours
UNION ALL
SELECT table_name, 'column', attname, format_type(atttypid, atttypmod)
    || CASE WHEN attcollation <> typcollation THEN ' COLLATE "' || collname || '"' ELSE '' END
    || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '')
FROM ours JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_collation ON pg_collation.oid = attcollation
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT table_name, 'constraint', conname, pg_get_constraintdef(c.oid)
    || CASE WHEN contype IN ('p', 'u', 'x') AND NOT indisvalid THEN ' INVALID' ELSE '' END
FROM ours JOIN pg_constraint c ON conrelid = ours.oid LEFT JOIN pg_index ON indexrelid = conindid
WHERE contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT table_name, 'index', relname, replace(pg_get_indexdef(indexrelid), current_schema() || '.', '')
    || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
FROM ours JOIN pg_index ON indrelid = ours.oid JOIN pg_class i ON i.oid = indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
