"""GRANT for those of the roles that exist: an adopted or a plain local database has none of them.

Revisions call these with the rights of their day, written out. Like the revisions, this file does not change.
"""

from sqlalchemy import Connection

ROLES = ("nexmdm_app", "nexmdm_device")


def grant(db: Connection, table: str, **rights: str) -> None:
    """Grant rights on a table or view.

    Args:
        rights: role -> what GRANT takes, such as `SELECT, INSERT, UPDATE (state)`. With INSERT goes the right to use
            the table's sequences, under whatever names they have here.
    """
    for role in rights.keys() & present(db):
        db.exec_driver_sql(f"GRANT {rights[role]} ON {table} TO {role}")
        if "INSERT" in rights[role]:
            for (sequence,) in db.exec_driver_sql(_SEQUENCES.format(table=table)).fetchall():
                db.exec_driver_sql(f"GRANT USAGE ON SEQUENCE {sequence} TO {role}")


def execute(db: Connection, function: str, *roles: str) -> None:
    """Take a function from PUBLIC, to whom PostgreSQL gives every new one, and let these roles call it."""
    if present(db):
        db.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    for role in present(db) & set(roles):
        db.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")


def revoke(db: Connection, table: str, **rights: str) -> None:
    """Take rights on a table or view away; of code that still runs none may need them."""
    for role in rights.keys() & present(db):
        db.exec_driver_sql(f"REVOKE {rights[role]} ON {table} FROM {role}")


def present(db: Connection) -> set[str]:
    """Those of the roles that exist."""
    return set(db.exec_driver_sql("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),)).scalars())


_SEQUENCES = """
SELECT objid::regclass::text FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'
WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = to_regclass('{table}')
  AND deptype IN ('a', 'i')
"""
