"""The scheduled function: what reaches the topic, what does not, and what a kill leaves. No notification is lost."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from nexmdm.runtime import metrics, settings
from nexmdm.runtime.database import Database

from functions.notify import handler as notify
from functions.watch import topic as sns
from functions.watch.handler import handler
from tests.support.api import CONTEXT, ROOT, call
from tests.support.sns import Topic
from tests.support.webhook import Webhook

# An execution environment that runs the watch repeatedly until it is killed.
ENVIRONMENT = """
import sys
from types import SimpleNamespace
from functions.watch.handler import handler
context = SimpleNamespace(aws_request_id="r", function_name="f", get_remaining_time_in_millis=lambda: 9000)
while True:
    try:
        handler({}, context)
    finally:
        print("run", file=sys.stderr, flush=True)
"""
KILLS = 6


def alerting_devices(db: Database, *names: str) -> None:
    for name in names:
        db.execute("INSERT INTO devices (id, alias) VALUES (%(name)s, %(name)s)", {"name": name})
        db.execute(
            "INSERT INTO device_last_status (device_id, last_ts, battery_pct) VALUES (%(name)s, now(), 9)",
            {"name": name},
        )


def watch() -> dict:
    return handler({}, CONTEXT)


def pass_leases(db: Database) -> None:
    db.execute("UPDATE device_alerts SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL")


def measured(text: str) -> dict[str, list[float]]:
    record = next(json.loads(line) for line in text.splitlines() if '"_aws"' in line)
    return {metric["Name"]: record[metric["Name"]] for metric in record["_aws"]["CloudWatchMetrics"][0]["Metrics"]}


def test_run_sends_one_message_or_none_without_alerts(topic: Topic, db: Database, capsys: pytest.CaptureFixture[str]):
    alerting_devices(db, "lobby", "entrance")
    metrics._metrics.cache_clear()
    report = watch()
    assert report["conditions"]["low_battery"] == {"opened": 2, "recovered": 0}
    assert report["told"] == 2
    [message] = topic.messages()
    assert message["Subject"] == "nexmdm alerts: 2 new"
    assert message["Message"] == "Low battery: 2 devices: entrance (9 %), lobby (9 %)"
    assert message["MessageAttributes"]["condition"] == {"Type": "String.Array", "Value": '["low_battery"]'}
    counted = measured(capsys.readouterr().out)
    assert (sum(counted["AlertsOpened"]), counted["WatchSucceeded"]) == (2, [1])
    assert watch()["told"] == 0
    assert topic.messages() == []
    assert db.execute("SELECT count(*) AS n FROM device_alerts WHERE notified_at IS NOT NULL") == [{"n": 2}]


def test_webhook_gets_the_message_of_the_watch(topic: Topic, webhook: Webhook, db: Database):
    alerting_devices(db, "lobby")
    watch()
    # The notification as SNS passes it to a function; the queue gets the same members.
    assert notify.handler({"Records": [{"Sns": message} for message in topic.messages()]}, CONTEXT) == {"posted": 1}
    assert webhook.posted == [{"text": "*nexmdm alerts: 1 new*\nLow battery: lobby (9 %)"}]


ENDINGS = {
    "the condition ends": [],
    "its rule is disabled": [("PATCH", "/v1/alert-rules/tills", {"enabled": False})],
    "its rule is deleted": [("DELETE", "/v1/alert-rules/tills", None)],
    "its rule gets other routes": [("PATCH", "/v1/alert-rules/tills", {"routes": []})],
    "another rule takes its place": [
        (
            "POST",
            "/v1/alert-rules",
            {"name": "other", "condition": "low_battery", "priority": 0, "routes": ["others"]},
        )
    ],
    "it is muted": [
        ("POST", "/v1/mutes", {"filter": {"all": True}, "until": "2099-01-01T00:00:00Z", "reason": "a move"})
    ],
    "the device is deleted": [("DELETE", "/v1/devices/lobby", None)],
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_incident_ends_with_its_alerts(topic: Topic, webhook: Webhook, db: Database, monkeypatch, ending: str):
    routes = {name: {"url": webhook.url, "shape": "pagerduty", "key": name} for name in ("on-call", "others")}
    monkeypatch.setenv("NOTIFICATION_ROUTES", json.dumps(routes))
    monkeypatch.delenv("WEBHOOK_URL")
    monkeypatch.setenv("ALERT_COOLDOWN_SECONDS", "0")
    settings.load.cache_clear()
    webhook.shape = "pagerduty"
    call("DELETE", "/v1/alert-rules/low_battery")
    rule = {"name": "tills", "condition": "low_battery", "routes": ["on-call"]}
    assert call("POST", "/v1/alert-rules", rule).status == 201
    alerting_devices(db, "lobby")

    def incidents() -> list[tuple[str, str, str]]:
        """What PagerDuty got since the last call."""
        for message in topic.messages():
            notify.handler({"Records": [{"Sns": message}]}, CONTEXT)
        got = [(body["routing_key"], body["event_action"], body["dedup_key"]) for body in webhook.posted]
        webhook.posted.clear()
        return got

    watch()
    assert incidents() == [("on-call", "trigger", "nexmdm:tills")]
    for method, path, body in ENDINGS[ending]:
        assert call(method, path, body).status < 300
    watch()
    db.execute("UPDATE device_last_status SET battery_pct = 90")
    watch()
    assert incidents() == [("on-call", "resolve", "nexmdm:tills")]


def test_failing_condition_stops_neither_others_nor_notifications(topic: Topic, db: Database, capsys):
    alerting_devices(db, "lobby")
    db.execute("UPDATE device_last_status SET agent_version = '2'")
    db.execute(
        "INSERT INTO apk_versions (version_name, version_code, file_path, file_size, package_name, build_type, state,"
        " sha256, source, signer_fingerprint, object_version, is_current, audit) VALUES ('3', 3, 'x', 1, 'com.nexmdm',"
        " 'release', 'published', repeat('0', 64), 'ci', repeat('0', 64), 'v', true, '[{\"at\": \"no time\"}]')"
    )
    metrics._metrics.cache_clear()
    report = watch()
    assert report["conditions"]["agent_outdated"] == {"opened": 0, "recovered": 0, "error": "InvalidDatetimeFormat"}
    assert topic.texts() == ["Low battery: lobby (9 %)"]
    assert measured(capsys.readouterr().out)["WatchSucceeded"] == [0]


def test_without_a_topic_the_notification_is_a_log_record(db: Database, caplog: pytest.LogCaptureFixture):
    alerting_devices(db, "lobby")
    assert watch()["told"] == 1
    [record] = [record for record in caplog.records if record.message == "alert"]
    assert (record.levelname, record.text) == ("WARNING", "Low battery: lobby (9 %)")


def test_boto3_is_loaded_only_for_a_notification(url: str):
    code = """
