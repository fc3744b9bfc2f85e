"""Routes of an HTTP API (payload format 2.0): parses requests, calls handlers, and builds responses and problems."""

import base64
from collections.abc import Callable
from typing import Any, Generic, Literal, NotRequired, TypeAlias, TypedDict, TypeVar

import msgspec

from nexmdm.runtime import actor, database, lenient, logs, metrics, settings, validation
from nexmdm.runtime.actor import Actor
from nexmdm.runtime.errors import Forbidden, Invalid, Malformed, NoCredential, NotFound, Problem

T = TypeVar("T")
# What API Gateway calls a function with: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
Event: TypeAlias = dict[str, Any]


class Reply(TypedDict):
    """What API Gateway makes an HTTP response of."""

    statusCode: int
    headers: dict[str, str]
    body: NotRequired[str]


class Request:
    """One HTTP request, as an HTTP API delivers it: path parameters decoded, header names in lower case.

    SAM's local gateway keeps the case of header names, so they are converted here.
    """

    def __init__(self, event: Event, context: Any = None) -> None:
        self._event = event
        self._lambda = context
        self._context: Event = event.get("requestContext") or {}
        self.headers: dict[str, str] = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        self.query: dict[str, str] = event.get("queryStringParameters") or {}
        self.path: dict[str, str] = event.get("pathParameters") or {}
        self.device_id: str | None = None  # set by a device's route once it is authenticated, for the log
        self.dropped: list[str] = []  # paths of the members of a device's body that had an invalid value
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
        """The caller's IP address as seen by the gateway, never one from a header."""
        return (self._context.get("http") or {}).get("sourceIp")

    @property
    def base_url(self) -> str:
        """The API's own URL: PUBLIC_URL, or else the API Gateway's domain. Never taken from a caller's header."""
        return settings.load().public_url or f"https://{self._context.get('domainName', '')}"

    @property
    def operator(self) -> str:
        """The ARN of the caller whose signature IAM has verified.

        Raises:
            Forbidden: the request has no IAM authorization, which cannot happen behind a deployed gateway.
        """
        arn: str | None = ((self._context.get("authorizer") or {}).get("iam") or {}).get("userArn")
        if not arn:
            raise Forbidden("This route is for operators: sign the request with AWS credentials (SigV4).")
        return arn

    @property
    def actor(self) -> Actor:
        """The operator as the author of events.

        Raises:
            Forbidden: see `operator`.
        """
        return actor.operator(self.operator, self.source_ip, getattr(self._lambda, "aws_request_id", None))

    @property
    def remaining_seconds(self) -> float:
        """The remaining time of this invocation."""
        return float(self._lambda.get_remaining_time_in_millis() / 1000)

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @property
    def presented_token(self) -> str | None:
        """`Authorization: Bearer`, else `X-Device-Token`."""
        return self.bearer or self.headers.get("x-device-token")

    @property
    def device_token(self) -> str:
        """The device token from `Authorization: Bearer` or `X-Device-Token`.

        Raises:
            NoCredential: neither header was sent.
        """
        token = self.presented_token
        if not token:
            raise NoCredential("Send the device token as `Authorization: Bearer` or as `X-Device-Token`.")
        return token

    @property
    def enrollment_token(self) -> str:
        """The enrollment token from `X-Admin-Key`, `X-Admin` or `Authorization: Bearer`.

        Raises:
            NoCredential: none of them was sent.
        """
        token = self.headers.get("x-admin-key") or self.headers.get("x-admin") or self.bearer
        if not token:
            raise NoCredential("Send the enrollment token as `X-Admin-Key`, `X-Admin` or `Authorization: Bearer`.")
        return token

    def idempotency_key(self, type_: Any, given: str | None = None) -> str | None:
        """The Idempotency-Key header, or the key that the body gave.

        Raises:
            Invalid: the header is not a valid key, or the two differ.
        """
        header = self.headers.get("idempotency-key")
        if header is None:
            return given
        key: str = validation.convert(header, type_, root="header.Idempotency-Key")
        if given not in (None, key):
            raise Invalid("$.request_id", "differs from the Idempotency-Key header; give one of them")
        return key

    def json(self, type_: type[T]) -> T:
        """The body, validated."""
        return validation.convert(validation.parse(self.body), type_)

    def report(self, type_: type[T]) -> T:
        """A device's body, read leniently; the paths of invalid values are in `dropped`."""
        body, dropped = lenient.read(self.body, type_)
        self.dropped += dropped
        return body

    def parameters(self, type_: type[T]) -> T:
        """The query string, validated."""
        for name, value in self.query.items():
            validation.storable(name, "query")
            validation.storable(value, f"query.{name}")
        found = validation.convert(self.query, type_, root="query")
        for name in self.query:
            if getattr(found, name, "") is None:
                # msgspec would read the text "null" as an absent parameter.
                raise Invalid(f"query.{name}", "is null; leave the parameter out")
        return found


