"""The local alarm topic, in the same moto server as S3, and a reader of its messages."""

import asyncio
import json
from collections.abc import Callable

from local.s3 import session

QUEUE = "of-the-view"
POLLED_EVERY = 1.0


def make_topic(url: str) -> str:
    """Create a topic and a queue that receives its messages; return the topic's ARN."""
    sns, sqs = session().client("sns", endpoint_url=url), session().client("sqs", endpoint_url=url)
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=attributes["QueueArn"])
    return topic


async def read(url: str, tell: Callable[[str], None]) -> None:
    """Pass each line of each notification to `tell`, until cancelled."""
    sqs = session().client("sqs", endpoint_url=url)
    queue = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    while True:
        found = await asyncio.to_thread(sqs.receive_message, QueueUrl=queue, MaxNumberOfMessages=10)
        for message in found.get("Messages", []):
            for line in json.loads(message["Body"])["Message"].splitlines():
                tell(f"alert: {line}")
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        await asyncio.sleep(POLLED_EVERY)
