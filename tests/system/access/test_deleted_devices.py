"""A deleted phone becomes silent: every route that takes a device token answers 410 for 24 hours, then 401.

The agent in the field repeats a request answered 410 forever; after five 401s it wipes its credentials and stops.
"""

import json

import pytest
from nexmdm.runtime import database

from tests.support.api import call
from tests.system.access import stage as stages
from tests.system.access.routes import ENTRIES

ROUTES = [key for key, entry in ENTRIES.items() if entry.kind in ("device", "download")]


@pytest.fixture
def deleted(url, fake_fcm, bucket):
    """deleted(hours) returns the stage with its device deleted that many hours ago."""
    stage = stages.set_up()

    def ago(hours):
        database.connection().execute(
            "UPDATE devices SET deleted_at = now() - make_interval(hours => %(hours)s) WHERE id = %(id)s",
            {"hours": hours, "id": stage.names["device"]},
        )
        return stage

    return ago


@pytest.mark.parametrize(("hours", "status"), [(0, 410), (23, 410), (25, 401), (24 * 30, 401)])
def test_every_device_route_returns_410_then_401(deleted, hours, status):
    stage = deleted(hours)
    answered = {}
    for key in ROUTES:
        method, (path, query) = key.split()[0], ENTRIES[key].path.partition("?")[::2]
        text = json.dumps(ENTRIES[key].body)
        for name, value in stage.names.items():
            path, text = path.replace(f"{{{name}}}", value), text.replace(f"{{{name}}}", value)
        parameters = dict(pair.split("=") for pair in query.split("&") if pair)
        token = stage.tokens["device"]
        by_bearer = call(method, path, json.loads(text), token=token, query=parameters)
        by_header = call(method, path, json.loads(text), headers={"x-device-token": token}, query=parameters)
        answered[key] = (by_bearer.status, by_header.status)
        if status == 410:
            assert by_bearer.json["reason"] == "device_deleted"
    assert answered == dict.fromkeys(ROUTES, (status, status))
    assert len(ROUTES) >= 11
