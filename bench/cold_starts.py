"""Cold starts as in Lambda: initialization with a full CPU, the first response with the share of the function's memory.

The artifacts are those of `make build-host`, each in a fresh process of the Python that they were built for, without
other packages. The database is behind a front end with TLS and IAM tokens. The floor is a bare function that imports
psycopg2 and msgspec, connects by TLS and runs SELECT 1 under the same limit.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import quote

from bench import fixture
from bench.figures import Figure, absent, at_most, below, compared
from bench.pairs import spread_of
from bench.processor import share_of
from bench.sending import fake_fcm
from bench.stage import Stage, pointed_at
from local import s3, template
from local.rds.door import KEY, rds
from local.rds.server import ADMIN, ADMIN_PASSWORD
from local.template import Function
from tests.support import samples, webhook
from tests.support.s3 import BUCKET, KEYS
from tests.system.built import lambda_runtime

# Prints READY when it is initialized, and continues on request, when it is limited to its share of a CPU.
PHASES = """
import json, re, sys, time
print("READY", flush=True)
sys.stdin.readline()
took = []
for _ in range(int(sys.argv[3]) + 1):
    start = time.perf_counter()
    status = first()
    took.append((time.perf_counter() - start) * 1000)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print("REPORT" + json.dumps({"took": took, "peak": peak, "status": status}), flush=True)
import os; os._exit(0)
"""
OURS = """
import importlib, json, sys, types
event = json.loads(sys.argv[2])
handler = getattr(importlib.import_module(sys.argv[1]), "handler")
context = types.SimpleNamespace(aws_request_id="1", function_name="bench", log_stream_name="bench",
                                get_remaining_time_in_millis=lambda: 60_000)
def first():
    result = handler(event, context)
    return (result or {}).get("statusCode", 200)
