"""Enrollment of a phone, as a QR code on the screen and as a command line for adb."""

import io
import json
import os

import segno
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nexmdm_cli import qr
from nexmdm_cli.console.problems import problem

LONGEST = 2000


async def agent(request: Request) -> Response:
    """{server, token, alias} -> {svg, adb}: the code that the agent scans, and the same as an adb command line."""
    told = await _told(request, "server", "token", "alias")
    if isinstance(told, Response):
        return told
    return JSONResponse({"svg": _svg(qr.enrollment(**told)), "adb": qr.adb_line(**told, hmac_keys={})})


async def device_owner(request: Request) -> Response:
    """{server, token, signer_fingerprint} -> {svg}: the code that a factory-reset phone scans on its welcome screen."""
    told = await _told(request, "server", "token", "signer_fingerprint")
    if isinstance(told, Response):
        return told
    component = os.environ.get("AGENT_ADMIN_COMPONENT") or qr.ADMIN_COMPONENT
    url = qr.download_url(told["server"], told["token"], component.partition("/")[0])
    try:
        return JSONResponse(
            {"svg": _svg(qr.device_owner(qr.Agent(component, url, told["signer_fingerprint"]), wifi={}))}
        )
    except ValueError:
        return problem(422, "Invalid field", "signer_fingerprint: is not hex.")


async def _told(request: Request, *names: str) -> dict[str, str] | Response:
    try:
        body = json.loads(await request.body())
        told = {name: body[name] for name in names}
    except (ValueError, TypeError, KeyError, RecursionError):
        return problem(422, "Invalid field", f"Send a JSON object with {', '.join(names)}.")
    if not all(isinstance(value, str) for value in told.values()) or sum(map(len, told.values())) > LONGEST / 2:
        return problem(422, "Invalid field", f"The texts of a code may have {LONGEST // 2} characters in total.")
    return told


def _svg(content: str) -> str:
    """Dark on white in both themes, with the quiet zone that scanners need."""
    image = io.BytesIO()
    segno.make_qr(content, error="m").save(image, kind="svg", scale=5, border=4, light="#fff", svgclass=None)
    return image.getvalue().decode()