import sys
from types import SimpleNamespace
from functions.watch.handler import handler
handler({}, SimpleNamespace(aws_request_id="", function_name=""))
print([name for name in sys.modules if name.startswith("boto3")])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_notification_refused_by_sns_is_sent_by_the_next_run_without_a_repeat_note(
    topic: Topic, db: Database, monkeypatch, capsys
):
    alerting_devices(db, "lobby")
    monkeypatch.setenv("ALERT_TOPIC_ARN", f"{topic.arn}-gone")
    settings.load.cache_clear()
    metrics._metrics.cache_clear()
    with pytest.raises(sns.NotTaken, match=r"^SNS says NotFound$"):
        watch()
    assert "WatchSucceeded" not in measured(capsys.readouterr().out)
    monkeypatch.setenv("ALERT_TOPIC_ARN", topic.arn)
    settings.load.cache_clear()
    assert watch()["told"] == 1
    assert topic.texts() == ["Low battery: lobby (9 %)"]


def test_notification_that_did_not_reach_sns_is_sent_by_the_next_run(topic: Topic, db: Database, monkeypatch):
    alerting_devices(db, "lobby")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", f"http://127.0.0.1:{port}")
    settings.load.cache_clear()
    sns._sns.cache_clear()
    with pytest.raises(sns.NotTaken, match="EndpointConnectionError"):
        watch()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", topic.url)
    settings.load.cache_clear()
    sns._sns.cache_clear()
    assert watch()["told"] == 1
    assert topic.texts() == ["Low battery: lobby (9 %)"]


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[str, threading.Semaphore]]:
    """A fake SNS that reads a request and sends `answer` or nothing: its URL, and a semaphore released per request."""
    arrived, over = threading.Semaphore(0), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    with line:
                        line.recv(65_536)
                        arrived.release()
                        if answer is None:
                            over.wait()
                        else:
                            line.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", arrived
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("answer", [BROKEN, b""], ids=["503", "hung up"])
def test_notification_that_sns_may_have_is_sent_again_after_the_lease_as_a_repeat(
    topic, db: Database, monkeypatch, capsys, answer
):
    alerting_devices(db, "lobby")
    with answering(answer) as (url, arrived):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", url)
        settings.load.cache_clear()
        sns._sns.cache_clear()
        with pytest.raises(Exception) as raised:  # noqa: PT011  boto3's own
            watch()
        assert not isinstance(raised.value, sns.NotTaken)
        assert arrived.acquire(blocking=False)
        assert not arrived.acquire(blocking=False), "boto3 retried by itself: the repeat would not be marked"
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", topic.url)
    settings.load.cache_clear()
    sns._sns.cache_clear()
    capsys.readouterr()
    assert watch()["told"] == 0
    assert measured(capsys.readouterr().out)["WatchSucceeded"] == [0], "the alarm must see that notifications fail"
    pass_leases(db)
    assert watch()["told"] == 1
    assert measured(capsys.readouterr().out)["WatchSucceeded"] == [1]
    assert_repeated(topic)


