"""Between API Gateway (HTTP API, payload format 2.0) and the verbs: requests in, answers and problems out."""

import base64
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from nexmdm.runtime import database, logs, metrics, validation
from nexmdm.runtime.errors import Forbidden, Invalid, Malformed, NoCredential, NotFound, Problem

T = TypeVar("T")
Event = dict[str, Any]


class Request:
    """One HTTP request, as an HTTP API hands it over: path parameters decoded, header names in lower case.

    SAM's local gateway keeps their case, so they are lowered again.
    """

    def __init__(self, event: Event, context: Any = None) -> None:
        self._event = event
        self._lambda = context
        self._context: dict[str, Any] = event.get("requestContext") or {}
        self.headers: dict[str, str] = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        self.query: dict[str, str] = event.get("queryStringParameters") or {}
        self.path: dict[str, str] = event.get("pathParameters") or {}
        for name, value in self.path.items():
            validation.storable(value, f"path.{name}")

    @property
    def body(self) -> bytes:
        text = self._event.get("body") or ""
        if not self._event.get("isBase64Encoded"):
            return text.encode(errors="surrogatepass")
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise Malformed("The body is not valid base64.") from None

    @property
    def source_ip(self) -> str | None:
        """The caller's address as the gateway saw it, never as a header claims it."""
        return (self._context.get("http") or {}).get("sourceIp")

    @property
    def base_url(self) -> str:
        """The address that this request was sent to, without its path."""
        return f"{self.headers.get('x-forwarded-proto', 'http')}://{self.headers.get('host', '')}"

    @property
    def operator(self) -> str:
        """The ARN of the caller whose signature IAM has checked.

        Raises:
            Forbidden: the route was reached without IAM authorization, which a deployed gateway does not let happen.
        """
        arn = ((self._context.get("authorizer") or {}).get("iam") or {}).get("userArn")
        if not arn:
            raise Forbidden("This route is for operators: sign the request with AWS credentials (SigV4).")
        return arn

    @property
    def remaining_seconds(self) -> float:
        """What is left of this invocation."""
        return self._lambda.get_remaining_time_in_millis() / 1000

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @property
    def device_token(self) -> str:
        """What a device authenticates with: `Authorization: Bearer` or `X-Device-Token`.

        Raises:
            NoCredential: neither header was sent.
        """
        token = self.bearer or self.headers.get("x-device-token")
        if not token:
            raise NoCredential("Send the device token as `Authorization: Bearer` or as `X-Device-Token`.")
        return token

    def json(self, type_: type[T]) -> T:
        """The body, validated."""
        return validation.convert(validation.parse(self.body), type_)

    def parameters(self, type_: type[T]) -> T:
        """The query string, validated."""
        for name, value in self.query.items():
            validation.storable(name, "query")
            validation.storable(value, f"query.{name}")
        found = validation.convert(self.query, type_, root="query")
        for name in self.query:
            if getattr(found, name, "") is None:
                # The text "null", which would mean that the parameter was not given.
                raise Invalid(f"query.{name}", "is null; leave the parameter out")
        return found


class Response(msgspec.Struct):
    """An answer that is more than 200 with a body."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = {}


Route = Callable[[Request], Any]


class Routes:
    """The routes of one function: `@routes("POST /v1/heartbeat")`, and the instance is the Lambda handler."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def __call__(self, key: str) -> Callable[[Route], Route]:
        def add(route: Route) -> Route:
            self._routes[key] = route
            return route

        return add

    @property
    def table(self) -> dict[str, Route]:
        """{route key: its function}"""
        return self._routes

    def handle(self, event: Event, context: Any) -> dict[str, Any]:
        """Answer one event. Every `Problem` becomes its status; anything unexpected is a 500 that says nothing."""
        logs.begin(getattr(context, "aws_request_id", ""), getattr(context, "function_name", ""))
        database.begin(context)
        try:
            route = self._routes.get(event.get("routeKey", ""))
            if route is None:
                raise NotFound("There is no such route.")
            return _answer(route(Request(event, context)))
        except Problem as problem:
            return _problem(problem)
        except Exception as error:
            logs.failure(error)
            return _problem(Problem("Something went wrong here. It was recorded; try again later."))
        finally:
            metrics.flush()


def _answer(result: Any) -> dict[str, Any]:
    response = result if isinstance(result, Response) else Response(result)
    answer: dict[str, Any] = {"statusCode": response.status, "headers": dict(response.headers)}
    if response.body is not None:
        answer["headers"].setdefault("Content-Type", "application/json")
        answer["body"] = msgspec.json.encode(response.body).decode()
    return answer


def _problem(problem: Problem) -> dict[str, Any]:
    headers = {"Content-Type": "application/problem+json", **problem.headers}
    return _answer(Response(problem.document(), problem.status, headers))
