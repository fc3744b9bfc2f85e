"""Steps that every suite about builds needs: declare a committed sample, upload it, complete it."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from tests.support.api import Answer, call

SAMPLES = Path(__file__).resolve().parents[1] / "apks"
SIGNERS: dict[str, str] = json.loads((SAMPLES / "fingerprints.json").read_text())
AGENT = "com.nexmdm"


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.apk").read_bytes()


def declaration(content: bytes, version_code: int = 2, **changes: Any) -> dict[str, Any]:
    """A declaration of an APK of the agent, correct unless `changes` say otherwise."""
    return {
        "package_name": AGENT,
        "version_name": f"{version_code}.0",
        "version_code": version_code,
        "build_type": "release",
        "file_size": len(content),
        "sha256": sha256(content).hexdigest(),
        "signer_fingerprint": SIGNERS["rsa"],
        **changes,
    }


def declare(content: bytes, version_code: int = 2, **changes: Any) -> Answer:
    return call("POST", "/v1/apk/builds", declaration(content, version_code, **changes))


def put(answer: Answer, content: bytes) -> None:
    declared = answer.json
    sent = httpx.put(declared["upload_url"], content=content, headers=declared["upload_headers"])
    assert sent.status_code == 200, sent.text


def complete(build_id: int) -> Answer:
    return call("POST", f"/v1/apk/builds/{build_id}/complete")


def offer(content: bytes, version_code: int = 2, **changes: Any) -> Answer:
    """Declare, upload and complete a build; return the response of the last call."""
    declared = declare(content, version_code, **changes)
    assert declared.status == 201, declared.text
    put(declared, content)
    return complete(declared.json["build_id"])


def pin(package_name: str = AGENT, *keys: str) -> None:
    """Pin the samples' signer, so that a completed build is published."""
    fingerprints = [SIGNERS[key] for key in keys or ("rsa",)]
    answer = call("PUT", f"/v1/apk/packages/{package_name}/signers", {"fingerprints": fingerprints})
    assert answer.status == 200, answer.text


def published(version_code: int = 2, **changes: Any) -> int:
    """The id of a published release of the agent, version 1, 2 or 3."""
    pin()
    answer = offer(sample(f"agent-{version_code}"), version_code, **changes)
    assert answer.status == 200, answer.text
    return answer.json["build_id"]


def act(build_id: int, what: str, **body: Any) -> Answer:
    return call("POST", f"/v1/apk/builds/{build_id}/{what}", body)


def promoted(version_code: int = 2, percent: int = 100) -> int:
    build_id = published(version_code)
    answer = act(build_id, "promote", staged_rollout_percent=percent)
    assert answer.status == 200, answer.text
    return build_id
