"""Record each AWS API call that a function signs, as a line `function action` in the file that AWS_CALLS names.

botocore's signer signs everything that a function asks of AWS: requests, presigned URLs and database logins. So
`add_auth` is the one place to record. In a built function's process, Python finds this module by its name on
PYTHONPATH. In the suite it is a plugin (pytest -p tests.support.aws_calls.sitecustomize), and the function is the
one whose handler is on the stack.
"""

import os
import re
import sys
from importlib.machinery import PathFinder
from typing import Any
from urllib.parse import parse_qs, urlsplit

FILE = os.environ.get("AWS_CALLS")
_HANDLER = re.compile(r"/functions/(\w+)/\w+\.py$")


def action(service: str, method: str, url: str, headers: Any, body: Any) -> str:
    """The action by which IAM policies name the request."""
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if service == "rds-db":
        return f"rds-db:connect/{query['DBUser'][0]}"
    if target := headers.get("X-Amz-Target"):
        return f"{service}:{target.rpartition('.')[2]}"
    if service == "s3":
        if method == "GET":
            return "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject"
        if "uploads" in query or "uploadId" in query:
            # A multipart upload is created, filled and completed under the right to put an object.
            return "s3:AbortMultipartUpload" if method == "DELETE" else "s3:PutObject"
        return {"PUT": "s3:PutObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject"}.get(method, f"s3:{method}")
    text = body.decode() if isinstance(body, bytes) else body
    named = text.get("Action") if isinstance(text, dict) else parse_qs(text or "").get("Action", ["?"])[0]
    return f"{service}:{named}"


def function() -> str | None:
    """The function that makes the call; None when the test itself makes it."""
    if name := os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        return name
    frame = sys._getframe()
    while frame:
        if found := _HANDLER.search(frame.f_code.co_filename):
            return "".join(word.capitalize() for word in found[1].split("_")) + "Function"
        frame = frame.f_back
    return None


def _listen(auth: Any) -> None:
    """Record the calls of botocore's signers, and of awscrt's where it is installed."""
    signers = {auth.SigV4Auth, *(each for each in auth.AUTH_TYPE_MAPS.values() if "SigV4" in each.__name__)}
    for signer in {base for each in signers for base in each.__mro__ if "add_auth" in vars(base)}:
        if "SigV4" in signer.__name__:
            signer.add_auth = _recorded(signer.add_auth)


def _recorded(add_auth: Any) -> Any:
    def record(self: Any, request: Any) -> None:
        if whose := function():
            what = action(self._service_name, request.method, request.url, request.headers, request.data)
            with open(FILE, "a") as file:
                file.write(f"{whose} {what}\n")
        add_auth(self, request)

    return record


class _WhenLoaded(PathFinder):
    """Find botocore.auth as usual and start recording once it is loaded, which is when a function needs it."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "botocore.auth":
            return None
        spec = super().find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            _listen(module)

        spec.loader.exec_module = exec_module
        return spec


if FILE:
    if "botocore.auth" in sys.modules:
        _listen(sys.modules["botocore.auth"])
    else:
        sys.meta_path.insert(0, _WhenLoaded)
