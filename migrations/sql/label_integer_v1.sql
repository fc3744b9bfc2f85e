-- The value of a label as `<` and `>` of a selector compare it: Go's strconv.ParseInt(value, 10, 64), as Kubernetes
-- does it. NULL for everything that this does not take.
CREATE FUNCTION label_integer(value text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN value ~ '^[-+]?[0-9]+$'
        AND value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN value::numeric END
$$;
