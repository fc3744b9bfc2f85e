"""What schemathesis must know about this API: who calls, and where its rules go beyond JSON Schema.

schemathesis loads this module (SCHEMATHESIS_HOOKS) in its own process; the environment holds the credentials.
"""

import copy
import functools
import itertools
import json
import math
import operator
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any

import jsonschema
import requests
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi import checks

DEVICE_ID, DEVICE_TOKEN = os.environ["FUZZ_DEVICE_ID"], os.environ["FUZZ_DEVICE_TOKEN"]
TOKEN_ID, ENROLMENT_TOKEN = os.environ["FUZZ_TOKEN_ID"], os.environ["FUZZ_ENROLMENT_TOKEN"]

# Rules that JSON Schema cannot express, by the API's own words. A request that fits its schema is answered, or refused
# with one of these and nothing else.
RULES = (
    "contains a NUL character or an unpaired surrogate",  # PostgreSQL cannot store either
    "is not a cursor of this list",  # opaque
    "Give an `Idempotency-Key` header or a `request_id`",  # either place is accepted
    "differs from the Idempotency-Key header",
    "is missing: send it in the body or as ?alias=",
    "Send request_id or correlation_id",
    "type: it must be one of",  # null counts as absent, and the agent's contract requires one
    "is empty; to select every device",
    "must be true and the only member",
    "there are no such devices",
    "selects no device",
    "belongs to another command",
    "bytes; FCM accepts at most 4096",  # of the whole message
    "APK_MAX_BYTES allows",  # a setting
    "the limit is 1048576",  # bytes of the whole body
    "must be before `to`",  # two instants
    "which has no threshold",  # the condition
    "$.threshold: is ",  # each condition has its own limits
    "must be absent in the last stage",
    "is missing: give the minimum time before the next stage",  # for every other stage
    "$.cron: ",  # a grammar of its own
    "is missing; set it to target_hash",  # as the preview of a filter returns it
    "give labels to set or to remove",
    "$.correlation_id: is missing or does not fit",  # null counts as absent here too
    "is not a label key",  # a grammar of its own: docs/targets.md
    "asks for more than 10000 points",  # of a fleet's history, from two instants and a step
    "there is no group",  # depends on existing groups
    "a group's filter cannot name another group",
    "there is no time zone",  # IANA's list
    "give alias, labels or monitored_package",  # one of several members
    "give either device_ids or filter",
    "set device_id, or alias",
    "give one of staged_rollout_percent, device_ids and stages",
    "give cron for a recurring command, or at",
    "$.at: Invalid RFC3339",  # a local time without an offset is allowed here
    "$.at: Invalid epoch timestamp",  # the same
    "$.params: Object contains unknown field",  # each action has its own parameters
    "a network's name has at most",  # bytes, where JSON Schema counts characters
    "selector: column ",  # a grammar of its own: docs/targets.md
    "is only allowed with stages",  # another member
    "$.fcm_token: does not fit",  # NUL and unpaired surrogates, which PostgreSQL cannot store
    "is in the past; give a time in the future",  # depends on the clock
    "no build could ever follow it",
    "is blank; give it at least one visible character",  # Unicode's categories
    "contains the invisible character",  # the same
    "Request Entity Too Large",  # the gateway's
)


class SigV4(requests.auth.AuthBase):
    """Signs each request just before it is sent."""

    def __init__(self) -> None:
        self._credentials = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = AWSRequest(request.method, request.url, data=request.body or b"", headers={})
        SigV4Auth(self._credentials, "execute-api", "eu-west-1").add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


