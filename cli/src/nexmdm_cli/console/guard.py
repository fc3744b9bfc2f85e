"""Access control of the console: only its own page, on this machine, with the session token, may make requests.

Another page in the same browser cannot: `Host` must be this server's authority (against DNS rebinding), `Origin` and
`Sec-Fetch-Site` must be this server's own, and signing requires the token in a header, which no other page can read or
send. The token is not a cookie, because a browser sends cookies of 127.0.0.1 to all its ports.
"""

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nexmdm_cli.console.problems import problem

HEADER = "x-console-token"
ADDED = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """ASGI middleware.

    Args:
        authority: the only allowed `Host`.
        secret: prefixes of the paths that require the token.
        exchange: the path that returns the token for a code.
        start: the page that other origins may link to, as the file with the one-time code does.
    """

    def __init__(
        self, app: ASGIApp, authority: str, token: str, *, secret: tuple[str, ...], exchange: str, start: str
    ) -> None:
        self._app, self._authority, self._token, self._secret = app, authority, token.encode(), secret
        self._exchange, self._start = exchange, start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ADDED)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, protected)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") != [self._authority]:
            return problem(421, "Misdirected request", f"This console is only available as http://{self._authority}.")
        if any(origin != f"http://{self._authority}" for origin in headers.getlist("origin")):
            return problem(403, "Forbidden", "Requests from other pages are not allowed.")
        own = scope["path"].startswith(self._secret)
        # `none` means that the user typed the URL or opened it from a terminal.
        allowed = ("same-origin",) if own else ("same-origin", "none")
        led_here = scope["path"] == self._start and headers.getlist("sec-fetch-mode") == ["navigate"]
        if not led_here and any(site not in allowed for site in headers.getlist("sec-fetch-site")):
            return problem(403, "Forbidden", "Requests from other pages are not allowed.")
        given = headers.get(HEADER, "").encode("latin-1")
        wants_token = own and scope["path"] != self._exchange
        if wants_token and not secrets.compare_digest(given, self._token):
            return problem(
                401,
                "Not authenticated",
                "The token is not this console's. Open the file that was printed after `again:` when it started.",
            )
        return None
