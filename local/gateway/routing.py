"""Chooses the template's route for a request, like an HTTP API."""

from collections.abc import Iterable

from local.template import Route


class Routes:
    """Static segments take precedence over variables: POST /v1/enroll-tokens/batch-delete is never a {token_id}."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = sorted(
            ((route, route.path.split("/")) for route in routes),
            key=lambda entry: [segment.startswith("{") for segment in entry[1]],
        )

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route and its path parameters; None means 404, also for an unknown method of a known path."""
        segments = path.split("/")
        for route, pattern in self._routes:
            if route.method in (method, "ANY") and (parameters := _match(pattern, segments)) is not None:
                return route, parameters
        return None


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    if pattern[-1].endswith("+}") and len(segments) >= len(pattern):
        segments = [*segments[: len(pattern) - 1], "/".join(segments[len(pattern) - 1 :])]
    if len(pattern) != len(segments):
        return None
    parameters = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        if wanted.startswith("{") and segment:
            parameters[wanted.strip("{+}")] = segment
        elif wanted != segment:
            return None
    return parameters
