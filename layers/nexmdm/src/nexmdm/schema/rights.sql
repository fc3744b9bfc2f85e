-- The rights of the roles: (role, kind, name, privilege, column). Grants to PUBLIC (grantee 0) are included for
-- NexMDM's objects: tables in the schema of devices, and functions that do not belong to an extension.
WITH ours AS (
    SELECT relowner AS owner FROM pg_class WHERE oid = to_regclass('devices')
), acl(kind, name, column_name, entry) AS (
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname, '', a
    FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS a WHERE relnamespace = current_schema()::regnamespace
    UNION ALL
    SELECT 'TABLE', relname, attname, a
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid CROSS JOIN LATERAL aclexplode(attacl) AS a
    WHERE relnamespace = current_schema()::regnamespace AND NOT attisdropped
    UNION ALL
    SELECT 'FUNCTION', proname, '', a
    FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
    WHERE pronamespace = current_schema()::regnamespace AND proowner IN (SELECT owner FROM ours)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    UNION ALL
    SELECT 'SCHEMA', nspname, '', a
    FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl) AS a WHERE oid = current_schema()::regnamespace
)
SELECT coalesce(rolname, 'PUBLIC'), kind, name, (entry).privilege_type, column_name
FROM acl LEFT JOIN pg_roles r ON r.oid = (entry).grantee
WHERE (rolname IN ({roles}) OR ((entry).grantee = 0 AND kind <> 'TABLE'))
  AND NOT (kind = 'SCHEMA' AND (entry).privilege_type = 'USAGE')