@schemathesis.auth(refresh_interval=None)
class Callers:
    """The first kind of credentials that a route accepts: a device's, an enrolling phone's, or an operator's."""

    def get(self, case: schemathesis.Case, _context: Any) -> str:
        return next(iter(case.operation.definition.raw.get("security", [{"anybody": []}])[0]))

    def set(self, case: schemathesis.Case, scheme: str, _context: Any) -> None:
        if scheme == "deviceBearer":
            case.headers["Authorization"] = f"Bearer {DEVICE_TOKEN}"
        elif scheme == "enrollmentKey":
            case.headers["X-Admin-Key"] = ENROLMENT_TOKEN
        elif scheme == "operator":
            case._auth = SigV4()
        else:
            assert scheme == "anybody", scheme


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case, _kwargs: Any) -> None:
    """Keep the caller's own device and token from being deleted, and give an accepted request one idempotency key."""
    for name, own in (("device_id", DEVICE_ID), ("token_id", TOKEN_ID)):
        if case.method == "DELETE" and (case.path_parameters or {}).get(name) == own:
            case.path_parameters[name] = "another"
    if case.path.endswith("/batch-delete") and TOKEN_ID in json.dumps(case.body, default=str):
        case.body = {"token_ids": ["another"]}
    keyed = any(parameter.name == "Idempotency-Key" for parameter in case.operation.headers)
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if keyed and positive and isinstance(case.body, dict) and not case.path.endswith("/resend"):
        case.headers.pop("Idempotency-Key", None)
        case.body["request_id"] = case.body.get("request_id") or uuid.uuid4().hex


@schemathesis.check
def refuses_only_by_its_rules(ctx: Any, response: Any, case: schemathesis.Case) -> None:
    """positive_data_acceptance: a request that fits the schema is answered, or refused by one of RULES."""
    try:
        checks.positive_data_acceptance(ctx, response, case)
    except Failure:
        if not any(rule in response.text for rule in RULES):
            raise


@schemathesis.check
def refuses_what_is_wrong(ctx: Any, response: Any, case: schemathesis.Case) -> None:
    """negative_data_rejection, except for what the API accepts on purpose.

    A time in a query may be seconds since 1970, or the word null. A device's report is never refused for a value that
    does not fit (tests/functions/test_odd_values.py), only for a body that is not an object. Operators' numbers may be
    texts, and their booleans 0 and 1.
    """
    from_device = "deviceBearer" in str(case.operation.definition.raw.get("security"))
    if from_device and isinstance(case.body, dict):
        return
    instants = [p.name for p in case.operation.query if p.definition["schema"].get("format") == "date-time"]
    if any(_is_lax_instant((case.query or {}).get(name)) for name in instants):
        return
    try:
        checks.negative_data_rejection(ctx, response, case)
    except Failure:
        if not _right_when_read_leniently(case):
            raise


def _is_lax_instant(value: Any) -> bool:
    try:
        return value == "null" or math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _right_when_read_leniently(case: schemathesis.Case) -> bool:
    """Whether one or two of the body's values, read as in msgspec's lax mode, make it valid."""
    content = case.operation.definition.raw.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return False
    document = case.operation.schema.raw_schema
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    validator, body = jsonschema.Draft202012Validator(schema), json.loads(json.dumps(case.body))
    readings = list(_readings(body))
    return any(
        validator.is_valid(functools.reduce(_with, chosen, body))
        for number in (1, 2)
        for chosen in itertools.combinations(readings, number)
    )


LENIENT = re.compile(r"\s*(null|true|false|[+-]?\d+(\.\d*)?(e[+-]?\d+)?)\s*", re.IGNORECASE)
Reading = tuple[tuple[str | int, ...], Any]


def _readings(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Reading]:
    """Each place in a document where lax mode may read another value, with that value."""
    if isinstance(value, dict | list):
        for step, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _readings(member, (*path, step))
    elif isinstance(value, str) and LENIENT.fullmatch(value):
        word = value.strip().lower()
        yield path, json.loads(word) if word in {"null", "true", "false"} else float(word)
    elif isinstance(value, int | float) and path[-1:] == ("timestamp_utc",):
        yield path, "1970-01-01T00:00:00Z"  # seconds since 1970
    elif value in (0, 1) and not isinstance(value, bool):
        yield path, bool(value)


def _with(body: Any, reading: Reading) -> Any:
    (path, value), body = reading, copy.deepcopy(body)
    functools.reduce(operator.getitem, path[:-1], body)[path[-1]] = value
    return body
