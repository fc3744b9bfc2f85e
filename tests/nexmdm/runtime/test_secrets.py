"""Secrets are accepted in every form in which people paste them; errors name the form and never the value."""

import base64
import json

import pytest
from nexmdm.runtime import secrets
from nexmdm.runtime.settings import Settings, SettingsError, as_pasted

KEY = "-----BEGIN PRIVATE KEY-----\ncanary+canary/canary==\n-----END PRIVATE KEY-----\n"
ACCOUNT = {
    "type": "service_account",
    "project_id": "p",
    "private_key": KEY,
    "client_email": "nexmdm@p.iam.example",
    "token_uri": "https://oauth2.example/token",
}
TEXT = json.dumps(ACCOUNT, indent=2)
AROUND = ["{}", "{}\n", "{}\r\n", " \t{} ", "\ufeff{}", "\ufeff {}\n", '"{}"', "'{}'", "'\"{}\"'", '"\ufeff{}\n"\n']
READ_AS_AN_ACCOUNT = {
    **{repr(form): form.format(TEXT) for form in AROUND},
    "one line": json.dumps(ACCOUNT),
    "CRLF": TEXT.replace("\n", "\r\n"),
    "a JSON string": json.dumps(TEXT),
    "a JSON string of a JSON string": json.dumps(json.dumps(TEXT)),
    "base64": base64.b64encode(TEXT.encode()).decode(),
    "base64 without padding": base64.b64encode(f"{TEXT}  ".encode()).decode().rstrip("="),
    "base64 in lines": base64.encodebytes(TEXT.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(TEXT.encode()).decode(),
    "base64 of a file with a byte order mark": base64.b64encode(TEXT.encode("utf-8-sig")).decode(),
    "base64 of UTF-16": base64.b64encode(TEXT.encode("utf-16")).decode(),
    "base64 twice": base64.b64encode(base64.b64encode(TEXT.encode())).decode(),
    "quoted base64": f'"{base64.b64encode(TEXT.encode()).decode()}"',
    "a pair of Secrets Manager's console": json.dumps({"FCM_SERVICE_ACCOUNT": TEXT}),
    "line breaks escaped twice": json.dumps({**ACCOUNT, "private_key": KEY.replace("\n", "\\n")}),
}
NO_ACCOUNT = {
    "a PEM block alone": KEY,
    "a JSON list": json.dumps([ACCOUNT]),
    "JSON that is cut off or broken": TEXT[:-40],
    "UTF-16 text": TEXT.encode("utf-16").decode("latin-1"),
    "a JSON object without token_uri": json.dumps({k: v for k, v in ACCOUNT.items() if k != "token_uri"}),
    "the credentials of something else than a service account": json.dumps({**ACCOUNT, "type": "authorized_user"}),
    "base64 of something that is no text": base64.b64encode(b"canary\xff\xfe\x00").decode(),
    "a path that cannot be read (No such file or directory)": "/canary/account.json",
    "a path that cannot be read (File name too long)": f"/{'canary' * 80}",
    "text of another form": "canary! " * 300,
    "several lines": "canary!\ncanary!",
}


def account(value: str) -> dict:
    return secrets.service_account(Settings(database_url="x", fcm_service_account=as_pasted(value)))


@pytest.mark.parametrize("form", READ_AS_AN_ACCOUNT)
def test_service_account_is_read_in_every_form(form):
    assert account(READ_AS_AN_ACCOUNT[form]) == ACCOUNT


@pytest.mark.parametrize("content", [TEXT.encode(mark) for mark in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le")][:3])
def test_service_account_is_read_from_a_file(tmp_path, content):
    file = tmp_path / "account.json"
    file.write_bytes(content)
    assert account(f"{file}\n") == ACCOUNT


@pytest.mark.parametrize("form", NO_ACCOUNT)
def test_invalid_service_account_is_named_by_its_form(form):
    with pytest.raises(SettingsError) as raised:
        account(NO_ACCOUNT[form])
    assert str(raised.value).startswith(f"FCM_SERVICE_ACCOUNT is wrong: it holds {form}; it should hold ")
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("depth", [50_000, 20])
def test_deeply_nested_json_is_named_by_its_form(depth):
    with pytest.raises(SettingsError, match="FCM_SERVICE_ACCOUNT is wrong"):
        account("[" * depth)


@pytest.mark.parametrize("form", AROUND, ids=repr)
def test_key_is_read_in_every_pasted_form(form):
    config = Settings(database_url="x", command_hmac_key=as_pasted(form.format("the key of devices")))
    assert secrets.hmac_key(config) == "the key of devices"


@pytest.mark.parametrize(
    ("value", "form"),
    [("canary\ncanary", "several lines"), ("c\0a\0n\0a\0r\0y\0", "UTF-16 text"), ('{"a": ""}', "nothing")],
)
def test_key_that_no_phone_can_use_is_named_by_its_form(value, form):
    with pytest.raises(SettingsError, match=f"COMMAND_HMAC_KEY is wrong: it holds {form}") as raised:
        secrets.hmac_key(Settings(database_url="x", command_hmac_key=value))
    assert "canary" not in str(raised.value)


def test_empty_key_signs_nothing():
    assert secrets.hmac_key(Settings(database_url="x")) is None


@pytest.mark.parametrize("form", AROUND, ids=repr)
def test_webhook_is_read_in_every_pasted_form(form):
    url = "https://hooks.example/services/T0/B0/canary?x=1"
    assert secrets.webhook_url(Settings(database_url="x", webhook_url=as_pasted(form.format(url)))) == url


@pytest.mark.parametrize("name", ["COMMAND_HMAC_KEY", "FCM_SERVICE_ACCOUNT", "WEBHOOK_URL"])
@pytest.mark.parametrize("arn", ["arn:", "arn:canary", "arn:aws:s3:::canary", "arn:aws:secretsmanager:r:1:secret:a b"])
def test_arn_of_another_service_is_named(name, arn):
    with pytest.raises(SettingsError, match=f"{name} is wrong") as raised:
        secrets.resolve(name, arn)
    assert "canary" not in str(raised.value)
