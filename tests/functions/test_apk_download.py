"""Devices download builds: who may download which build, a URL that expires, and a row for each download."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from nexmdm.builds import downloads
from nexmdm.builds.downloads import Credential
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database
from nexmdm.runtime.errors import TooManyDownloads

from tests.support.api import CONTEXT, OPERATOR, Answer, call, enroll, event
from tests.support.builds import act, offer, pin, promoted, published, sample
from tests.support.races import race
from tests.support.s3 import BUCKET, Bucket

LATEST = ("/v1/apk/download/latest", "/v1/apk/download-latest")


class Device(NamedTuple):
    id: str
    token: str


@pytest.fixture
def device(url: str) -> Device:
    return Device(*enroll("lobby"))


def fetch(token: str, path: str = LATEST[0], **query: object) -> Answer:
    return call("GET", path, headers={"X-Device-Token": token}, query=query)


def download_token(**changes: object) -> str:
    body = {"aliases": ["new phones"], "scope": "apk_download", **changes}
    return call("POST", "/v1/enroll-tokens", body).json["items"][0]["token"]


def rows(db: Database) -> list[dict]:
    return db.execute(
        "SELECT build_id, source, token_id, admin_user, device_id, ip FROM apk_download_events ORDER BY id"
    )


@pytest.mark.parametrize("path", LATEST)
def test_device_gets_the_latest_build(bucket: Bucket, device: Device, db: Database, path: str):
    promoted(1)
    build_id = promoted(2)
    answer = fetch(device.token, path)

    assert answer.status == 302
    assert answer.headers["x-apk-sha256"] == sha256(sample("agent-2")).hexdigest()
    assert answer.headers["cache-control"] == "no-store"
    fetched = httpx.get(answer.headers["location"])
    assert fetched.content == sample("agent-2")
    assert fetched.headers["content-type"] == "application/vnd.android.package-archive"
    assert fetched.headers["content-disposition"] == 'attachment; filename="com.nexmdm-2-release.apk"'
    # The IP address comes from the gateway's context, never from a header.
    assert rows(db) == [
        {
            "build_id": build_id,
            "source": "enrollment",
            "token_id": None,
            "admin_user": None,
            "device_id": device.id,
            "ip": "127.0.0.1",
        }
    ]


def test_ip_address_is_not_taken_from_a_header(bucket: Bucket, device: Device, db: Database):
    promoted(1)
    call("GET", LATEST[0], headers={"X-Device-Token": device.token, "X-Forwarded-For": "8.8.8.8"})
    assert rows(db)[0]["ip"] == "127.0.0.1"


def test_download_url_names_key_and_version_and_expires(bucket: Bucket, device: Device):
    promoted(2)
    before = datetime.now(UTC).replace(microsecond=0)
    address = urlsplit(fetch(device.token).headers["location"])
    query = parse_qs(address.query)
    assert address.path == f"/{BUCKET}/com.nexmdm/release/2/{sha256(sample('agent-2')).hexdigest()}.apk"
    assert query["versionId"] == bucket.versions()
    assert int(query["X-Amz-Expires"][0]) <= 300
    assert query["X-Amz-SignedHeaders"] == ["host"]
    signed_at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert before <= signed_at <= datetime.now(UTC)


def test_interrupted_download_can_be_resumed(bucket: Bucket, device: Device):
    promoted(2)
    url = fetch(device.token).headers["location"]
    first = httpx.get(url, headers={"Range": "bytes=0-4999"})
    rest = httpx.get(url, headers={"Range": "bytes=5000-"})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert rest.headers["content-range"] == "bytes 5000-8400/8401"
    assert sha256(first.content + rest.content).digest() == sha256(sample("agent-2")).digest()


def test_build_is_downloaded_by_its_id(bucket: Bucket, device: Device, db: Database):
    build_id = promoted(1)
    answer = fetch(device.token, f"/v1/apk/download/{build_id}")
    assert httpx.get(answer.headers["location"]).content == sample("agent-1")
    for nothing in ("0", "999", "x", "99999999999"):
        fetch(device.token, f"/v1/apk/download/{nothing}").problem(404)
    assert len(rows(db)) == 1


def test_another_package_is_downloaded_by_its_name(bucket: Bucket, device: Device):
    content = sample("player-190")
    unity = offer(content, 190, package_name="io.unitynodes.unityapp", version_name="1.9.0").json["build_id"]
    act(unity, "promote")
    fetch(device.token).problem(404)
    assert httpx.get(fetch(device.token, package_name="io.unitynodes.unityapp").headers["location"]).content == content


def test_debug_build_is_never_the_latest(bucket: Bucket, device: Device):
    debug = offer(sample("agent-2-debug"), build_type="debug", version_name="2.0-debug").json["build_id"]
    act(debug, "promote")
    fetch(device.token).problem(404)
    fetch(device.token, f"/v1/apk/download/{debug}").problem(404)
    act(debug, "rollout", staged_rollout_percent=100, install=True)
    assert fetch(device.token, f"/v1/apk/download/{debug}").status == 302


# --- who may download which build


def test_device_may_download_builds_it_is_offered_or_was_told_to_install(bucket: Bucket, device: Device, db: Database):
    first, second, third = promoted(1), promoted(2), published(3)
    by_id = {
        build_id: fetch(device.token, f"/v1/apk/download/{build_id}").status for build_id in (first, second, third)
    }
    assert by_id == {first: 404, second: 302, third: 404}
    act(second, "rollout", staged_rollout_percent=0)
    assert fetch(device.token, f"/v1/apk/download/{first}").status == 302
    fetch(device.token, f"/v1/apk/download/{second}").problem(404)
    db.execute(
        "INSERT INTO apk_installations (device_id, apk_version_id, status) VALUES (%(device)s, %(build)s, 'pending')",
        {"device": device.id, "build": third},
    )
    assert fetch(device.token, f"/v1/apk/download/{third}").status == 302
    another = Device(*enroll("another"))
    fetch(another.token, f"/v1/apk/download/{third}").problem(404)
    assert len(rows(db)) == 3


def test_paused_build_cannot_be_downloaded_by_devices_told_to_install_it(bucket: Bucket, device: Device):
    build_id = promoted(2)
    act(build_id, "rollout", device_ids=[device.id])
    assert fetch(device.token, f"/v1/apk/download/{build_id}").status == 302
    act(build_id, "pause")
    fetch(device.token, f"/v1/apk/download/{build_id}").problem(404)


def test_enrollment_token_may_download_only_the_agent(bucket: Bucket, db: Database):
    agent, token = promoted(2), download_token()
    pin("io.unitynodes.unityapp")
    player = offer(sample("player-190"), 190, package_name="io.unitynodes.unityapp", version_name="1.9.0").json
    act(player["build_id"], "promote")
    assert call("GET", f"/v1/apk/download/{agent}", token=token).status == 302
    call("GET", f"/v1/apk/download/{player['build_id']}", token=token).problem(404)
    call("GET", LATEST[0], token=token, query={"package_name": "io.unitynodes.unityapp"}).problem(404)
    assert [row["build_id"] for row in rows(db)] == [agent]


def test_device_gets_at_most_twenty_urls_an_hour(bucket: Bucket, device: Device, db: Database):
    build_id = promoted(2)
    paths = [LATEST[0], f"/v1/apk/download/{build_id}"] * 10
    assert [fetch(device.token, path).status for path in paths] == [302] * 20
    for path in (LATEST[0], f"/v1/apk/download/{build_id}"):
        answer = fetch(device.token, path)
        answer.problem(429)
        assert 3500 < int(answer.headers["retry-after"]) <= 3600
    assert len(rows(db)) == 20
    assert fetch(Device(*enroll("another")).token).status == 302
    db.execute(
        "UPDATE apk_download_rates SET issued[1] = issued[1] - interval '1 hour' WHERE device_id = %(id)s",
        {"id": device.id},
    )
    assert [fetch(device.token).status for _ in range(2)] == [302, 429]
    assert downloads.forget_rates(db) == 0
    db.execute("UPDATE apk_download_rates SET last_at = last_at - interval '61 minutes'")
    assert downloads.forget_rates(db) == 2


def test_concurrent_downloads_count_towards_the_limit(bucket: Bucket, device: Device, db: Database, url: str):
    build_id = promoted(2)
    credential = Credential(device.token, from_address=False)
    issue = [lambda own: downloads.issue(own, credential, build_id, "com.nexmdm", 600)] * 24
    refused = [result for result in race(url, *issue) if isinstance(result, TooManyDownloads)]
    assert len(refused) == 4
    assert len(rows(db)) == 20


@pytest.mark.parametrize("way", ["bearer", "query"])
def test_new_phone_downloads_with_a_download_token(bucket: Bucket, db: Database, url: str, way: str):
    build_id = promoted(2)
    token = download_token(uses_allowed=1)
    how = {"token": token} if way == "bearer" else {"query": {"token": token}}
    for _ in range(3):
        answer = call("GET", LATEST[0], **how)
        assert answer.status == 302, answer.text
    assert httpx.get(answer.headers["location"]).content == sample("agent-2")

    [enrollment] = db.execute("SELECT token_id, uses_consumed, status, last_used_at FROM enrollment_tokens")
    assert (enrollment["uses_consumed"], enrollment["status"]) == (0, "active")
    assert enrollment["last_used_at"] is not None
    assert [(row["build_id"], row["token_id"], row["device_id"]) for row in rows(db)] == [
        (build_id, enrollment["token_id"], None)
    ] * 3


def test_new_phone_gets_the_build_offered_to_all_devices(bucket: Bucket, url: str):
    promoted(1)
    promoted(2, percent=99)
    answer = call("GET", LATEST[0], query={"token": download_token()})
    assert httpx.get(answer.headers["location"]).content == sample("agent-1")


def test_invalid_credentials_cannot_download(bucket: Bucket, device: Device, db: Database):
    promoted(2)
    register = call("POST", "/v1/enroll-tokens", {"aliases": ["x"]}).json["items"][0]["token"]
    revoked, expired = download_token(), download_token()
    db.execute("UPDATE enrollment_tokens SET status = 'revoked' WHERE scope = 'apk_download'")
    expired = download_token()
    db.execute("UPDATE enrollment_tokens SET expires_at = now() WHERE status = 'active' AND scope = 'apk_download'")
    for token in ("nobody", register, revoked, expired):
        call("GET", LATEST[0], token=token).problem(401)
        call("GET", LATEST[0], query={"token": token}).problem(401)
        fetch(token).problem(401)
    # A device's token must not be put into a URL.
    call("GET", LATEST[0], query={"token": device.token}).problem(401)
    call("GET", LATEST[0]).problem(403)
    call("DELETE", f"/v1/devices/{device.id}")
    assert fetch(device.token).problem(410)["reason"] == "device_deleted"
    assert rows(db) == []


def test_device_token_is_accepted_in_either_header(bucket: Bucket, device: Device, db: Database):
    promoted(2)
    assert call("GET", LATEST[0], token=device.token).status == 302
    assert rows(db)[0]["device_id"] == device.id


def test_download_counts_as_the_first_authenticated_call(bucket: Bucket, device: Device, db: Database):
    promoted(2)
    fetch(device.token)
    [row] = db.execute("SELECT confirmed_at FROM devices")
    assert row["confirmed_at"] is not None


def test_download_without_a_build_returns_404(bucket: Bucket, device: Device, db: Database):
    published(2)
    assert "No release of com.nexmdm" in fetch(device.token).problem(404)["detail"]
    assert rows(db) == []


def test_download_marks_its_installation_as_downloading(bucket: Bucket, device: Device, db: Database):
    build_id = promoted(2)
    act(build_id, "rollout", staged_rollout_percent=100, install=True)
    [row] = db.execute("SELECT id FROM apk_installations")
    path = f"/v1/apk/download/{build_id}"
    for nothing in ("x", "", "-1", str(row["id"] + 1), "9" * 30):
        assert fetch(device.token, path, installation_id=nothing).status == 302
    other = Device(*enroll("other"))
    fetch(other.token, path, installation_id=row["id"])
    assert db.execute("SELECT status FROM apk_installations") == [{"status": "pending"}]
    fetch(device.token, path, installation_id=row["id"])
    assert db.execute("SELECT status FROM apk_installations") == [{"status": "downloading"}]
    statistics = call("GET", f"/v1/apk/builds/{build_id}").json["statistics"]
    assert (statistics["issued"], statistics["downloading"]) == (7, 1)


@pytest.mark.parametrize(
    ("query", "source"), [({}, "manual"), ({"source": "manual"}, "manual"), ({"source": "ci"}, "ci")]
)
def test_operators_and_ci_download_on_record(bucket: Bucket, db: Database, query: dict, source: str):
    build_id = published(2)
    answer = call("GET", f"/v1/apk/builds/{build_id}/download", query=query)
    assert answer.status == 302
    assert answer.headers["location"] == answer.json["download_url"]
    assert httpx.get(answer.headers["location"]).content == sample("agent-2")
    [row] = rows(db)
    assert (row["source"], row["admin_user"], row["device_id"], row["token_id"]) == (source, OPERATOR, None, None)
    call("GET", f"/v1/apk/builds/{build_id}/download", query={"source": "enrollment"}).problem(422, "query.source")


def test_no_url_is_returned_without_a_stored_row(bucket: Bucket, device: Device, db: Database):
    build_id = promoted(2)
    db.execute("ALTER TABLE apk_download_events ADD CONSTRAINT broken CHECK (false) NOT VALID")
    answers = [fetch(device.token), call("GET", f"/v1/apk/builds/{build_id}/download")]
    assert [answer.status for answer in answers] == [500, 500]
    assert not any("location" in answer.headers or "X-Amz" in answer.text for answer in answers)


def test_every_download_row_names_exactly_one_caller(bucket: Bucket, device: Device, db: Database):
    from psycopg2.errors import CheckViolation

    build_id = published(2)
    insert = (
        "INSERT INTO apk_download_events (build_id, source, device_id, admin_user) VALUES (%(b)s, 'ci', %(d)s, %(a)s)"
    )
    for device_id, admin in ((None, None), (device.id, "me")):
        with pytest.raises(CheckViolation):
            db.execute(insert, {"b": build_id, "d": device_id, "a": admin})


def test_log_contains_no_download_url_and_no_token(
    bucket: Bucket, device: Device, caplog: pytest.LogCaptureFixture, capsys
):
    build_id = promoted(2)
    token = download_token()
    caplog.clear()
    answers = [fetch(device.token), call("GET", LATEST[0], query={"token": token})]
    answers.append(call("GET", f"/v1/apk/builds/{build_id}/download"))
    records = [record for record in caplog.records if record.name == "nexmdm"]
    assert [record.entity for record in records] == ["apk_download_events"] * 3
    said = capsys.readouterr().out + str([vars(record) for record in records])
    for secret in (token, device.token, "X-Amz-Signature", "secret-of-the-test"):
        assert secret not in said
    assert all(answer.status == 302 for answer in answers)


# --- the update manifest


def ask(token: str, **query: object) -> Answer:
    query = {"device_id": "me", "current_version_code": 1, "package_name": "com.nexmdm", **query}
    return call("GET", "/v1/agent/update", query=query, token=token)


def test_update_manifest_has_the_fields_of_the_agent(bucket: Bucket, device: Device, db: Database):
    build_id = published(2, notes="Faster.", must_install=True, wifi_only=False)
    act(build_id, "promote")
    content = sample("agent-2")
    answer = ask(device.token)
    assert answer.json == {
        "build_id": build_id,
        "version_code": 2,
        "version_name": "2.0",
        "package_name": "com.nexmdm",
        "download_url": f"https://api.test/v1/apk/download/{build_id}",
        "sha256": sha256(content).hexdigest(),
        "signer_fingerprint": answer.json["signer_fingerprint"],
        "file_size": len(content),
        "wifi_only": False,
        "must_install": True,
        "staged_rollout_percent": 100,
        "release_notes": "Faster.",
    }
    assert rows(db) == []
    followed = call("GET", urlsplit(answer.json["download_url"]).path, headers={"X-Device-Token": device.token})
    assert followed.status == 302


def test_manifest_url_comes_from_the_gateway_or_the_setting_and_not_from_a_header(
    bucket: Bucket, device: Device, monkeypatch: pytest.MonkeyPatch
):
    build_id = promoted(2)
    query = {"device_id": "me", "current_version_code": "1", "package_name": "com.nexmdm"}
    handler, sent = event("GET", "/v1/agent/update", query=query, token=device.token)
    sent["headers"] |= {"host": "evil.example", "x-forwarded-proto": "http", "x-forwarded-host": "evil.example"}
    sent["requestContext"]["domainName"] = "mdm.example.com"
    told = json.loads(handler(sent, CONTEXT)["body"])["download_url"]
    assert told == f"https://mdm.example.com/v1/apk/download/{build_id}"

    monkeypatch.setenv("PUBLIC_URL", "https://mdm.example.org")
    settings.load.cache_clear()
    told = json.loads(handler(sent, CONTEXT)["body"])["download_url"]
    assert told == f"https://mdm.example.org/v1/apk/download/{build_id}"


def test_manifest_returns_304_when_no_build_is_newer(bucket: Bucket, device: Device):
    assert ask(device.token).status == 304
    promoted(2, percent=0)
    assert ask(device.token).status == 304
    act(int(call("GET", "/v1/apk/builds").json["items"][0]["build_id"]), "rollout", staged_rollout_percent=100)
    assert ask(device.token).status == 200
    for have in (2, 3):
        answer = ask(device.token, current_version_code=have)
        assert (answer.status, answer.text) == (304, "")


def test_only_devices_may_request_the_manifest(bucket: Bucket, device: Device):
    ask("nobody").problem(401)
    ask(download_token()).problem(401)
    call("GET", "/v1/agent/update").problem(403)
    ask(device.token, current_version_code=-1).problem(422, "query.current_version_code")
    call("DELETE", f"/v1/devices/{device.id}")
    ask(device.token).problem(410)
