"""The SNS topic that alerts are told to. The one place of this function that knows boto3.

Its own retries are off: a repeat must be known as one, so it is the next run that tries again.
"""

from functools import lru_cache
from typing import Any

import msgspec
from nexmdm.alerts.notifications import Notification
from nexmdm.runtime import endpoints, logs
from nexmdm.runtime.errors import Named
from nexmdm.runtime.settings import Settings


class NotTaken(Named):
    """The topic certainly does not have the notification; the text says why."""


def publish(config: Settings, notification: Notification) -> None:
    """Hand the notification over; without ALERT_TOPIC_ARN it is a log record.

    Raises:
        NotTaken: SNS refused it, or was not reached.
        Exception: anything else of boto3's: SNS may have it.
    """
    if config.alert_topic_arn is None:
        logs.logger().warning("alert", extra={"subject": notification.subject, "text": notification.text})
        return
    region = config.alert_topic_arn.split(":")[3]
    # Loaded here and not above: it costs a quarter of a second, and most runs have nothing to tell.
    from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

    try:
        _sns(config.aws_endpoint_url_sns, region).publish(
            TopicArn=config.alert_topic_arn,
            Subject=notification.subject,
            Message=notification.text,
            MessageAttributes={
                # For a subscription's filter policy.
                "condition": {"DataType": "String.Array", "StringValue": _array(notification.conditions)},
                # For functions/notify: what the text says, as data.
                "notification": {"DataType": "String", "StringValue": msgspec.json.encode(notification).decode()},
            },
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise
        raise NotTaken(f"SNS says {error.response['Error']['Code']}") from None
    except (ConnectTimeoutError, EndpointConnectionError, NoCredentialsError) as error:
        raise NotTaken(f"SNS was not asked: {type(error).__name__}") from None


def _array(conditions: list[str]) -> str:
    return "[" + ", ".join(f'"{condition}"' for condition in conditions) + "]"


@lru_cache(maxsize=1)
def _sns(endpoint: str | None, region: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
    return boto3.client("sns", region_name=region, endpoint_url=endpoint or endpoints.url("sns", region), config=config)
