"""A console started as an operator starts it, in front of a real gateway whose function echoes its event."""

import contextlib
import functools
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.local.processes import listening

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "a/secret+of=the+test"}

HANDLER = """
    import json, time

    def handler(event, context):
        query = event.get("queryStringParameters", {})
        if "redirect" in query:
            return {"statusCode": 302, "headers": {"Location": "https://elsewhere.invalid/"}, "body": "{}"}
        headers = {
            "Content-Type": "application/json", "Retry-After": "7", "Idempotency-Replayed": "true",
            "Access-Control-Allow-Origin": "*", "X-Of-The-Api": "1",
        }
        return {"statusCode": 200, "headers": headers, "cookies": ["a=1"], "body": json.dumps(event)}
"""

TEMPLATE = """
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties: {Auth: {EnableIamAuthorizer: true, DefaultAuthorizer: AWS_IAM}}
  EchoFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: of.the.echo.handler
      Timeout: 20
      Events:
        A: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: ANY, Path: "/{everything+}"}}
"""

GATEWAY = """
    import asyncio, pathlib
    from dataclasses import replace
    from local import template
    from local.gateway import application as gateway
    from local.gateway import server

    declared = template.load(pathlib.Path("template.yaml"))
    routes = [replace(r, function=replace(r.function, handler="echo_of_the_test.handler")) for r in declared.routes]

    async def main():
        application = gateway.Gateway(replace(declared, routes=routes), gateway.key_pair(), limit=2)
        await server.serve(application, server.listen("127.0.0.1", 0, "choose another"))

    asyncio.run(main())
"""

CONSOLE = """
    import sys
    from botocore.credentials import Credentials
    from nexmdm_cli.console import serve
    from nexmdm_cli.signing import Signed

    auth = Signed(Credentials(sys.argv[2], sys.argv[3]), "eu-west-1")
    serve(sys.argv[1], auth, open_browser=sys.argv[4] == "open")
"""


@contextlib.contextmanager
def echoing(folder: Path) -> Iterator[str]:
    """The URL of a gateway that requires signatures by KEYS and returns the event that its function received."""
    (folder / "template.yaml").write_text(TEMPLATE)
    (folder / "echo_of_the_test.py").write_text(textwrap.dedent(HANDLER))
    environment = {**os.environ, **KEYS, "PYTHONPATH": str(folder)}
    with listening("-c", textwrap.dedent(GATEWAY), cwd=folder, env=environment) as (_, url):
        yield url


ADDRESS = r"console: (http://127\.0\.0\.1:\d+)/start#code=([\w-]{43})\nagain: file://(/\S+)\n"


def exchanged(url: str, code: str) -> httpx.Response:
    """Exchange the code for a token, which is the first request of the page."""
    return httpx.post(f"{url}/console/token", headers={"X-Console-Code": code}, timeout=20)


class Console:
    """url: where it listens. code: the code in its URL. file: the page that leads there. process: that of `serve`."""

    def __init__(self, process: subprocess.Popen) -> None:
        lines = process.stdout.readline() + process.stdout.readline()
        found = re.fullmatch(ADDRESS, lines)
        assert found, lines
        self.process, self.url, self.code, self.file = process, found[1], found[2], Path(found[3])

    @functools.cached_property
    def token(self) -> str:
        """The token of this start."""
        return exchanged(self.url, self.code_of_file()).json()["token"]

    def code_of_file(self) -> str:
        return re.search(r"#code=([\w-]{43})\"", self.file.read_text())[1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @contextlib.contextmanager
    def client(self, **headers: str) -> Iterator[httpx.Client]:
        """A client that sends what the page sends, with its token unless the headers override it."""
        with httpx.Client(base_url=self.url, headers={"X-Console-Token": self.token, **headers}, timeout=20) as client:
            yield client


@contextlib.contextmanager
def console(api_url: str, *, open_browser: bool = False) -> Iterator[Console]:
    """Run `serve` in a process of its own."""
    browser = "open" if open_browser else "leave"
    arguments = [sys.executable, "-c", textwrap.dedent(CONSOLE), api_url, *KEYS.values(), browser]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Console(process)
    finally:
        process.kill()
        process.communicate()
