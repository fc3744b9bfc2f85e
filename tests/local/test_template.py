import pytest

from local import template

SMALL = """
Globals:
  Function:
    Timeout: 10
    Environment: {Variables: {SERVICE: fleet, TABLE: !Ref Somewhere}}
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties: {Auth: {EnableIamAuthorizer: true, DefaultAuthorizer: AWS_IAM}}
  PingFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: functions.ping.handler.handler
      MemorySize: 512
      Environment: {Variables: {LEVEL: 3}}
      Events:
        Ping: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: post, Path: /ping, Auth: {Authorizer: NONE}}}
        List: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/pings/{id}"}}
        Sweep: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 minute), Input: '{"task": "sweep"}'}}
        Night: {Type: ScheduleV2, Properties: {ScheduleExpression: "cron(0 3 * * ? *)"}}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(SMALL)
    return template.load(path)


def test_functions_inherit_the_globals(small):
    ping = small.function("ping")
    assert ping == small.function("PingFunction")
    assert (ping.handler, ping.timeout, ping.memory) == ("functions.ping.handler.handler", 10, 512)
    assert ping.environment == {"SERVICE": "fleet", "LEVEL": "3"}


def test_route_without_an_authorizer_uses_that_of_the_api(small):
    assert [(route.key, route.authorizer) for route in small.routes] == [
        ("POST /ping", "NONE"),
        ("GET /pings/{id}", "AWS_IAM"),
    ]


def test_schedules_are_read(small):
    assert [(s.name, s.every, s.input) for s in small.schedules] == [
        ("PingFunctionSweep", 60, '{"task": "sweep"}'),
        ("PingFunctionNight", None, None),
    ]


def test_unknown_function_error_lists_the_known_ones(small):
    with pytest.raises(LookupError, match=r"no function 'pong' .* ping"):
        small.function("pong")


def test_template_of_the_project_is_read():
    found = template.load()
    route = next(route for route in found.routes if route.key == "POST /v1/heartbeat")
    assert (route.function.name, route.authorizer) == ("heartbeat", "NONE")
    assert any(route.authorizer == "AWS_IAM" for route in found.routes)
