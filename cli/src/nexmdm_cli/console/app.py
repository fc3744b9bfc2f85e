"""The console's routes: the page and its assets without a token; the API and enrollment codes with the token."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from nexmdm_cli.console import codes
from nexmdm_cli.console.entry import PATH as START
from nexmdm_cli.console.entry import Entry
from nexmdm_cli.console.forwarding import METHODS, Forwarding
from nexmdm_cli.console.guard import Guard
from nexmdm_cli.console.problems import problem

CODE_HEADER = "x-console-code"
EXCHANGE = "/console/token"
ASSETS = Path(__file__).resolve().parent / "assets"
# Each is a view of the page, which reads its own URL.
PAGES = (
    "/",
    "/devices",
    "/devices/{id}",
    "/commands",
    "/commands/{id}",
    "/schedules",
    "/schedules/{id}",
    "/builds",
    "/builds/{id}",
    "/apps",
    "/groups",
    "/enroll",
    "/alerts",
    "/alerts/mutes",
    "/alerts/rules",
    "/events",
    "/api-reference",
)


def application(forwarding: Forwarding, entry: Entry, authority: str, token: str) -> Guard:
    async def page(_: Request) -> Response:
        return FileResponse(ASSETS / "index.html")

    async def about(_: Request) -> Response:
        return JSONResponse({"api_url": forwarding.api_url})

    async def exchange(request: Request) -> Response:
        code = request.headers.get(CODE_HEADER, "")
        given = entry.exchange(code)
        if given is None:
            return problem(401, "Not authenticated", "The code was already used, or belongs to another console.")
        return JSONResponse({"token": given})

    async def forward(request: Request) -> Response:
        return await forwarding(request)

    routes = [
        *(Route(path, page) for path in PAGES),
        Route(START, page),
        Mount("/assets", StaticFiles(directory=ASSETS)),
        Route(EXCHANGE, exchange, methods=["POST"]),
        Route("/console/about", about),
        Route("/console/codes/agent", codes.agent, methods=["POST"]),
        Route("/console/codes/device-owner", codes.device_owner, methods=["POST"]),
        Route("/api/{path:path}", forward, methods=list(METHODS)),
    ]
    secret = ("/api/", "/console/")
    return Guard(Starlette(routes=routes), authority, token, secret=secret, exchange=EXCHANGE, start=START)
