"""The whole path: a heartbeat over HTTP through the local gateway, beside a function that does nothing behind it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from bench import load
from bench.figures import Figure, at_most
from bench.heartbeats import Devices, at_of
from bench.pairs import interleaved
from bench.stage import Stage
from local.postgres.embedded import ROOT
from local.template import TEMPLATE

NOOP = """
  NoopFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: bench.noop.handler
      Events: {Post: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: POST, Path: /bench/noop,
        Auth: {Authorizer: NONE}}}}

"""


def measure(stage: Stage) -> list[Figure]:
    stage.durable(False)  # the no-op waits for no disk either
    with stage.copy("through_the_gateway") as url, _gateway(url) as address, httpx.Client(base_url=address) as client:
        devices = Devices(0)

        def prepare(_: int) -> dict[str, Callable[[], object]]:
            token, report = devices.next()
            body, headers = load.body(at_of(report)), {"Authorization": f"Bearer {token}"}
            return {
                "noop": lambda: client.post("/bench/noop", json=body, headers=headers).raise_for_status(),
                "heartbeat": lambda: client.post("/v1/heartbeat", json=body, headers=headers).raise_for_status(),
            }

        took = interleaved(stage.sizes.requests, prepare)
    stage.durable(True)
    what = "heartbeat over HTTP through the local gateway: p50"
    return [at_most(1.6, what, "a no-op handler through it", median(took["noop"]), median(took["heartbeat"]), "ms")]


@contextmanager
def _gateway(url: str) -> Iterator[str]:
    with TemporaryDirectory(prefix="nexmdm-bench-gateway-") as folder:
        made = Path(folder) / "template.yaml"
        made.write_text(TEMPLATE.read_text().replace("\nResources:\n", f"\nResources:\n{NOOP}", 1))
        command = [sys.executable, "-m", "local.gateway", "--port", "0", "--template", str(made)]
        command += ["--environments", "1", "--log", os.devnull, "--until-stdin-closes"]
        environment = {**os.environ, "DATABASE_URL": url}
        process = subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().rpartition(" ")[2].strip()
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()
