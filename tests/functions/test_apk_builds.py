"""Publishing a build: declaring it, uploading it to a restricted URL, verifying it, and publishing or refusing it."""

from base64 import b64encode
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from nexmdm.builds import publishing
from nexmdm.runtime import settings
from nexmdm.runtime.database import Database

from functions.apk_builds import apk_file, apk_signature
from tests.support.api import OPERATOR, call, enroll
from tests.support.builds import (
    SIGNERS,
    act,
    complete,
    declaration,
    declare,
    offer,
    pin,
    promoted,
    published,
    put,
    sample,
)
from tests.support.s3 import BUCKET, Bucket


def test_build_is_declared_uploaded_and_published(bucket: Bucket, db: Database):
    pin()
    content = sample("agent-2")
    declared = declare(content, ci_run_id="run-77", git_sha="0a1b2c3", notes="Faster.")
    assert (declared.status, declared.json["state"]) == (201, "declared")
    put(declared, content)
    build = complete(declared.json["build_id"])

    assert build.status == 200, build.text
    assert build.json["state"] == "published"
    assert (build.json["source"], build.json["uploaded_by"]) == ("ci", OPERATOR)
    assert (build.json["ci_run_id"], build.json["git_sha"], build.json["notes"]) == ("run-77", "0a1b2c3", "Faster.")
    assert build.json["storage_url"] == f"s3://{BUCKET}/com.nexmdm/release/2/{sha256(content).hexdigest()}.apk"
    assert build.json["statistics"] == dict.fromkeys(
        ("issued", "pending", "downloading", "installing", "completed", "failed", "unknown", "replaced"), 0
    )
    [row] = db.execute("SELECT object_version, published_at, is_current FROM apk_versions")
    assert [row["object_version"]] == bucket.versions()
    assert row["published_at"] is not None
    assert row["is_current"] is False


def test_upload_url_is_bound_to_size_and_checksum_and_expires(bucket: Bucket):
    content = sample("agent-2")
    answer = declare(content)
    address = urlsplit(answer.json["upload_url"])
    query = parse_qs(address.query)

    assert query["X-Amz-SignedHeaders"] == ["content-length;host;x-amz-checksum-sha256"]
    assert query["X-Amz-Expires"] == ["900"] == [str(answer.json["upload_expires_in"])]
    assert answer.json["upload_headers"] == {
        "Content-Length": str(len(content)),
        "x-amz-checksum-sha256": b64encode(sha256(content).digest()).decode(),
    }
    assert address.path == f"/{BUCKET}/com.nexmdm/release/2/{sha256(content).hexdigest()}.apk"
    assert answer.headers["cache-control"] == "no-store"


def test_repeated_declaration_returns_the_same_build(bucket: Bucket, db: Database):
    content = sample("agent-2")
    first, again = declare(content), declare(content, signer_fingerprint=colons(SIGNERS["rsa"]), notes="other words")
    assert (first.status, again.status) == (201, 200)
    assert again.json["build_id"] == first.json["build_id"]
    assert again.json["notes"] is None
    put(again, content)
    one, two = complete(first.json["build_id"]), complete(first.json["build_id"])
    assert (one.status, two.status) == (200, 200)
    assert two.json == one.json

    published_again = declare(content)
    assert published_again.status == 200
    assert published_again.json["upload_url"] is None
    assert db.execute("SELECT count(*) AS n FROM apk_versions") == [{"n": 1}]


def colons(fingerprint: str) -> str:
    return ":".join(fingerprint[n : n + 2] for n in range(0, 64, 2)).upper()


@pytest.mark.parametrize("state", ["declared", "published"])
def test_another_checksum_for_the_same_version_returns_409(bucket: Bucket, state: str):
    if state == "published":
        published(2)
    else:
        declare(sample("agent-2"))
    document = declare(sample("agent-2-v2")).problem(409)
    assert document["detail"].startswith("sha256: com.nexmdm 2 (release) is declared with ")
    assert sha256(sample("agent-2")).hexdigest() in document["detail"]


def test_debug_build_has_its_own_name(bucket: Bucket):
    published(2)
    answer = offer(sample("agent-2-debug"), build_type="debug", version_name="2.0-debug")
    assert answer.json["state"] == "published", answer.text