class Response(msgspec.Struct, Generic[T]):
    """A response whose status differs from the route's, or that has headers."""

    body: T | None = None
    status: int | None = None
    headers: dict[str, str] = {}


NOT_STORED = ("Cache-Control",)  # the header of a response that contains a secret
Route = Callable[..., Any]
Caller = Literal["operator", "device", "download", "enrollment", "anyone"]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One route: its handler, and the facts from its declaration and annotations.

    The OpenAPI document is generated from this. `body`, `query` and `returns` are the annotations of the function's
    arguments of these names and of its result.

    Attributes:
        caller: who may call it.
        statuses: {status of a success: names of its headers}; the first one is the default.
        problems: statuses of problem documents in addition to those that every route of this kind may return.
        key: the type of the Idempotency-Key header, when the route takes one.
    """

    route: Route
    caller: Caller
    statuses: dict[int, tuple[str, ...]]
    problems: tuple[int, ...]
    key: Any
    body: Any
    query: Any
    returns: Any

    def answer(self, request: Request) -> Reply:
        arguments: dict[str, object] = {}
        # A caller without credentials learns nothing about the rest of the request.
        if self.caller == "device":
            _ = request.device_token
        elif self.caller == "enrollment":
            _ = request.enrollment_token
        if self.query is not None:
            arguments["query"] = request.parameters(self.query)
        if self.body is not None:
            arguments["body"] = request.report(self.body) if self.caller == "device" else request.json(self.body)
        response = _answer(self.route(request, **arguments), next(iter(self.statuses)))
        if request.dropped:
            metrics.count("ReportedValuesDropped", len(request.dropped))
            logs.values_dropped(request.device_id, request.dropped)
        return response


class Routes:
    """The routes of one function.

    `@routes("PATCH /v1/things/{id}")` declares one; the decorated function takes the request and, if it has these
    parameters, `body` and `query`, which are validated before it runs. `routes.handle` is the Lambda handler.
    """

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}

    def __call__(
        self,
        route_key: str,
        *,
        caller: Caller = "operator",
        status: int = 200,
        statuses: dict[int, tuple[str, ...]] | None = None,
        problems: tuple[int, ...] = (),
        key: Any = None,
    ) -> Callable[[Route], Route]:
        def add(route: Route) -> Route:
            wanted = route.__annotations__
            self._operations[route_key] = Operation(
                route=route,
                caller=caller,
                statuses=statuses or {status: ()},
                problems=problems,
                key=key,
                body=wanted.get("body"),
                query=wanted.get("query"),
                returns=wanted.get("return"),
            )
            return route

        return add

    @property
    def table(self) -> dict[str, Operation]:
        """{route key: its operation}"""
        return self._operations

    def handle(self, event: Event, context: Any) -> Reply:
        """Respond to one event. A `Problem` is returned with its status; any other error as a 500 without details."""
        logs.begin(getattr(context, "aws_request_id", ""), getattr(context, "function_name", ""))
        database.begin(context)
        key = event.get("routeKey", "")
        operation = self._operations.get(key)
        try:
            if operation is None:
                raise NotFound("There is no such route.")
            return operation.answer(Request(event, context))
        except Problem as problem:
            if operation is not None and operation.caller == "device" and problem.status < 500:
                logs.refused(key, problem.status, problem.title)
            return _problem(problem)
        except Exception as error:
            logs.failure(error)
            return _problem(Problem("An unexpected error occurred. It was recorded; try again later."))
        finally:
            metrics.flush()


def _answer(result: Any, status: int) -> Reply:
    response = result if isinstance(result, Response) else Response(result)
    answer: Reply = {"statusCode": response.status or status, "headers": dict(response.headers)}
    if response.body is not None:
        answer["headers"].setdefault("Content-Type", "application/json")
        answer["body"] = msgspec.json.encode(response.body).decode()
    return answer


def _problem(problem: Problem) -> Reply:
    headers = {"Content-Type": "application/problem+json", **problem.headers}
    return _answer(Response(problem.document(), problem.status, headers), problem.status)
