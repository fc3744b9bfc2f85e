"""The event log: written in the caller's transaction, never changed, listed newest first."""

import psycopg2
import pytest
from nexmdm.activity import events
from nexmdm.runtime import actor
from nexmdm.runtime.database import Database
from psycopg2.extensions import make_dsn

ALICE = actor.operator("arn:aws:sts::123456789012:assumed-role/Operator/alice", "203.0.113.7", "r-1")


def list_all(db: Database, **query):
    return events.list_events(db, events.EventsQuery(**query)).items


def test_event_keeps_actor_session_ip_and_change(db: Database):
    with db.transaction() as tx:
        events.record(tx, ALICE, "device.rename", "device:1", before={"alias": "a"}, after={"alias": "b"})
    (event,) = list_all(db)
    assert (event.actor, event.session, event.ip, event.request_id) == (ALICE.name, "alice", "203.0.113.7", "r-1")
    assert (event.action, event.object) == ("device.rename", "device:1")
    assert (event.before, event.after) == ({"alias": "a"}, {"alias": "b"})


def test_event_of_a_failed_transaction_is_not_kept(db: Database):
    with pytest.raises(RuntimeError), db.transaction() as tx:
        events.record(tx, ALICE, "device.rename", "device:1")
        raise RuntimeError
    assert list_all(db) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["c", "b", "a"]),
        ({"action": "device.rename"}, ["a"]),
        ({"action": "device.*"}, ["b", "a"]),
        ({"object": "device:1"}, ["c", "a"]),
        ({"actor": "system:*"}, ["c"]),
        ({"object": "device:_"}, []),
        ({"action": "%"}, []),
        ({"since": "2999-01-01T00:00:00Z"}, []),
    ],
)
def test_events_are_found_by_each_filter(db: Database, query, found):
    with db.transaction() as tx:
        events.record(tx, ALICE, "device.rename", "device:1", after={"n": "a"})
        events.record(tx, ALICE, "device.delete", "device:2", after={"n": "b"})
        events.record(tx, actor.system("sweep"), "build.pause", "device:1", after={"n": "c"})
    assert [event.after["n"] for event in list_all(db, **query)] == found


def test_event_pages_have_no_gap_and_no_overlap(db: Database):
    with db.transaction() as tx:
        for n in range(5):
            events.record(tx, ALICE, "device.rename", f"device:{n}")
    first = events.list_events(db, events.EventsQuery(limit=3))
    second = events.list_events(db, events.EventsQuery(limit=3, cursor=first.next_cursor))
    assert [event.object for event in first.items + second.items] == [f"device:{n}" for n in (4, 3, 2, 1, 0)]
    assert second.next_cursor is None


def test_event_cannot_be_changed_even_by_the_owner(db: Database, url: str):
    with db.transaction() as tx:
        events.record(tx, ALICE, "device.rename", "device:1")
    connection = psycopg2.connect(make_dsn(url))
    with connection, connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("UPDATE operator_events SET actor = 'someone else'")
    connection.close()


@pytest.mark.parametrize("function", ["record_system_event_v1", "record_system_event_v2"])
def test_system_event_of_a_device_route_names_the_system_and_takes_listed_actions_only(db: Database, function: str):
    call = f"SELECT {function}('registration', %(action)s, 'device:1', 'r-2', NULL, '{{\"alias\": \"hall\"}}')"
    db.execute(call, {"action": "device.register"})
    (event,) = list_all(db)
    assert (event.actor, event.after) == ("system:registration", {"alias": "hall"})
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        db.execute(call, {"action": "command.send"})


def test_cursor_of_another_list_is_refused(db: Database):
    from nexmdm.runtime.errors import Invalid

    devices = "WyJhIiwgImIiXQ"
    with pytest.raises(Invalid):
        list_all(db, cursor=devices)