"""
# The token is created beforehand, because a bare function would have a password.
BARE = """
import json, os, sys
import msgspec, psycopg2
connection = None
def first():
    global connection
    if connection is None:
        connection = psycopg2.connect(os.environ["BARE_DSN"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    msgspec.json.decode(sys.argv[2].encode())
    return 200
"""
MEGABYTES = {"heartbeat": 60, "fcm_dispatch": 200}
PEAK_MEGABYTES = {"heartbeat": 128}
# It responds to CloudFormation and runs a migration, so its start cannot be compared with others.
LEFT_OUT = {"migrate"}
# The functions that devices wait for.
RULED = {"heartbeat"}


def measure(stage: Stage) -> list[Figure]:
    functions = [f for name, f in sorted(template.load().functions.items()) if name not in LEFT_OUT]
    missing = [path for function in functions for path in lambda_runtime.paths(function) if not path.exists()]
    if missing or not lambda_runtime.PYTHON.exists():
        return [absent("cold starts", "the functions are not built: make build-host")]
    figures = []
    with environment(stage) as variables:
        for function in functions:
            figures += _function(stage, function, variables)
    return figures


def _function(stage: Stage, function: Function, variables: dict[str, str]) -> list[Figure]:
    runs = Runs(function, variables)
    ours: list[Start] = []
    floor: list[Start] = []
    for number in range(stage.sizes.starts + 1):
        pair = [(ours, OURS), (floor, BARE)]
        for starts, code in pair if number % 2 else reversed(pair):
            starts.append(runs.start(code))
    what = f"cold start of {function.name} at {function.memory} MB"
    against = "a bare function with psycopg2 and msgspec"
    # Without the first of each, which reads from a cold disk.
    ours, floor = ours[1:], floor[1:]
    first, bare = (median(start.first for start in starts) for starts in (ours, floor))
    note = f"under the limit of the processor ({runs.how})"
    figures = [
        at_most(1.5, f"{what}: first answer", against, bare, first, "ms", note, _spread(floor, ours, "first"))
        if function.name in RULED
        else compared(f"{what}: first answer", against, bare, first, "ms", note, _spread(floor, ours, "first"))
    ]
    together, bare = (median(start.together for start in starts) for starts in (ours, floor))
    note = f"{_phases(ours)}; floor {_phases(floor)}"
    figures.append(
        compared(
            f"{what}: initialised and answered", against, bare, together, "ms", note, _spread(floor, ours, "together")
        )
    )
    if function.name in MEGABYTES:
        size = lambda_runtime.megabytes(lambda_runtime.paths(function))
        figures.append(below(f"{function.name}: code and layer, unzipped", size, MEGABYTES[function.name], "MB"))
    if function.name in PEAK_MEGABYTES:
        limit = PEAK_MEGABYTES[function.name]
        peak = max(start.peak for start in ours)
        figures.append(below(f"{function.name}: peak memory at the first answer", peak, limit, "MB"))
    return figures


def _spread(floor: list["Start"], ours: list["Start"], phase: str) -> float:
    return spread_of([getattr(start, phase) for start in floor], [getattr(start, phase) for start in ours])


def _phases(starts: list["Start"]) -> str:
    init, first = (median(getattr(start, name) for start in starts) for name in ("init", "first"))
    return f"{init:.0f} ms to initialise and {first:.0f} ms to answer"


class Start(NamedTuple):
    """Milliseconds of each phase; `warm` of a later response; peak in MB."""

    init: float
    first: float
    warm: float
    peak: float

    @property
    def together(self) -> float:
        return self.init + self.first


class Runs:
    def __init__(self, function: Function, variables: dict[str, str]) -> None:
        self._folder = lambda_runtime.BUILT / function.logical_id
        bare = variables["BARE_DSN"]
        self._variables = {**lambda_runtime.environment(function), **variables, "BARE_DSN": bare}
        self._variables["AWS_LAMBDA_INITIALIZATION_TYPE"] = "on-demand"
        self._module, self._event = function.handler.rpartition(".")[0], json.dumps(samples.load(function.name))
        self._memory, self._starts = function.memory, 0
        self.how = ""

    def start(self, code: str, memory: int | None = None, warm: int = 0) -> Start:
        """One environment, from a new process to its first response and `warm` more."""
        # A new request_id each time; otherwise the response comes from the existing row without loading anything.
        self._starts += 1
        event = self._event.replace("sample-1", f"start-{self._starts}")
        command = [str(lambda_runtime.PYTHON), "-c", code + PHASES, self._module, event, str(warm)]
        with share_of(memory or self._memory) as processor:
            begun = time.perf_counter()
            with subprocess.Popen(  # noqa: S603
                command, cwd=self._folder, env=self._variables, text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE
            ) as process:
                init = _read_until(process, "READY", begun)[0]
                processor.hold(process.pid)
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                report = json.loads(_read_until(process, "REPORT", begun)[1])
            self.how = processor.how
        assert report["status"] < 400, report
        first, *after = report["took"]
        return Start(init, first, median(after) if after else first, report["peak"])


def _read_until(process: "subprocess.Popen[str]", word: str, begun: float) -> tuple[float, str]:
    """Returns (milliseconds until a line with this prefix, the rest of the line)."""
    assert process.stdout
    assert process.stderr
    for line in process.stdout:
        if line.startswith(word):
            return (time.perf_counter() - begun) * 1000, line.removeprefix(word)
    raise AssertionError(process.stderr.read()[-2000:])


@contextmanager
def _bare_login(stage: Stage) -> Iterator[None]:
    """Create the only user with a password, which may only log in."""
    with fixture.connected(stage.server) as db:
        db.execute(f"CREATE ROLE {ADMIN} LOGIN")
    try:
        yield
    finally:
        with fixture.connected(stage.server) as db:
            db.execute(f"DROP ROLE {ADMIN}")


@contextmanager
def environment(stage: Stage) -> Iterator[dict[str, str]]:
    """A database with the objects of the sample events, and fakes of services; yields the variables that name them."""
    with ExitStack() as stack:
        url = stack.enter_context(stage.copy("cold"))
        address = stack.enter_context(s3.running())
        stored = {**KEYS, "APK_BUCKET": BUCKET, "AWS_ENDPOINT_URL_S3": address, "AWS_REGION": "eu-west-1"}
        variables = {"DATABASE_URL": url, **stored, **stack.enter_context(fake_fcm())}
        account = Path(stack.enter_context(TemporaryDirectory(prefix="nexmdm-bench-"))) / "account.json"
        account.write_text(variables["FCM_SERVICE_ACCOUNT"])
        variables["FCM_SERVICE_ACCOUNT"] = str(account)
        s3.make_bucket(address, BUCKET)
        sns = s3.session().client("sns", endpoint_url=address)
        variables["AWS_ENDPOINT_URL_SNS"] = address
        variables["ALERT_TOPIC_ARN"] = sns.create_topic(Name="alarms")["TopicArn"]
        variables["WEBHOOK_URL"] = stack.enter_context(webhook.listening()).url
        stack.enter_context(pointed_at(**{"url": url, **stored}))
        samples.make_real()
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="nexmdm-bench-")))
        door = stack.enter_context(rds(url, folder))
        stack.enter_context(_bare_login(stage))
        name = url.partition("?")[0].rpartition("/")[2]
        # Not with DATABASE_URL but as in Lambda: TLS that verifies the server, and a signed token for each login.
        del variables["DATABASE_URL"]
        tls = f"sslmode=verify-full&sslrootcert={door.ca_bundle}"
        login = f"{ADMIN}:{quote(ADMIN_PASSWORD, safe='')}@{door.host}:{door.port}"
        variables |= {
            "DATABASE_HOST": door.host,
            "DATABASE_PORT": str(door.port),
            "DATABASE_NAME": name,
            "DATABASE_USER": "postgres",
            "DATABASE_CA_BUNDLE": str(door.ca_bundle),
            "BARE_DSN": f"postgresql://{login}/{name}?{tls}",
            "AWS_ACCESS_KEY_ID": KEY.access_key,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
            "AWS_SESSION_TOKEN": KEY.token or "",
        }
        yield {**variables, "PATH": os.environ["PATH"]}
