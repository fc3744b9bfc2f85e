-- Records the heartbeats of one device: authentication, at most one row per device and bucket, the last status, a
-- changed FCM registration token, the app inventory, the answer to a ping and the list of pending commands, in one
-- round trip.
--
-- The device is the one with `p_token_id`; a caller that has already identified the device passes `p_device_id` and a
-- null token. `p_reports` is an array of reports as written by nexmdm.heartbeats.body. `p_oldest` and `p_newest` limit
-- the buckets of the reports' own times. Calling it again with the same reports changes nothing.
--
-- No row: no device has the token, or it was deleted more than 24 hours ago. `deleted`: it was deleted less than 24
-- hours ago, and nothing was recorded. `created` has the positions, from 1, of the reports that became rows.
--
-- With these settings every call uses the same plan, regardless of the parameters: with index scans even while a
-- partition is new and empty, because the plan is kept while it fills, and without JIT compilation, which does not pay
-- off.
CREATE FUNCTION record_heartbeats_v3(
    p_token_id text, p_device_id text, p_reports json, p_oldest timestamptz, p_newest timestamptz,
    p_bucket_seconds int, p_retention_days int, p_interval_seconds int
) RETURNS TABLE (
    device_id text, deleted bool, buckets timestamptz[], created int8[], last_status_updated bool, pending json
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $function$
#variable_conflict use_column
DECLARE
    own text;
    -- Computed once: inside the statement, it would read the whole array again for each report.
    alone bool := json_array_length(p_reports) = 1;
    may_be_stored bool;
    stored timestamptz[] := '{}';
    inventory json;
    pings text[];
    heard bool;
    first_use bool := false;
    registered_at timestamptz;
    registration text;
    -- Positions in a queue, from 1: of its last report that repeats the last status, and of the last one with a
    -- plausible time of its own.
    repeated_n int8 := 0;
    plausible_n int8 := 0;
BEGIN
    -- Step 1: authenticate. It locks nothing: the newest token's first use is recorded in step 5, because every report
    -- locks the row of the last status before the device's row. For other tokens authenticate_device_v1 only reads.
    IF p_token_id IS NOT NULL THEN
        SELECT d.id, l.last_ts >= p_oldest, d.confirmed_at IS NULL INTO own, may_be_stored, first_use
        FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
        WHERE d.token_id = p_token_id AND d.deleted_at IS NULL;
        IF NOT FOUND THEN
            SELECT d.id, l.last_ts >= p_oldest INTO own, may_be_stored
            FROM authenticate_device_v1(p_token_id) d LEFT JOIN device_last_status l ON l.device_id = d.id;
        END IF;
    ELSE
        SELECT d.id, l.last_ts >= p_oldest INTO own, may_be_stored
        FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id WHERE d.id = p_device_id;
    END IF;
    IF own IS NULL THEN
        RETURN;
    END IF;
    IF first_use THEN
        -- Its reports take turns: one that is not the newest would lock the device, by a foreign key, before it waits
        -- for the last status, and the newest would wait for the device in step 5.
        PERFORM FROM device_last_status l WHERE l.device_id = own FOR NO KEY UPDATE;
    END IF;

    -- Step 2: find the buckets that already have a row. Repeats are excluded before the insert, because a conflict
    -- would still consume a sequence value. A bucket that begins after the device's last report has no row, so almost
    -- all heartbeats do not have to read partitions.
    IF may_be_stored THEN
        stored := ARRAY(
            SELECT h.bucket
            FROM json_to_recordset(p_reports) AS r(device_ts timestamptz)
            JOIN device_heartbeats h ON h.device_id = own
                AND h.bucket = date_bin(make_interval(secs => p_bucket_seconds), r.device_ts,
                                        timestamptz '1970-01-01 00:00:00+00')
            WHERE h.bucket BETWEEN p_oldest AND p_newest);
    END IF;

    -- A queue has the oldest report first, which places those whose own time is not plausible.
    IF NOT alone THEN
        SELECT coalesce(max(r.n) FILTER (WHERE r.device_ts = l.device_ts AND r.uptime_s = l.uptime_s), 0),
            coalesce(max(r.n) FILTER (
                WHERE r.device_ts BETWEEN statement_timestamp() - make_interval(days => p_retention_days)
                                  AND statement_timestamp() + interval '5 minutes'), 0)
        INTO repeated_n, plausible_n
        FROM ROWS FROM (json_to_recordset(p_reports) AS (device_ts timestamptz, uptime_s int8))
            WITH ORDINALITY AS r(device_ts, uptime_s, n)
        LEFT JOIN device_last_status l ON l.device_id = own;
    END IF;

    -- Step 3: record, in one statement.
    WITH device AS MATERIALIZED (
        -- Checks that the token is still the device's, which may have been taken over since step 1.
        SELECT d.id, d.deleted_at, d.model AS known_model, d.fcm_token AS known_fcm_token,
            l.last_ts, l.last_seen_at, l.uptime_s AS last_uptime_s,
            coalesce(l.received_at, l.last_seen_at) AS last_received_at, l.device_ts AS last_device_ts,
            d.taken_over_at IS NOT NULL AND l.received_at IS NULL AS first_since_takeover,
            l.boot_at AS last_boot_at, l.earlier_boot_at, l.earlier_model
        FROM devices d LEFT JOIN device_last_status l ON l.device_id = d.id
        WHERE d.id = own
          AND (p_token_id IS NULL OR p_token_id IN (d.token_id, d.prior_token_id)
               OR d.older_token_ids @> ARRAY[p_token_id])
    ), report AS MATERIALIZED (
        SELECT r.*, device.id AS device_id, device.last_ts, at.ts,
            date_bin(make_interval(secs => p_bucket_seconds), at.ts, timestamptz '1970-01-01 00:00:00+00') AS bucket
        FROM device
        CROSS JOIN ROWS FROM (json_to_recordset(p_reports) AS (
            device_ts timestamptz, status text, ip text, battery_pct int, plugged bool, temp_c float8,
            network_type text, ssid text, carrier text, signal_dbm int, uptime_s int8, ram_used_mb int,
            pressure_pct int, unity_pkg_version text, unity_running bool, agent_version text, power_ok bool,
            doze_whitelisted bool, net_validated bool, queue_depth int, monitored_foreground_recent_s int8,
            fcm_token text, ping_request_id text, apps json, apps_hash text,
            model text, manufacturer text, android_version text, sdk_int int, patch_level text,
            build_id text, is_device_owner bool
        )) WITH ORDINALITY AS r(
            device_ts, status, ip, battery_pct, plugged, temp_c,
            network_type, ssid, carrier, signal_dbm, uptime_s, ram_used_mb,
            pressure_pct, unity_pkg_version, unity_running, agent_version, power_ok,
            doze_whitelisted, net_validated, queue_depth, monitored_foreground_recent_s,
            fcm_token, ping_request_id, apps, apps_hash,
            model, manufacturer, android_version, sdk_int, patch_level, build_id, is_device_owner, n)
        CROSS JOIN LATERAL (SELECT CASE
            -- An exact repeat of the last report, regardless of the time that was stored for it.
            WHEN r.device_ts = device.last_device_ts AND r.uptime_s = device.last_uptime_s THEN device.last_ts
            -- A clock that was set back: the uptime has advanced by the elapsed time, but the clock has not. In reports
            -- that were reordered, or queued before a reboot, the uptime does not match.
            WHEN alone
             AND r.device_ts < device.last_ts - interval '120 seconds'
             AND r.uptime_s > device.last_uptime_s
             AND abs(r.uptime_s - device.last_uptime_s
                     - extract(epoch FROM statement_timestamp() - device.last_received_at)) <= 120
            THEN statement_timestamp()
            -- The first report of a phone that took the device over: the earlier phone's clock may have been ahead.
            WHEN alone AND device.first_since_takeover AND r.device_ts < device.last_ts THEN statement_timestamp()
            -- Queued reports keep their own time if it is plausible; otherwise the receive time is used.
            WHEN r.device_ts >= statement_timestamp() - make_interval(days => p_retention_days)
             AND r.device_ts <= statement_timestamp() + interval '5 minutes' THEN r.device_ts
            -- Before a report that is a repeat, this is one too.
            WHEN r.n < repeated_n THEN device.last_ts
            ELSE statement_timestamp() END AS ts) AS at
        WHERE device.deleted_at IS NULL
    ), newest AS MATERIALIZED (
        SELECT report.*,
            -- When the phone started, by its own clock. Two phones with one token alternate between two start times.
            CASE WHEN device_ts >= timestamptz '2010-01-01 00:00:00+00' AND uptime_s BETWEEN 0 AND 1000000000
                THEN device_ts - make_interval(secs => uptime_s) END AS boot_at
        FROM report
        -- Last, those with the time of receipt that are followed by one with a time of its own.
        ORDER BY n < plausible_n AND ts = statement_timestamp(), ts DESC, n DESC LIMIT 1
    ), inserted AS (
        -- In the order of buckets, so that two queues never wait for each other's rows.
        INSERT INTO device_heartbeats (device_id, bucket, ts, received_at,
            status, ip, battery_pct, plugged, temp_c, network_type, ssid, carrier, signal_dbm, uptime_s, ram_used_mb,
            pressure_pct, unity_pkg_version, unity_running, agent_version, power_ok, doze_whitelisted, net_validated,
            queue_depth, monitored_foreground_recent_s)
        SELECT device_id, bucket, ts, statement_timestamp(),
            status, ip, battery_pct, plugged, temp_c, network_type, ssid, carrier, signal_dbm, uptime_s, ram_used_mb,
            pressure_pct, unity_pkg_version, unity_running, agent_version, power_ok, doze_whitelisted, net_validated,
            queue_depth, monitored_foreground_recent_s
        FROM report
        WHERE ts IS DISTINCT FROM last_ts AND bucket <> ALL (stored)
        ORDER BY bucket, n
        ON CONFLICT (device_id, bucket) DO NOTHING
        RETURNING bucket
    ), advanced AS (
        -- The last status is never replaced by an older one. Older reports are excluded before the upsert, because a
        -- conflict whose WHERE is false still locks the row; that WHERE handles races.
        INSERT INTO device_last_status AS l (device_id, last_ts, last_seen_at, received_at, device_ts,
            boot_at, earlier_boot_at, earlier_model, token_shared_at, apps_hash, apps_changed_at,
            status, ip, battery_pct, plugged, temp_c, network_type, ssid, carrier, signal_dbm, uptime_s, ram_used_mb,
            pressure_pct, unity_pkg_version, unity_running, agent_version, power_ok, doze_whitelisted, net_validated,
            queue_depth, monitored_foreground_recent_s)
        SELECT n.device_id, n.ts, statement_timestamp(), statement_timestamp(), n.device_ts,
            n.boot_at,
            CASE WHEN identity.other_boot THEN device.last_boot_at END,
            CASE WHEN identity.other_model THEN device.known_model END,
            CASE WHEN (identity.other_boot
                       AND abs(extract(epoch FROM n.boot_at - device.earlier_boot_at)) <= 120)
                   OR (identity.other_model AND n.model = device.earlier_model)
                THEN statement_timestamp() END,
            n.apps_hash, CASE WHEN n.apps_hash IS NOT NULL THEN statement_timestamp() END,
            n.status, n.ip, n.battery_pct, n.plugged, n.temp_c, n.network_type, n.ssid, n.carrier, n.signal_dbm,
            n.uptime_s, n.ram_used_mb, n.pressure_pct, n.unity_pkg_version, n.unity_running, n.agent_version,
            n.power_ok, n.doze_whitelisted, n.net_validated, n.queue_depth, n.monitored_foreground_recent_s
        FROM newest n CROSS JOIN device
        CROSS JOIN LATERAL (SELECT
            coalesce(abs(extract(epoch FROM n.boot_at - device.last_boot_at)) > 300, false) AS other_boot,
            coalesce(n.model <> device.known_model, false) AS other_model) AS identity
        WHERE n.last_ts IS NULL OR n.ts > n.last_ts
        ON CONFLICT (device_id) DO UPDATE SET
            last_ts = excluded.last_ts, last_seen_at = greatest(l.last_seen_at, excluded.last_seen_at),
            received_at = excluded.received_at, device_ts = excluded.device_ts,
            boot_at = coalesce(excluded.boot_at, l.boot_at),
            earlier_boot_at = coalesce(excluded.earlier_boot_at, l.earlier_boot_at),
            earlier_model = coalesce(excluded.earlier_model, l.earlier_model),
            token_shared_at = coalesce(excluded.token_shared_at, l.token_shared_at),
            apps_hash = coalesce(excluded.apps_hash, l.apps_hash),
            apps_changed_at = CASE WHEN excluded.apps_hash <> l.apps_hash OR l.apps_hash IS NULL
                THEN excluded.apps_changed_at ELSE l.apps_changed_at END,
            status = excluded.status, ip = excluded.ip, battery_pct = excluded.battery_pct,
            plugged = excluded.plugged, temp_c = excluded.temp_c, network_type = excluded.network_type,
            ssid = excluded.ssid, carrier = excluded.carrier, signal_dbm = excluded.signal_dbm,
            uptime_s = excluded.uptime_s, ram_used_mb = excluded.ram_used_mb, pressure_pct = excluded.pressure_pct,
            unity_pkg_version = excluded.unity_pkg_version, unity_running = excluded.unity_running,
            agent_version = excluded.agent_version, power_ok = excluded.power_ok,
            doze_whitelisted = excluded.doze_whitelisted, net_validated = excluded.net_validated,
            queue_depth = excluded.queue_depth,
            monitored_foreground_recent_s = excluded.monitored_foreground_recent_s
        WHERE excluded.last_ts > l.last_ts
        RETURNING l.device_id, coalesce(l.apps_changed_at = statement_timestamp(), false) AS apps_changed
    ), fact AS (
        SELECT newest.* FROM newest, advanced
    ), described AS (
        -- A newer report may have new facts about the device. It is compared with the row itself, which a concurrent
        -- report may have changed.
        UPDATE devices d SET
            model = coalesce(fact.model, d.model),
            manufacturer = coalesce(fact.manufacturer, d.manufacturer),
            android_version = coalesce(fact.android_version, d.android_version),
            sdk_int = coalesce(fact.sdk_int, d.sdk_int),
            patch_level = coalesce(fact.patch_level, d.patch_level),
            build_id = coalesce(fact.build_id, d.build_id),
            is_device_owner = coalesce(fact.is_device_owner, d.is_device_owner)
        FROM device CROSS JOIN fact
        WHERE d.id = device.id AND d.deleted_at IS NULL
          AND (p_token_id IS NULL OR p_token_id IN (d.token_id, d.prior_token_id)
               OR d.older_token_ids @> ARRAY[p_token_id])
          AND (coalesce(fact.model, d.model), coalesce(fact.manufacturer, d.manufacturer),
               coalesce(fact.android_version, d.android_version), coalesce(fact.sdk_int, d.sdk_int),
               coalesce(fact.patch_level, d.patch_level),
               coalesce(fact.build_id, d.build_id), coalesce(fact.is_device_owner, d.is_device_owner))
              IS DISTINCT FROM
              (d.model, d.manufacturer, d.android_version, d.sdk_int, d.patch_level, d.build_id, d.is_device_owner)
    )
    SELECT device.id,
        device.deleted_at IS NOT NULL,
        ARRAY(SELECT bucket FROM report ORDER BY n),
        ARRAY(SELECT min(n) FROM report JOIN inserted USING (bucket)
              WHERE ts IS DISTINCT FROM last_ts GROUP BY bucket),
        EXISTS (SELECT FROM advanced),
        -- Commands that may still be delivered or are repeated until answered. Those that expire soonest come first, so
        -- that commands which an agent never reports do not displace an urgent one. The installation of a paused build
        -- waits.
        (SELECT json_agg(p) FROM (
            SELECT request_id, device_id, action, payload, secrets FROM (
                SELECT request_id, device_id, action, payload, secrets, expires_at FROM fcm_dispatches
                WHERE device_id = device.id AND state IN ('accepted', 'retry_wait', 'unknown')
                  AND completed_at IS NULL AND expires_at > statement_timestamp() AND created_by IS NOT NULL
                UNION ALL
                SELECT request_id, device_id, action, payload, secrets, expires_at FROM fcm_dispatches
                WHERE device_id = device.id AND delivery = 'until_answered' AND state = 'sent'
                  AND completed_at IS NULL AND expires_at > statement_timestamp() AND created_by IS NOT NULL
            ) AS open
            WHERE request_id <> ALL (ARRAY(SELECT ping_request_id FROM report WHERE ping_request_id IS NOT NULL))
              AND (action <> 'install_apk' OR coalesce(payload ->> 'apk_id', '')
                   NOT IN (SELECT v.id::text FROM apk_versions v WHERE v.paused_at IS NOT NULL))
            ORDER BY expires_at, request_id LIMIT 20) AS p),
        (SELECT newest.apps FROM newest, advanced WHERE advanced.apps_changed),
        ARRAY(SELECT ping_request_id FROM report WHERE ping_request_id IS NOT NULL ORDER BY 1),
        (SELECT newest.ts FROM newest WHERE newest.fcm_token IS DISTINCT FROM known_fcm_token),
        (SELECT newest.fcm_token FROM newest WHERE newest.fcm_token IS DISTINCT FROM known_fcm_token),
        EXISTS (SELECT FROM newest
                WHERE NOT EXISTS (SELECT FROM advanced)
                  AND (EXISTS (SELECT FROM inserted)
                       OR coalesce(newest.ts > device.last_ts, true)
                       OR device.last_seen_at < statement_timestamp() - make_interval(secs => p_interval_seconds)))
    INTO device_id, deleted, buckets, created, last_status_updated, pending, inventory, pings,
        registered_at, registration, heard
    FROM device;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- Step 4: there is nothing newer, but the server heard from the device. A repeat changes nothing, unless the device
    -- has been silent for an interval: then even a repeat (from a clock that stands still) shows that it is online.
    -- This is a separate statement, so that a report that lost a race to a newer one sees the row as the other left it.
    IF heard THEN
        UPDATE device_last_status l SET last_seen_at = greatest(l.last_seen_at, statement_timestamp())
        WHERE l.device_id = own;
    END IF;

    -- Step 5: using the newest token for the first time confirms it and invalidates the older ones.
    IF first_use THEN
        PERFORM authenticate_device_v1(p_token_id);
    END IF;

    -- Step 6: a report that answers a ping completes its command.
    IF pings <> '{}' THEN
        PERFORM complete_command_v1(ping, own, 'OK', NULL, 'ping') FROM unnest(pings) AS ping;
    END IF;

    -- Step 7: store a newer FCM registration token, after step 3 because of the order of the locks. The report is
    -- compared with the row itself, which a concurrent report may have changed. A token that FCM reported as
    -- UNREGISTERED is not accepted again, and a report without a token clears none.
    IF registration IS NOT NULL THEN
        UPDATE devices d SET fcm_token = registration, fcm_token_at = registered_at
        WHERE d.id = own AND d.deleted_at IS NULL
          AND (p_token_id IS NULL OR p_token_id IN (d.token_id, d.prior_token_id)
               OR d.older_token_ids @> ARRAY[p_token_id])
          AND registration <> ALL (ARRAY[coalesce(d.fcm_token, ''), coalesce(d.unregistered_fcm_token, '')])
          -- A phone without a token takes any, because its clock may be behind the server's.
          AND (d.fcm_token IS NULL OR coalesce(registered_at > d.fcm_token_at, true));
    END IF;

    -- Step 8: store the app inventory, only if its hash changed. The row of the last status has been locked since step
    -- 3, which serializes calls of one device. An invalid entry (`installed` null) changes nothing.
    IF inventory IS NOT NULL THEN
        WITH reported AS MATERIALIZED (
            SELECT * FROM json_to_recordset(inventory)
                AS a(package text, installed bool, version_name text, version_code int8)
        ), written AS (
            INSERT INTO device_apps AS a (device_id, package, version_name, version_code, installed, first_seen_at)
            SELECT own, package, version_name, version_code, installed, statement_timestamp()
            FROM reported WHERE installed IS NOT NULL
            ORDER BY package
            ON CONFLICT (device_id, package) DO UPDATE SET
                version_name = CASE WHEN excluded.installed THEN excluded.version_name ELSE a.version_name END,
                version_code = CASE WHEN excluded.installed THEN excluded.version_code ELSE a.version_code END,
                installed = excluded.installed,
                removed_at = CASE WHEN excluded.installed THEN NULL
                                  WHEN a.installed THEN statement_timestamp() ELSE a.removed_at END
            WHERE a.installed IS DISTINCT FROM excluded.installed
               OR (excluded.installed AND (a.version_name, a.version_code)
                   IS DISTINCT FROM (excluded.version_name, excluded.version_code))
        )
        UPDATE device_apps a SET installed = false, removed_at = statement_timestamp()
        WHERE a.device_id = own AND a.installed
          AND NOT EXISTS (SELECT FROM reported r WHERE r.package = a.package);
    END IF;
    RETURN NEXT;
END
$function$
