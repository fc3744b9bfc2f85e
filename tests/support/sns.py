"""A topic for a test: moto's server on a real socket, and a queue subscribed to the topic that shows what arrives."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from nexmdm.runtime import settings

from functions.watch import topic as sns
from local import s3

REGION = "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}


class Topic:
    def __init__(self, url: str) -> None:
        self.url = url
        self._sqs = s3.session().client("sqs", endpoint_url=url)
        client = s3.session().client("sns", endpoint_url=url)
        # The queue belongs to this suite alone: moto keeps one state per process.
        for old in client.list_topics()["Topics"]:
            if old["TopicArn"].endswith(":alarms"):
                client.delete_topic(TopicArn=old["TopicArn"])
        for old in self._sqs.list_queues(QueueNamePrefix="seen").get("QueueUrls", []):
            self._sqs.delete_queue(QueueUrl=old)
        self.arn = client.create_topic(Name="alarms")["TopicArn"]
        self._queue = self._sqs.create_queue(QueueName="seen")["QueueUrl"]
        queue_arn = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"]
        client.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint=queue_arn["QueueArn"])

    def messages(self) -> list[dict[str, Any]]:
        """The messages since the last call, as SNS wraps them: Subject, Message, MessageAttributes."""
        found: list[dict[str, Any]] = []
        while True:
            batch = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", [])
            if not batch:
                return found
            found += [json.loads(message["Body"]) for message in batch]
            for message in batch:
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])

    def texts(self) -> list[str]:
        return [message["Message"] for message in self.messages()]


@contextmanager
def topic_of(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Topic]:
    """A topic that ALERT_TOPIC_ARN names."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL_SNS": url, "AWS_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    topic = Topic(url)
    monkeypatch.setenv("ALERT_TOPIC_ARN", topic.arn)
    for cached in (settings.load, sns._sns):
        cached.cache_clear()
    yield topic
    for cached in (settings.load, sns._sns):
        cached.cache_clear()
