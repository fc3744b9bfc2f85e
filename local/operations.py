"""A simulated operator, who sends commands to one or several devices and repeats requests without a response."""

import asyncio
import random
import uuid
from collections import Counter

import httpx
from nexmdm_cli.api import Body
from nexmdm_cli.resources import Params

from local.fleet.fleet import Fleet
from local.operator_api import Operator

TTL_SECONDS = 60
ACTIONS: list[tuple[str, Params]] = [
    ("ping", {}),
    ("wake", {}),
    ("ring", {"duration": 5}),
    ("launch_app", {"package_name": "io.unitynodes.unityapp"}),
    ("restart_app", {}),
    ("set_dnd", {"enable": True}),
]
MANY = 5


class Operations:
    """every: seconds between commands. answers: the number of responses by status."""

    def __init__(self, operator: Operator, fleet: Fleet, every: float) -> None:
        self._operator, self._fleet, self._every = operator, fleet, every
        self._rng = random.Random()
        self.request_ids: list[str] = []
        self.answers: Counter[int] = Counter()
        self.unreachable = 0

    @property
    def server_errors(self) -> int:
        return sum(count for status, count in self.answers.items() if status >= 500)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every * self._rng.uniform(0.5, 1.5))
            device_ids = self._fleet.device_ids
            if device_ids:
                await self._command(device_ids)

    async def _command(self, device_ids: list[str]) -> None:
        action, params = self._rng.choice(ACTIONS)
        request_id = f"run-{uuid.uuid4().hex[:12]}"
        self.request_ids.append(request_id)
        body = {"action": action, "params": params, "ttl_seconds": TTL_SECONDS, "request_id": request_id}
        if self._rng.random() < 0.1:
            some = self._rng.sample(device_ids, min(MANY, len(device_ids)))
            await self._until_answered("/v1/commands", {**body, "device_ids": some})
        else:
            await self._until_answered(f"/v1/devices/{self._rng.choice(device_ids)}/commands", body)

    async def _until_answered(self, path: str, body: Body) -> None:
        """Repeat the request with the same request_id, which makes that safe."""
        while True:
            try:
                await self._operator.call("POST", path, body)
                self.answers[202] += 1
                return
            except httpx.HTTPStatusError as error:
                self.answers[error.response.status_code] += 1
                return
            except httpx.TransportError:
                self.unreachable += 1
                await asyncio.sleep(1)
