"""Rows that a later constraint forbids: the revision resolves them as its docstring says and loses no device."""

from tests.support.migrations import rows
from tests.support.postgres import run_sql, upgrade


def test_fcm_token_of_several_devices_stays_with_the_latest(empty: str):
    upgrade(empty, "d1e5a0f2b303")
    run_sql(
        empty,
        """INSERT INTO devices (id, alias, fcm_token, fcm_token_at) VALUES
               ('earlier', 'a', 'restored', now() - interval '2 days'),
               ('latest', 'b', 'restored', now() - interval '1 day'),
               ('unknown when', 'c', 'restored', NULL),
               ('another', 'd', 'own', NULL),
               ('none', 'e', NULL, NULL)""",
    )
    upgrade(empty)
    assert rows(empty, "SELECT id, fcm_token FROM devices ORDER BY alias") == [
        ("earlier", None),
        ("latest", "restored"),
        ("unknown when", None),
        ("another", "own"),
        ("none", None),
    ]


def test_lookalike_aliases_are_kept_and_do_not_block_each_other(empty: str):
    upgrade(empty, "9d3f5a7c2b11")
    run_sql(
        empty,
        """INSERT INTO devices (id, alias, deleted_at) VALUES
               ('1', 'Lobby', NULL), ('2', 'lobby', NULL), ('3', 'Front Desk', NULL),
               ('4', 'STRASSE', NULL), ('5', 'straße', now()), ('6', 'front desk', now()),
               ('7', 'Kiosk', NULL), ('8', 'kiosk\ufe0f', NULL)""",
    )
    upgrade(empty)
    assert rows(empty, "SELECT id, alias, alias_key FROM devices ORDER BY id") == [
        ("1", "Lobby", None),
        ("2", "lobby", None),
        ("3", "Front Desk", "front desk"),
        ("4", "STRASSE", "strasse"),
        ("5", "straße", None),
        ("6", "front desk", None),
        ("7", "Kiosk", None),
        ("8", "kiosk\ufe0f", None),
    ]


def test_more_devices_than_one_batch_get_their_key(empty: str):
    upgrade(empty, "9d3f5a7c2b11")
    run_sql(empty, "INSERT INTO devices (id, alias) SELECT n, 'Kiosk ' || n FROM generate_series(1, 12001) AS n")
    upgrade(empty)
    assert rows(empty, "SELECT count(*) FROM devices WHERE alias_key = 'kiosk ' || id") == [(12001,)]
