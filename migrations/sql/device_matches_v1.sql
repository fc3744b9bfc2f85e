-- Whether an enrolled device matches a stored filter (nexmdm.devices.filters.stored), including the group's own filter.
-- NULL matches every device. A deleted group and an unknown member match none, so that a filter that is not understood
-- does not reach more devices. nexmdm.devices.filters.where does the same for sets of devices; a test checks that both
-- agree.
CREATE FUNCTION device_matches(for_device text, wanted jsonb, interval_seconds double precision) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    device record;
    parts jsonb[] := ARRAY[wanted];
    part jsonb;
    app jsonb;
BEGIN
    IF wanted IS NULL THEN
        RETURN true;
    END IF;
    SELECT d.alias, d.labels, l.agent_version, device_online(l.last_seen_at, interval_seconds) AS online INTO device
    FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
    WHERE d.id = for_device AND d.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF wanted ? 'group' THEN
        parts := ARRAY[wanted - 'group', (SELECT g.filter FROM device_groups g WHERE g.name = wanted ->> 'group')];
    END IF;
    FOREACH part IN ARRAY parts LOOP
        IF part IS NULL OR part - ARRAY['selector', 'requirements', 'alias_prefix', 'online', 'agent_version', 'app',
                'all'] <> '{}' THEN
            RETURN false;
        END IF;
        IF part ? 'selector' AND NOT coalesce(labels_match(device.labels, part -> 'requirements'), false)
            OR part ? 'alias_prefix' AND NOT device.alias ^@ (part ->> 'alias_prefix')
            OR part ? 'online' AND device.online <> (part ->> 'online')::boolean
            OR part ? 'agent_version' AND device.agent_version IS DISTINCT FROM part ->> 'agent_version' THEN
            RETURN false;
        END IF;
        IF part ? 'app' THEN
            app := part -> 'app';
            IF coalesce((app ->> 'missing')::boolean, false) THEN
                IF NOT EXISTS (SELECT FROM device_last_status l WHERE l.device_id = for_device
                        AND l.apps_hash IS NOT NULL)
                    OR EXISTS (SELECT FROM device_apps a WHERE a.device_id = for_device
                        AND a.package = app ->> 'package' AND a.installed) THEN
                    RETURN false;
                END IF;
            ELSIF NOT EXISTS (SELECT FROM device_apps a WHERE a.device_id = for_device
                    AND a.package = app ->> 'package' AND a.installed
                    AND (app ->> 'version_code_below' IS NULL
                        OR a.version_code < (app ->> 'version_code_below')::bigint)) THEN
                RETURN false;
            END IF;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