def test_withdrawn_declaration_frees_its_name(bucket: Bucket):
    build_id = declare(sample("agent-2")).json["build_id"]
    for _ in range(2):
        assert call("DELETE", f"/v1/apk/builds/{build_id}").status == 204
    assert offer(sample("agent-2-v2")).status == 200
    complete(build_id).problem(409)
    call("DELETE", "/v1/apk/builds/999").problem(404)


def test_published_build_cannot_be_withdrawn(bucket: Bucket):
    call("DELETE", f"/v1/apk/builds/{published(2)}").problem(409)


def test_declaration_of_a_build_that_is_too_large_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APK_MAX_BYTES", "1000")
    settings.load.cache_clear()
    document = declare(sample("agent-2")).problem(422, "$.file_size")
    assert "APK_MAX_BYTES allows 1000" in document["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("package_name", "nexmdm"),
        ("package_name", "com.nexmdm/../x"),
        ("package_name", "com.nexmdm\n"),
        ("version_name", ""),
        ("version_code", 0),
        ("version_code", 2**31),
        ("build_type", "nightly"),
        ("file_size", 0),
        ("sha256", "abc"),
        ("sha256", "0" * 64 + "\n"),
        ("signer_fingerprint", "f" * 63),
        ("notes", "x" * 10_001),
        ("source", "enrollment"),
    ],
)
def test_invalid_declaration_is_refused_with_its_field(bucket: Bucket, field: str, value: object):
    declare(sample("agent-2"), **{field: value}).problem(422, f"$.{field}")


def test_unknown_field_of_a_declaration_is_refused(bucket: Bucket):
    declare(sample("agent-2"), sha265="").problem(422)


# --- refused builds


