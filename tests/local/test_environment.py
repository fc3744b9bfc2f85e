"""Each execution environment is a process: a failure in one does not affect the others."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from local.gateway.environment import Environments
from local.template import Function

HANDLER = """
    import os, sys, time

    CALLS = []

    def handler(event, context):
        CALLS.append(event)
        print("seen", event, flush=True)
        match event.get("do"):
            case "raise": raise ValueError("no such thing")
            case "exit": os._exit(3)
            case "sys.exit": sys.exit(4)
            case "sleep": time.sleep(event["seconds"])
            case "unserializable": return {1, 2}
        return {
            "pid": os.getpid(),
            "calls": len(CALLS),
            "remaining": context.get_remaining_time_in_millis(),
            "name": context.function_name,
            "memory": context.memory_limit_in_mb,
            "request_id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "variable": os.environ.get("OF_THE_TEST"),
            "lambda": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
            "body": event.get("body"),
        }
"""


@pytest.fixture
def function(tmp_path):
    (tmp_path / "one_off_handler.py").write_text(textwrap.dedent(HANDLER))
    return Function(
        name="one_off",
        logical_id="OneOffFunction",
        handler="one_off_handler.handler",
        timeout=2,
        environment={"PYTHONPATH": str(tmp_path)},
    )


@pytest.fixture
def invoke(function, tmp_path):
    """Invoke the function with each event, one after the other in one pool or all at once; return the outcomes."""

    def invoke(*events, limit=4, at_once=False, between=None):
        async def run():
            with open(tmp_path / "log", "ab") as log:
                pool = Environments(function, limit, output=log, variables={"OF_THE_TEST": "yes"})
                try:
                    if at_once:
                        return await asyncio.gather(*map(pool.invoke, events))
                    outcomes = []
                    for event in events:
                        outcomes.append(await pool.invoke(event, "an-id"))
                        if between:
                            between(pool)
                    return outcomes
                finally:
                    pool.close()
                    assert not any(psutil.pid_exists(pid) for pid in pool.processes())

        return asyncio.run(run())

    return invoke


def test_environment_looks_like_lambda(invoke, tmp_path):
    (outcome,) = invoke({"body": "é" * 3_000_000})
    seen = outcome.result
    assert 1000 < seen["remaining"] <= 2000
    assert seen["request_id"] == "an-id"
    assert seen["name"] == seen["lambda"] == "OneOffFunction"
    assert seen["memory"] == "128"
    assert seen["arn"].endswith(":function:OneOffFunction")
    assert seen["variable"] == "yes"
    assert len(seen["body"]) == 3_000_000
    assert "seen" in (tmp_path / "log").read_text()


def test_environment_serves_consecutive_calls(invoke):
    first, second = invoke({}, {})
    assert first.result["pid"] == second.result["pid"]
    assert second.result["calls"] == 2


def test_concurrent_calls_have_separate_processes(invoke):
    outcomes = invoke(*[{"do": "sleep", "seconds": 0.3}] * 3, at_once=True)
    assert len({outcome.result["pid"] for outcome in outcomes}) == 3


def test_call_waits_at_the_limit(invoke):
    outcomes = invoke(*[{}] * 6, limit=2, at_once=True)
    assert len({outcome.result["pid"] for outcome in outcomes}) == 2
    assert sum(outcome.result["calls"] for outcome in outcomes) in (12, 13, 16)  # 3 + 3, 4 + 2 or 5 + 1


def test_exception_is_reported_and_the_environment_is_kept(invoke):
    before, failed, after = invoke({}, {"do": "raise"}, {})
    assert failed.error["errorType"] == "ValueError"
    assert failed.error["errorMessage"] == "no such thing"
    assert after.result["pid"] == before.result["pid"]


def test_result_that_is_not_json_is_an_error(invoke):
    (outcome,) = invoke({"do": "unserializable"})
    assert outcome.error["errorType"] == "TypeError"


@pytest.mark.parametrize("how", ["exit", "sys.exit"])
def test_ended_process_is_an_error_and_is_replaced(invoke, how):
    before, failed, after = invoke({}, {"do": how}, {})
    assert failed.error["errorType"] == "Runtime.ExitError"
    assert after.result["pid"] != before.result["pid"]


def test_environment_killed_between_calls_is_replaced_silently(invoke):
    def kill(pool):
        for pid in pool.processes():
            os.kill(pid, signal.SIGKILL)
            psutil.Process(pid).wait(5)

    first, second = invoke({}, {}, between=kill)
    assert second.error is None
    assert second.result["pid"] != first.result["pid"]


def test_call_over_its_timeout_is_an_error(invoke):
    failed, after = invoke({"do": "sleep", "seconds": 60}, {})
    assert failed.error["errorType"] == "Sandbox.Timedout"
    assert "timed out after 2.00 seconds" in failed.error["errorMessage"]
    assert after.result["calls"] == 1


def test_handler_that_cannot_be_imported_is_an_error(invoke, tmp_path):
    (tmp_path / "one_off_handler.py").write_text("import no_such_module")
    (outcome,) = invoke({})
    assert outcome.error["errorType"] == "ModuleNotFoundError"


def test_killed_parent_leaves_no_environment(function, tmp_path):
    script = f"""
        import asyncio
        from local.gateway.environment import Environments
        from local.template import Function

        async def main():
            pool = Environments({function!r})
            await pool.invoke({{}})
            print(*pool.processes(), flush=True)
            await pool.invoke({{"do": "sleep", "seconds": 60}})

        asyncio.run(main())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent,
    )
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
