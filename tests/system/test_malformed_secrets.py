"""S1 for pasted secrets: a malformed secret is in no log, in no error that Lambda reports and in no failed event.

The handlers run under awslambdaric, Lambda's own runtime for Python. What it reports of an asynchronous invocation is
what the queue of failed events stores.
"""

import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from local import template
from tests.support.runtime_api import Told, invoke

pytestmark = pytest.mark.long

CANARY = "canaryinacoalmine"
# A truncated secret contains a part of the whole one.
PIECES = {CANARY[:8], CANARY[-8:]}
KEY = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n{'A' * 300}\n-----END PRIVATE KEY-----\n"
ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "project_id": CANARY,
        "private_key": KEY,
        "client_email": f"{CANARY}@example",
        "token_uri": "http://127.0.0.1:9/token",
    }
)
URL = f"postgresql://nexmdm:{CANARY}@127.0.0.1:9/db"
# Characters that libpq reads as a port, an escape, two words, or quotes.
PASSWORDS = [f"1/{CANARY}", f"{CANARY}%zz", f"{CANARY} {CANARY}", f"{CANARY}/1"]
FORMS = {
    "as it is": "{}",
    "with a byte order mark": "\ufeff{}",
    "with CRLF": "{}\r\n",
    "with a trailing newline": "{}\n",
    "quoted twice": "'\"{}\"'",
    "twice": "{}{}",
    "cut off": None,
    "in base64": None,
    "as UTF-16 that was taken for Latin-1": None,
    "in a list": None,
}


def secret_is_not_revealed(told: Told) -> bool:
    text = (told.log + told.reported).replace(" ", "")
    return not any(piece in text for piece in PIECES)


def formed(secret: str, form: str) -> str:
    if form in PASSWORDS:
        return secret.replace(CANARY, form)
    if form == "cut off":
        return secret[: len(secret) * 2 // 3]
    if form == "in base64":
        return base64.b64encode(secret.encode()).decode()
    if form == "in a list":
        return json.dumps([secret])
    if form.startswith("as UTF-16"):
        return secret.encode("utf-16").decode("latin-1").replace("\0", " ")  # a variable cannot contain NUL
    return FORMS[form].format(secret, secret)


SWEEP, NOTICE = {"sweep": True}, {"Records": [{"Sns": {"Subject": "s", "Message": "m"}}]}
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
# function -> its event, and the settings whose secrets it reads.
READ = {
    "fcm_dispatch": (SWEEP, {"DATABASE_URL": URL, "FCM_SERVICE_ACCOUNT": ACCOUNT, "COMMAND_HMAC_KEY": CANARY}),
    "cleanup": ({}, {"DATABASE_URL": URL}),
    "watch": ({}, {"DATABASE_URL": URL}),
    "migrate": ({}, {"DATABASE_URL": URL, "DATABASE_ADMIN_SECRET": f"{ARN}{CANARY}"}),
    "notify": (NOTICE, {"WEBHOOK_URL": f"http://127.0.0.1:9/services/{CANARY}"}),
}
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# `make torture` tries every form of every secret; each needs a process of its own.
FEW = ("cut off", "in a list")
FORMS_OF = {"FCM_SERVICE_ACCOUNT": ("cut off", "twice", "in a list", "with a byte order mark", "in base64")}


def test_every_scheduled_and_asynchronous_function_is_covered():
    declared = template.load()
    scheduled = {schedule.function.name for schedule in declared.schedules}
    routed = {route.function.name for route in declared.routes}
    unrouted = {function.name for function in declared.functions.values()} - routed
    assert scheduled | unrouted == set(READ)


@pytest.mark.parametrize(
    ("name", "setting"), [(name, setting) for name, (_, settings) in READ.items() for setting in settings]
)
def test_malformed_secret_is_not_revealed(url: str, name: str, setting: str):
    event, secrets = READ[name]
    rest = {"DATABASE_URL": url, "FCM_SERVICE_ACCOUNT": ACCOUNT, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s"}
    rest["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = "http://127.0.0.1:9"
    forms = [*FORMS] if os.environ.get("TORTURE") else [*FORMS_OF.get(setting, FEW)]
    if setting == "DATABASE_URL":
        forms += PASSWORDS if name == "watch" or os.environ.get("TORTURE") else PASSWORDS[:1]

    def run(form: str) -> Told:
        return invoke(template.load().function(name), {**rest, setting: formed(secrets[setting], form)}, event)

    with ThreadPoolExecutor(4) as pool:
        told = dict(zip(forms, pool.map(run, forms), strict=True))
    for form, each in told.items():
        assert secret_is_not_revealed(each), (form, each)
        assert 'Traceback (most recent call last):\n  File "/work' not in each.log
    # A broken secret must fail the invocation with an error that names the setting.
    if setting != "COMMAND_HMAC_KEY":
        assert told["cut off"].kind == "error"
    if setting in ("FCM_SERVICE_ACCOUNT", "WEBHOOK_URL"):
        assert setting in told["in a list"].reported


@pytest.mark.parametrize("setting", CREDENTIALS)
@pytest.mark.parametrize("form", ["with CRLF", "twice", "in the middle"])
def test_malformed_credential_is_not_revealed(setting: str, form: str):
    """These sign the database login and the request for a secret."""
    value = f"{CANARY}\r\nX-Evil: {CANARY}" if form == "in the middle" else formed(CANARY, form)
    given = {
        **dict.fromkeys(CREDENTIALS, "plain"),
        setting: value,
        "DATABASE_HOST": "127.0.0.1",
        "DATABASE_PORT": "9",
        "DATABASE_CA_BUNDLE": "/none",
        "COMMAND_HMAC_KEY": f"{ARN}hmac",
        "WEBHOOK_URL": f"{ARN}webhook",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:9",
    }
    for name in ("watch", "notify"):
        told = invoke(template.load().function(name), given, READ[name][0])
        assert told.kind == "error"
        assert secret_is_not_revealed(told)


@pytest.mark.parametrize("form", ["cut off", "in base64", *PASSWORDS])
def test_routes_do_not_reveal_a_malformed_secret(form: str):
    """The functions behind routes answer 500 or 503 by themselves."""
    event = {
        "version": "2.0",
        "routeKey": "POST /v1/heartbeat",
        "rawPath": "/v1/heartbeat",
        "rawQueryString": "",
        "headers": {"authorization": "Bearer x", "content-type": "application/json"},
        "requestContext": {"http": {"method": "POST", "path": "/v1/heartbeat", "sourceIp": "127.0.0.1"}},
        "body": "{}",
        "isBase64Encoded": False,
    }
    told = invoke(template.load().function("heartbeat"), {"DATABASE_URL": formed(URL, form)}, event)
    assert told.kind == "response"
    assert json.loads(told.reported)["statusCode"] in (500, 503)
    assert secret_is_not_revealed(told)
