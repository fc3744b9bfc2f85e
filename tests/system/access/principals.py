"""The callers, how each presents its credentials, and the status that each kind of route gives to each caller."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from unittest import mock

import botocore.auth
import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.gateway import KEYS
from tests.system.access.stage import Stage

RIGHT, ANOTHER = "right", "another"

Present = Callable[[httpx.Request, Stage], None]


def nothing(_request: httpx.Request, _stage: Stage) -> None:
    pass


def header(name: str, token: str, prefix: str = "") -> Present:
    def present(request: httpx.Request, stage: Stage) -> None:
        request.headers[name] = prefix + stage.tokens.get(token, token)

    return present


def bearer(token: str) -> Present:
    return header("Authorization", token, "Bearer ")


def query(token: str) -> Present:
    def present(request: httpx.Request, stage: Stage) -> None:
        request.url = request.url.copy_merge_params({"token": stage.tokens[token]})

    return present


def signed(
    credentials: Credentials = KEYS, service: str = "execute-api", at: timedelta = timedelta(), then: str = ""
) -> Present:
    """`then` is appended to the query after signing."""

    def present(request: httpx.Request, _stage: Stage) -> None:
        aws = AWSRequest(
            request.method, str(request.url), data=request.content, headers={"host": request.url.netloc.decode()}
        )
        with clock(at):
            SigV4Auth(credentials, service, "eu-west-1").add_auth(aws)
        request.headers.update(dict(aws.headers.items()))
        if then:
            request.url = request.url.copy_merge_params({then: "1"})

    return present


@contextmanager
def clock(at: timedelta) -> Iterator[None]:
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=datetime.now(UTC) + at):
        yield


PRINCIPALS: dict[str, Present] = {
    "nobody": nothing,
    "an operator": signed(),
    "a wrong signature": signed(Credentials(KEYS.access_key, "another secret")),
    "a wrong key": signed(Credentials("AKIANOBODY", KEYS.secret_key)),
    "an expired signature": signed(at=timedelta(minutes=-16)),
    "a signature of the future": signed(at=timedelta(minutes=16)),
    "a signature for another service": signed(service="s3"),
    "a signature of another request": signed(then="limit"),
    "a device": bearer("device"),
    "a device, by its header": header("X-Device-Token", "device"),
    "another device": bearer("another"),
    "a deleted device": bearer("deleted"),
    "a token that was superseded": bearer("superseded"),
    "a guess": bearer("a guess"),
    "a guess, by header": header("X-Device-Token", "a guess"),
    "an operator's key as a token": bearer(KEYS.access_key),
    "a device token in the query": query("device"),
    "a register token": bearer("register good"),
    "a register token as admin key": header("X-Admin-Key", "register good"),
    "a register token as admin": header("X-Admin", "register good"),
    "a register token as device token": header("X-Device-Token", "register good"),
    "a register token in the query": query("register good"),
    "an expired register token": header("X-Admin-Key", "register expired"),
    "a revoked register token": header("X-Admin-Key", "register revoked"),
    "an exhausted register token": header("X-Admin-Key", "register exhausted"),
    "a download token": bearer("apk_download good"),
    "a download token as admin key": header("X-Admin-Key", "apk_download good"),
    "a download token in the query": query("apk_download good"),
    "an expired download token": bearer("apk_download expired"),
    "a revoked download token": bearer("apk_download revoked"),
    "an exhausted download token": bearer("apk_download exhausted"),
    "a revoked download token in the query": query("apk_download revoked"),
}

# Kind of route -> principal -> status; principals that are not listed get the status of "*".
EXPECTED: dict[str, dict[str, int | str]] = {
    "anyone": {"*": RIGHT},
    "operator": {"an operator": RIGHT, "*": 403},
    "device": {
        "a device": RIGHT,
        "a device, by its header": RIGHT,
        "another device": ANOTHER,
        "a deleted device": 410,
        "a token that was superseded": 401,
        "a guess": 401,
        "a guess, by header": 401,
        "an operator's key as a token": 401,
        "a register token": 401,
        "a register token as device token": 401,
        "a download token": 401,
        "an expired download token": 401,
        "a revoked download token": 401,
        "an exhausted download token": 401,
        "*": 403,  # the route reads no token from there
    },
    "download": {
        "a device": RIGHT,
        "a device, by its header": RIGHT,
        "another device": ANOTHER,
        "a deleted device": 410,
        "a token that was superseded": 401,
        "a guess": 401,
        "a guess, by header": 401,
        "an operator's key as a token": 401,
        "a device token in the query": 401,
        "a register token": 401,
        "a register token as device token": 401,
        "a register token in the query": 401,
        "a download token": RIGHT,
        "a download token in the query": RIGHT,
        "an expired download token": 401,
        "a revoked download token": 401,
        "an exhausted download token": 401,
        "a revoked download token in the query": 401,
        "*": 403,
    },
    "enrollment": {
        "a register token": RIGHT,
        "a register token as admin key": RIGHT,
        "a register token as admin": RIGHT,
        "an expired register token": 401,
        "a revoked register token": 401,
        "an exhausted register token": 401,
        "a device": 401,
        "another device": 401,
        "a deleted device": 401,
        "a token that was superseded": 401,
        "a guess": 401,
        "an operator's key as a token": 401,
        "a download token": 401,
        "a download token as admin key": 401,
        "an expired download token": 401,
        "a revoked download token": 401,
        "an exhausted download token": 401,
        "*": 403,
    },
}


def request(api: httpx.Client, method: str, path: str, body: object, present: Present, stage: Stage) -> httpx.Response:
    text = json.dumps(body) if body is not None else ""
    for name, value in stage.names.items():
        path, text = path.replace(f"{{{name}}}", value), text.replace(f"{{{name}}}", value)
    made = api.build_request(method, path, content=text.encode(), headers={"Content-Type": "application/json"})
    present(made, stage)
    return api.send(made)