def assert_repeated(topic: Topic) -> None:
    assert topic.texts() == [
        "Low battery: lobby (9 %)\nThis may repeat an earlier notification, whose delivery was not confirmed."
    ]


class Environment:
    """A process that runs the watch; `runs` waits until it has finished that many runs."""

    def __init__(self, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENVIRONMENT], cwd=ROOT, env={**os.environ, **variables},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def runs(self, count: int) -> None:
        while count:
            line = self._process.stderr.readline()
            assert line, "the process ended by itself"
            count -= line == b"run\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stderr.close()


def test_notification_of_a_killed_run_is_repeated_after_its_lease(topic: Topic, db: Database):
    alerting_devices(db, "lobby")
    with answering(None) as (url, arrived):
        environment = Environment(AWS_ENDPOINT_URL_SNS=url)
        assert arrived.acquire(timeout=30)
        environment.kill()
    assert watch()["told"] == 0, "another run told it before the lease expired"
    pass_leases(db)
    assert watch()["told"] == 1
    assert_repeated(topic)


def test_kills_at_any_moment_lose_no_notification_and_mark_repeats(topic: Topic, db: Database):
    chance, told = random.Random(7), []
    for n in range(KILLS):
        environment = Environment()
        environment.runs(1)
        alerting_devices(db, *(f"kiosk-{n}-{place}" for place in range(3)))
        # The kill hits one of the next runs; the machine's scheduling makes the exact moment random.
        threading.Event().wait(chance.uniform(0, 0.06))
        environment.kill()
        pass_leases(db)
        told += topic.texts()
    watch()
    told += topic.texts()
    names = {f"kiosk-{n}-{place}" for n in range(KILLS) for place in range(3)}
    assert all(any(name in text for text in told) for name in names)
    unmarked = [text for text in told if "may repeat" not in text]
    assert all(sum(name in text for text in unmarked) <= 1 for name in names)
    assert db.execute("SELECT count(*) AS n FROM device_alerts WHERE notice IS NOT NULL") == [{"n": 0}]