REFUSED = {
    "one flipped byte": ("agent-2", {}, "sha256", "expected the declared "),
    "shorter": ("agent-2", {"file_size": 8000}, "file_size", "expected the declared 8000 bytes, found more"),
    "longer": ("agent-2", {"file_size": 9000}, "file_size", "expected the declared 9000 bytes, found 8401"),
    "v1 only": ("agent-2-v1", {}, "signature", "expected APK Signature Scheme v2 or v3, found"),
    "two signers": ("agent-2-two-signers", {}, "signature", "expected one signer in v2, found 2"),
    "a rotated key": ("agent-2-rotated", {}, "signature", "found proof of rotation"),
    "another signer": ("agent-2-other-key", {}, "signer_fingerprint", f"found {SIGNERS['other']}"),
    "another package": ("player-190", {}, "package_name", "the declared com.nexmdm, found io.unitynodes.unityapp"),
    "another version": ("agent-3", {}, "version_code", "expected the declared 2, found 3 in the manifest"),
    "another name": ("agent-2", {"version_name": "2.1"}, "version_name", "expected the declared 2.1, found 2.0"),
    "debuggable": (
        "agent-2-debug",
        {"version_name": "2.0-debug"},
        "build_type",
        "expected the declared release, found debug in the manifest (android:debuggable=true)",
    ),
    "not debuggable": ("agent-2", {"build_type": "debug"}, "build_type", "(android:debuggable=false)"),
    "64 bits": ("agent-4-major", {"version_code": 4}, "manifest", "found android:versionCodeMajor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_the_expected_and_the_found_value(bucket: Bucket, db: Database, case: str):
    name, changes, what, says = REFUSED[case]
    content = sample(name)
    declared = declare(content, **changes)
    sent = content[:-1] + bytes([content[-1] ^ 1]) if case == "one flipped byte" else content
    # moto accepts any upload, so the bytes arrive as they would on an S3 that does not check; the server checks itself.
    httpx.put(declared.json["upload_url"], content=sent).raise_for_status()

    document = complete(declared.json["build_id"]).problem(422)
    assert document["what"] == what
    assert says in document["detail"]
    assert document["expected"] in document["detail"]
    assert document["found"] in document["detail"]
    assert db.execute("SELECT count(*) AS n FROM apk_versions WHERE state = 'published'") == [{"n": 0}]


def test_refused_bytes_stay_refused_and_free_their_name(bucket: Bucket):
    content = sample("agent-2-other-key")
    refused = offer(content)
    document = refused.problem(422)
    build_id = declare(content).json["build_id"]
    [build] = call("GET", "/v1/apk/builds", query={"state": "refused"}).json["items"]
    assert build["refusal"] == document["detail"]
    assert build["build_id"] != build_id

    # The bytes are not read again.
    bucket.client.delete_object(Bucket=BUCKET, Key=build["storage_url"].removeprefix(f"s3://{BUCKET}/"))
    again = complete(build["build_id"]).problem(422)
    assert {**again, "detail": None} == {**document, "detail": None}
    assert call("DELETE", f"/v1/apk/builds/{build_id}").status == 204
    assert published(2)


def test_wrong_bytes_can_be_uploaded_again(bucket: Bucket):
    content = sample("agent-2")
    declared = declare(content)
    build_id = declared.json["build_id"]
    assert "Nothing was uploaded yet" in complete(build_id).problem(409)["detail"]
    httpx.put(declared.json["upload_url"], content=b"not it").raise_for_status()
    complete(build_id).problem(422)
    put(declared, content)
    assert complete(build_id).json["state"] == "awaiting_signer"


def test_bytes_with_the_declared_size_and_signer_but_another_checksum_are_refused(bucket: Bucket):
    content = sample("agent-2")
    declared = declare(content, sha256="0" * 64)
    put(declared, content)
    document = complete(declared.json["build_id"]).problem(422)
    assert (document["what"], document["found"]) == ("sha256", sha256(content).hexdigest())


AUDIT = "SELECT action, object, before, after FROM operator_events ORDER BY event_id"


def test_first_build_of_a_package_awaits_a_pinned_signer(bucket: Bucket, db: Database):
    """CI may publish builds but may not decide who signs them."""
    first = offer(sample("agent-1"), 1).json
    assert (first["state"], first["published_at"]) == ("awaiting_signer", None)
    assert complete(first["build_id"]).json["state"] == "awaiting_signer"
    call("GET", f"/v1/apk/builds/{first['build_id']}/download").problem(409)
    assert declare(sample("agent-1"), 1).json["build_id"] == first["build_id"]
    declare(sample("agent-2"), 1).problem(409)
    assert call("GET", "/v1/apk/packages/com.nexmdm/signers").json == {"items": []}

    promoted = act(first["build_id"], "promote").json
    assert (promoted["state"], promoted["is_current"]) == ("published", True)
    [signer] = call("GET", "/v1/apk/packages/com.nexmdm/signers").json["items"]
    assert (signer["fingerprint"], signer["pinned_by"]) == (SIGNERS["rsa"], OPERATOR)
    event = db.execute(AUDIT)[-1]
    assert (event["action"], event["object"]) == ("build.promote", f"build:{first['build_id']}")
    assert event["after"]["pinned_signer"] == SIGNERS["rsa"]
    assert offer(sample("agent-2")).json["state"] == "published"


def test_pinning_a_signer_decides_all_awaiting_builds(bucket: Bucket, db: Database):
    good = offer(sample("agent-1"), 1).json["build_id"]
    other = offer(sample("agent-2-other-key"), signer_fingerprint=SIGNERS["other"]).json["build_id"]
    pin()
    assert call("GET", f"/v1/apk/builds/{good}").json["state"] == "published"
    refused = call("GET", f"/v1/apk/builds/{other}").json
    assert refused["state"] == "refused"
    assert refused["refusal"].startswith("signer: expected one of the package's pinned signers")
    document = complete(other).problem(422)
    assert (document["what"], document["found"]) == ("signer", SIGNERS["other"])
    event = db.execute(AUDIT)[-1]
    assert (event["action"], event["object"]) == ("package.signers", "package:com.nexmdm")
    assert (event["after"]["published"], event["after"]["refused"]) == ([good], [other])


def test_promoting_an_awaiting_build_refuses_that_of_another_signer(bucket: Bucket):
    offer(sample("agent-1"), 1)
    other = offer(sample("agent-2-other-key"), signer_fingerprint=SIGNERS["other"]).json["build_id"]
    assert act(other, "promote").status == 200
    states = {build["version_code"]: build["state"] for build in call("GET", "/v1/apk/builds").json["items"]}
    assert states == {1: "refused", 2: "published"}


def test_only_builds_of_the_pinned_signer_are_published(bucket: Bucket):
    published(1)
    content = sample("agent-2-other-key")
    document = offer(content, signer_fingerprint=SIGNERS["other"]).problem(422)
    assert document["what"] == "signer"
    assert document["found"] == SIGNERS["other"]
    assert SIGNERS["rsa"] in document["expected"]

    signers = "/v1/apk/packages/com.nexmdm/signers"
    assert [signer["fingerprint"] for signer in call("GET", signers).json["items"]] == [SIGNERS["rsa"]]
    changed = call("PUT", signers, {"fingerprints": [SIGNERS["rsa"], colons(SIGNERS["other"])]})
    assert {signer["fingerprint"] for signer in changed.json["items"]} == {SIGNERS["rsa"], SIGNERS["other"]}
    assert offer(content, signer_fingerprint=SIGNERS["other"]).status == 200


def test_debug_build_pins_no_signer(bucket: Bucket):
    offer(sample("agent-2-debug"), build_type="debug", version_name="2.0-debug")
    assert call("GET", "/v1/apk/packages/com.nexmdm/signers").json == {"items": []}


def test_invalid_pins_are_refused(bucket: Bucket):
    call("PUT", "/v1/apk/packages/com.nexmdm/signers", {"fingerprints": []}).problem(422, "$.fingerprints")
    call("PUT", "/v1/apk/packages/com.nexmdm/signers", {"fingerprints": ["x"]}).problem(422)
    call("PUT", "/v1/apk/packages/nexmdm/signers", {"fingerprints": [SIGNERS["ec"]]}).problem(422)


def test_version_below_the_current_one_is_refused(bucket: Bucket):
    promoted(3)
    document = offer(sample("agent-2")).problem(422)
    assert document["detail"] == "version_code: expected at least 3, that of the current build, found 2"


# --- published bytes


def test_later_upload_does_not_change_a_published_build(bucket: Bucket):
    pin()
    content = sample("agent-2")
    declared = declare(content)
    put(declared, content)
    build_id = complete(declared.json["build_id"]).json["build_id"]
    httpx.put(declared.json["upload_url"], content=b"swapped").raise_for_status()
    assert len(bucket.versions()) == 2

    answer = call("GET", f"/v1/apk/builds/{build_id}/download")
    assert httpx.get(answer.headers["location"]).content == content


def test_bucket_without_versioning_publishes_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    bucket.client.create_bucket(Bucket="plain", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    monkeypatch.setenv("APK_BUCKET", "plain")
    settings.load.cache_clear()
    content = sample("agent-2")
    assert offer(content).status == 500
    assert declare(content).json["state"] == "declared"


def test_unavailable_s3_returns_503_and_decides_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    from functions.apk_builds import storage

    pin()
    content = sample("agent-2")
    declared = declare(content)
    put(declared, content)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    settings.load.cache_clear()
    storage._client.cache_clear()
    document = complete(declared.json["build_id"])
    assert document.problem(503)["detail"] == "S3 does not respond. Try again."
    assert "retry-after" in document.headers
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.url)
    settings.load.cache_clear()
    assert complete(declared.json["build_id"]).json["state"] == "published"


# --- lists


def test_builds_are_listed_newest_first_in_pages(bucket: Bucket):
    ids = [published(1), published(2), promoted(3)]
    page = call("GET", "/v1/apk/builds", query={"limit": 2}).json
    assert [build["build_id"] for build in page["items"]] == [ids[2], ids[1]]
    rest = call("GET", "/v1/apk/builds", query={"limit": 2, "cursor": page["next_cursor"]}).json
    assert [build["build_id"] for build in rest["items"]] == [ids[0]]
    assert rest["next_cursor"] is None
    current = call("GET", "/v1/apk/builds", query={"current": "true", "package_name": "com.nexmdm"}).json
    assert [build["version_code"] for build in current["items"]] == [3]
    assert "object_version" not in current["items"][0]


@pytest.mark.parametrize("build_id", ["0", "999999999", "99999999999", "x", "-1", "1e3", "²"])
def test_invalid_build_id_returns_404(bucket: Bucket, build_id: str):
    call("GET", f"/v1/apk/builds/{build_id}").problem(404)
    act(build_id, "promote").problem(404)
    complete(build_id).problem(404)


def test_declared_build_can_be_neither_promoted_nor_downloaded(bucket: Bucket):
    build_id = call("POST", "/v1/apk/builds", declaration(sample("agent-2"))).json["build_id"]
    act(build_id, "promote").problem(409)
    call("GET", f"/v1/apk/builds/{build_id}/download").problem(409)


# --- warnings about a build before its rollout


def test_version_code_without_a_successor_needs_force(bucket: Bucket):
    content = sample("agent-2")
    document = declare(content, 2**31 - 1).problem(422, "$.version_code")
    assert "`force`" in document["detail"]
    assert declare(content, 2**31 - 1, force=True).status == 201
    assert declare(content, 2**31 - 2).status == 201


@pytest.mark.parametrize(
    ("name", "version_name", "says"),
    [
        ("odd/refname", "8.4.5", None),
        ("odd/refname", "8.4", "version_name: expected the declared 8.4, found 8.4.5 in the manifest"),
        ("odd/split", "8.4.5", "phones do not install it alone"),
        ("odd/testonly", "8.4.5", 'android:testOnly="true"'),
        ("odd/attrstart", "2.0", "attributes of 20 bytes that begin at 20"),
        ("odd/unicodepath", "1.9.0", "a Unicode path, which renames the entry"),
    ],
)
def test_odd_file_is_read_or_refused_with_its_reason(bucket: Bucket, name: str, version_name: str, says: str | None):
    content = sample(name)
    signer = apk_signature.verify(apk_file.parse(memoryview(content)))
    package = {"odd/attrstart": "com.nexmdm", "odd/unicodepath": "com.nexmdm"}.get(name, "com.example.odd")
    answer = offer(content, 7, package_name=package, version_name=version_name, signer_fingerprint=signer)
    if says is None:
        assert answer.json["version_name"] == "8.4.5"
        assert answer.json["state"] == "awaiting_signer"
    else:
        assert says in answer.problem(422)["detail"]


def test_devices_with_an_older_android_are_counted(bucket: Bucket, db: Database):
    """agent-2-v3 has no signature that Android before 9 (API 28) accepts; agent-2 none for Android before 7 (24)."""
    for number, sdk in enumerate((23, 27, 28, None)):
        device_id, _ = enroll(f"phone-{number}")
        db.execute("UPDATE devices SET sdk_int = %(sdk)s WHERE id = %(id)s", {"sdk": sdk, "id": device_id})
    build = call("GET", f"/v1/apk/builds/{published(1)}").json
    assert (build["min_sdk"], build["target_sdk"], build["shared_user_id"]) == (24, 33, None)
    assert build["warnings"] == ["1 enrolled device has an Android below API level 24 and cannot install this build."]
    newer = offer(sample("agent-2-v3")).json
    assert newer["min_sdk"] == 28
    assert newer["warnings"] == ["2 enrolled devices have an Android below API level 28 and cannot install this build."]
    assert "warnings" not in call("GET", "/v1/apk/builds").json["items"][0]


def test_shared_user_id_cannot_change(bucket: Bucket, db: Database):
    published(1)
    db.execute("UPDATE apk_versions SET shared_user_id = 'com.nexmdm.all'")
    document = offer(sample("agent-2")).problem(422)
    assert document["detail"] == ("sharedUserId: expected com.nexmdm.all, that of the earlier builds, found none")
    db.execute("UPDATE apk_versions SET min_sdk = NULL, shared_user_id = NULL")
    assert offer(sample("agent-3"), 3).json["state"] == "published"


def test_uncompleted_declaration_expires(bucket: Bucket, db: Database):
    old, young = (declare(sample(f"agent-{n}"), n).json["build_id"] for n in (1, 2))
    db.execute("UPDATE apk_versions SET uploaded_at = uploaded_at - interval '25 hours' WHERE id = %(id)s", {"id": old})
    assert publishing.expire(db) == 1
    states = [call("GET", f"/v1/apk/builds/{build_id}").json["state"] for build_id in (old, young)]
    assert states == ["withdrawn", "declared"]
    event = db.execute("SELECT actor, action, object FROM operator_events ORDER BY event_id DESC LIMIT 1")[0]
    assert event == {"actor": "system:cleanup", "action": "build.expire", "object": f"build:{old}"}
    assert declare(sample("agent-1"), 1).status == 201
    assert publishing.expire(db) == 0


def test_each_change_of_a_build_leaves_one_event(bucket: Bucket, db: Database):
    pin()
    build_id = published(1)
    for what in ("promote", "promote", "pause", "pause", "resume", "resume"):
        act(build_id, what)
    for percent in (10, 10):
        act(build_id, "rollout", staged_rollout_percent=percent)
    withdrawn = declare(sample("agent-2")).json["build_id"]
    for _ in range(2):
        call("DELETE", f"/v1/apk/builds/{withdrawn}")
    newer = published(3)
    act(newer, "promote")
    for _ in range(2):
        act(newer, "rollback", reason="it hangs")
    assert [event["action"].partition(".")[2] for event in db.execute(AUDIT)] == [
        *("signers", "declare", "complete", "promote", "pause", "resume", "rollout", "declare", "withdraw"),
        *("declare", "complete", "promote", "rollback"),
    ]
