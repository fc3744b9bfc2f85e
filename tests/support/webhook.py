"""A webhook on a socket that stores what is posted and responds as the test sets it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

SECRET_PATH = "/services/T000/B000/secret-of-the-webhook"


def _slack(body: dict[str, Any]) -> bool:
    """https://api.slack.com/messaging/webhooks: `text` of at most 40,000 characters."""
    return set(body) == {"text"} and 0 < len(body["text"]) <= 40_000


def _discord(body: dict[str, Any]) -> bool:
    """https://discord.com/developers/docs/resources/webhook#execute-webhook: `content` of at most 2,000 characters."""
    return set(body) == {"content", "allowed_mentions"} and 0 < len(body["content"]) <= 2_000


def _pagerduty(body: dict[str, Any]) -> bool:
    """https://developer.pagerduty.com/docs/send-alert-event: the members that an event must have and may have."""
    event = {"routing_key", "event_action", "dedup_key"}
    if not event <= set(body) or not 0 < len(body["dedup_key"]) <= 255:
        return False
    if body["event_action"] in ("resolve", "acknowledge"):
        return set(body) == event
    payload = body.get("payload", {})
    return (
        body["event_action"] == "trigger"
        and set(body) == event | {"payload"}
        and {"summary", "source", "severity"} <= set(payload)
        and set(payload)
        <= {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
        and 0 < len(payload["summary"]) <= 1024
        and payload["severity"] in ("critical", "error", "warning", "info")
    )


RULES = {"slack": _slack, "discord": _discord, "pagerduty": _pagerduty, "json": lambda body: isinstance(body, dict)}


class Webhook:
    """A receiver of one format. Like the real service, it answers 400 to what its documentation does not allow.

    Attributes:
        shape: The format: slack, discord, pagerduty or json.
        answer: A status, or None to send nothing until the end of the test.
        received: The (headers, bytes) of each POST. posted: The JSON of each POST.
    """

    def __init__(self) -> None:
        self.shape = "slack"
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.posted: list[Any] = []
        self.asked: list[str] = []
        self.answer: int | None = 200
        self.over = threading.Event()
        self.url = ""


@contextmanager
def listening() -> Iterator[Webhook]:
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            webhook.asked.append(f"{self.command} {self.path}")
            webhook.received.append((dict(self.headers.items()), body))
            webhook.posted.append(msgspec.json.decode(body))
            if webhook.answer is None:
                webhook.over.wait()
                self.close_connection = True
                return
            self.send_response(webhook.answer if RULES[webhook.shape](webhook.posted[-1]) else 400)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            webhook.asked.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    webhook.url = f"http://127.0.0.1:{server.server_port}{SECRET_PATH}"
    try:
        yield webhook
    finally:
        webhook.over.set()
        server.shutdown()
        server.server_close()
