"""An operator's API calls, signed with the key pair by botocore, as the CLI and AWS tools do."""

import json
from typing import Any

import httpx
from botocore.credentials import Credentials
from nexmdm_cli.signing import Signed

from local.gateway.signature import KeyPair

REGION = "eu-west-1"


def signed(keys: KeyPair, region: str = REGION) -> Signed:
    return Signed(Credentials(keys.key_id, keys.secret, keys.token), region)


class Operator:
    """An operator's calls over HTTP. Raises httpx.HTTPError if a call fails."""

    def __init__(self, http: httpx.AsyncClient, keys: KeyPair) -> None:
        self._http, self._auth = http, signed(keys)

    async def enrollment_tokens(self, aliases: list[str], seconds: int = 3600) -> dict[str, str]:
        """Create a single-use token for each alias: {alias: token}."""
        tokens: dict[str, str] = {}
        for start in range(0, len(aliases), 500):
            part = aliases[start : start + 500]
            answer = await self.call("POST", "/v1/enroll-tokens", {"aliases": part, "expires_in_sec": seconds})
            tokens |= {item["alias"]: item["token"] for item in answer["items"]}
        return tokens

    async def online(self) -> dict[str, bool]:
        """Whether each device is online according to the server, by device id."""
        found: dict[str, bool] = {}
        cursor = ""
        while True:
            page = await self.call("GET", f"/v1/devices?limit=200{cursor}")
            found |= {device["device_id"]: device["online"] for device in page["items"]}
            if not page.get("next_cursor"):
                return found
            cursor = f"&cursor={page['next_cursor']}"

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        content = json.dumps(body).encode() if body is not None else b""
        headers = {"Content-Type": "application/json"}
        answer = await self._http.request(method, path, content=content, headers=headers, auth=self._auth)
        answer.raise_for_status()
        return answer.json() if answer.content else None
