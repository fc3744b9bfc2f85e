-- The value of a label for the operators `<` and `>` of selectors, as in Kubernetes: Go's strconv.ParseInt(value, 10,
-- 64). NULL for every value that this function rejects.
CREATE FUNCTION label_integer(value text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN value ~ '^[-+]?[0-9]+$'
        AND value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN value::numeric END
$$;
