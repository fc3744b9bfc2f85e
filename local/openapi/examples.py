"""Examples from events/: the bodies and queries of the sample requests, by route."""

import json
from pathlib import Path

from local.gateway.payload import Event
from local.openapi import Schema

EVENTS = Path(__file__).resolve().parent.parent.parent / "events"


def bodies(route_key: str) -> Schema:
    """{name of the sample: {"value": its JSON body}}"""
    return {
        name: {"value": json.loads(event["body"])}
        for name, event in _samples().items()
        if _is(event, route_key, "body")
    }


def parameters(route_key: str) -> dict[str, str]:
    """{name: value} of the query and path parameters in the route's first sample."""
    for event in _samples().values():
        if _is(event, route_key, "rawPath"):
            return {**event.get("queryStringParameters", {}), **event.get("pathParameters", {})}
    return {}


def _is(event: Event, route_key: str, member: str) -> bool:
    return event.get("routeKey") == route_key and bool(event.get(member))


def _samples() -> dict[str, Event]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(EVENTS.glob("*.json"))}
