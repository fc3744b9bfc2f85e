"""Cold starts: a built function from fresh process to first answer, beside importing its third-party packages alone.

The artifacts are those of `make build-host`, run by the Python that they were built for, with nothing else to import.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import boto3

from bench.figures import Figure, absent, at_most, below
from bench.sending import fake_fcm
from bench.stage import Stage, pointed_at
from local import s3, template
from local.template import Function
from tests.support import samples, webhook
from tests.support.s3 import BUCKET, KEYS
from tests.system.built import lambda_runtime

FIRST_ANSWER = """
import importlib, json, sys, types
event = json.loads(sys.argv[2])
handler = getattr(importlib.import_module(sys.argv[1]), "handler")
context = types.SimpleNamespace(aws_request_id="1", function_name="bench", log_stream_name="bench",
                                get_remaining_time_in_millis=lambda: 60_000)
result = handler(event, context)
"""
# What our own modules import that is neither ours nor Python's, in that order; and how large the process became.
WATCH = """
import builtins, sys
OURS, wanted, original = {"nexmdm", "functions"}, {}, builtins.__import__
def watch(name, globals=None, locals=None, fromlist=(), level=0):
    found = original(name, globals, locals, fromlist, level)
    top = name.partition(".")[0]
    if (globals or {}).get("__name__", "").partition(".")[0] in OURS and top not in OURS | sys.stdlib_module_names:
        for full in (name, *(f"{name}.{inner}" for inner in fromlist or ())):
            if full in sys.modules:
                wanted[full] = None
    return found
builtins.__import__ = watch
"""
REPORT = """
import re
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print("REPORT" + json.dumps({"peak": peak, "packages": list(wanted), "status": result.get("statusCode", 200)}))
"""
IMPORTS = "import importlib, sys\nfor name in sys.argv[1].split(): importlib.import_module(name)"
MEGABYTES = {"heartbeat": 60, "fcm_dispatch": 200}
PEAK_MEGABYTES = {"heartbeat": 128}
# Its answer goes to CloudFormation, and its work is a migration: no start to compare with others.
LEFT_OUT = {"migrate"}


def measure(stage: Stage) -> list[Figure]:
    functions = [f for name, f in sorted(template.load().functions.items()) if name not in LEFT_OUT]
    missing = [path for function in functions for path in lambda_runtime.paths(function) if not path.exists()]
    if missing or not lambda_runtime.PYTHON.exists():
        return [absent("cold starts", "the functions are not built: make build-host")]
    figures = []
    with _environment(stage) as variables:
        for function in functions:
            figures += _function(stage, function, variables)
    return figures


def _function(stage: Stage, function: Function, variables: dict[str, str]) -> list[Figure]:
    run = _Runs(function, variables)
    report = run.report()
    floor, ours = [], []
    for number in range(stage.sizes.starts + 1):
        pair = [(ours, lambda: run.first_answer()), (floor, lambda: run.imports(report["packages"]))]
        for values, start in pair if number % 2 else reversed(pair):
            values.append(start())
    what = f"cold start of {function.name}: fresh process to first answer"
    # The first of each found a cold disk.
    figures = [at_most(1.3, what, "importing its packages alone", median(floor[1:]), median(ours[1:]), "ms")]
    if function.name in MEGABYTES:
        size = lambda_runtime.megabytes(lambda_runtime.paths(function))
        figures.append(below(f"{function.name}: code and layer, unzipped", size, MEGABYTES[function.name], "MB"))
    if function.name in PEAK_MEGABYTES:
        limit = PEAK_MEGABYTES[function.name]
        figures.append(below(f"{function.name}: peak memory at the first answer", report["peak"], limit, "MB"))
    return figures


class _Runs:
    def __init__(self, function: Function, variables: dict[str, str]) -> None:
        self._folder = lambda_runtime.BUILT / function.logical_id
        self._variables = {**lambda_runtime.environment(function), **variables}
        self._module, self._event = function.handler.rpartition(".")[0], json.dumps(samples.load(function.name))
        self._starts = 0

    def _arguments(self) -> tuple[str, str]:
        """A command of a new name each time, or it would be answered from its row without anything being loaded."""
        self._starts += 1
        return self._module, self._event.replace("sample-1", f"start-{self._starts}")

    def report(self) -> dict[str, Any]:
        output = self._run(WATCH + FIRST_ANSWER + REPORT, *self._arguments())
        report = json.loads(output.rpartition("REPORT")[2])
        assert report["status"] < 400, output
        return report

    def first_answer(self) -> float:
        return self._timed(FIRST_ANSWER, *self._arguments())

    def imports(self, names: list[str]) -> float:
        return self._timed(IMPORTS, " ".join(names))

    def _timed(self, code: str, *arguments: str) -> float:
        """Milliseconds. The process leaves by os._exit: what it takes to die is no part of a start."""
        start = time.perf_counter()
        self._run(f"{code}\nimport os, sys; sys.stdout.flush(); os._exit(0)", *arguments)
        return (time.perf_counter() - start) * 1000

    def _run(self, code: str, *arguments: str) -> str:
        command = [str(lambda_runtime.PYTHON), "-c", code, *arguments]
        done = subprocess.run(  # noqa: S603
            command, cwd=self._folder, env=self._variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


@contextmanager
def _environment(stage: Stage) -> Iterator[dict[str, str]]:
    """A database with what the sample events speak of, doubles of what functions call; the variables that name them."""
    with ExitStack() as stack:
        url = stack.enter_context(stage.copy("cold"))
        address = stack.enter_context(s3.running())
        stored = {**KEYS, "APK_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": address, "AWS_REGION": "eu-west-1"}
        variables = {"DATABASE_URL": url, **stored, **stack.enter_context(fake_fcm())}
        account = Path(stack.enter_context(TemporaryDirectory(prefix="nexmdm-bench-"))) / "account.json"
        account.write_text(variables["FCM_SERVICE_ACCOUNT"])
        variables["FCM_SERVICE_ACCOUNT"] = str(account)
        s3.make_bucket(address, BUCKET)
        sns = boto3.client("sns", s3.REGION, endpoint_url=address, **s3.KEYS)
        variables["AWS_ENDPOINT_URL_SNS"] = address
        variables["ALERT_TOPIC_ARN"] = sns.create_topic(Name="alarms")["TopicArn"]
        variables["WEBHOOK_URL"] = stack.enter_context(webhook.listening()).url
        stack.enter_context(pointed_at(**{"url": url, **stored}))
        samples.make_real()
        yield {**variables, "PATH": os.environ["PATH"]}
