import json
import os
import subprocess
import sys
import textwrap

import pytest

TEMPLATE = """
Resources:
  EchoFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: echo_of_the_test.echo.handler.handler
"""
HANDLER = """
    def handler(event, context):
        print("told")
        if event == {"do": "raise"}: raise ValueError("refused")
        return {"event": event, "function": context.function_name}
"""


@pytest.fixture
def invoke(tmp_path):
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    handler = tmp_path / "echo_of_the_test" / "echo" / "handler.py"
    handler.parent.mkdir(parents=True)
    handler.write_text(textwrap.dedent(HANDLER))

    def invoke(*arguments, stdin=""):
        return subprocess.run(
            [sys.executable, "-m", "local.invoke", "--template", tmp_path / "template.yaml", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "DATABASE_URL": "postgresql://nowhere/nothing"},
            input=stdin,
            capture_output=True,
            text=True,
        )

    return invoke


@pytest.mark.parametrize("name", ["echo", "EchoFunction"])
def test_result_is_json_on_stdout(invoke, tmp_path, name):
    (tmp_path / "event.json").write_text('{"a": "ä"}')
    done = invoke(name, "event.json")
    assert json.loads(done.stdout) == {"event": {"a": "ä"}, "function": "EchoFunction"}
    assert "told" in done.stderr
    assert done.returncode == 0


def test_event_is_empty_by_default(invoke):
    assert json.loads(invoke("echo").stdout)["event"] == {}


def test_event_is_read_from_stdin(invoke):
    assert json.loads(invoke("echo", "-", stdin='{"b": 1}').stdout)["event"] == {"b": 1}


def test_function_that_raises_is_reported(invoke):
    done = invoke("echo", "-", stdin='{"do": "raise"}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["errorMessage"] == "refused"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(["ecco"], "no function 'ecco'"), (["echo", "none.json"], "none.json"), (["echo", "-"], "not JSON")],
)
def test_mistakes_are_reported_in_one_line(invoke, arguments, what):
    done = invoke(*arguments, stdin="{")
    assert done.returncode == 1
    assert what in done.stderr
    assert len(done.stderr.splitlines()) == 1
