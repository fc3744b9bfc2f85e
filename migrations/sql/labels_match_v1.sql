-- Whether labels meet every requirement of a parsed selector: [{"key", "operator", "values"}, ..]. The operators are
-- those of nexmdm.devices.selectors.Operator; an unknown one matches nothing, like NULL. An empty list matches
-- everything.
CREATE FUNCTION labels_match(labels jsonb, requirements jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(bool_and(coalesce(
        CASE requirement ->> 'operator'
            WHEN 'in' THEN labels ? key AND requirement -> 'values' ? (labels ->> key)
            WHEN 'notin' THEN NOT (labels ? key AND requirement -> 'values' ? (labels ->> key))
            WHEN 'exists' THEN labels ? key
            WHEN 'missing' THEN NOT labels ? key
            WHEN 'gt' THEN label_integer(labels ->> key) > (requirement -> 'values' ->> 0)::numeric
            WHEN 'lt' THEN label_integer(labels ->> key) < (requirement -> 'values' ->> 0)::numeric
        END, false)), requirements IS NOT NULL)
    FROM jsonb_array_elements(requirements) AS r(requirement) CROSS JOIN LATERAL (SELECT requirement ->> 'key') AS k(key)
$$;
