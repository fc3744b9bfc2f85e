"""The SNS topic for alerts. The only module of this function that uses boto3.

boto3's retries are off: a repeat must be marked as such, so only the next run tries again.
"""

from functools import lru_cache
from typing import Any

import msgspec
from nexmdm.alerts.notifications import Notification
from nexmdm.runtime import endpoints, logs
from nexmdm.runtime.errors import Named
from nexmdm.runtime.settings import Settings


class NotTaken(Named):
    """SNS certainly does not have the notification; the text says why."""


def publish(config: Settings, notification: Notification) -> None:
    """Publish the notification; without ALERT_TOPIC_ARN, write it to the log.

    Raises:
        NotTaken: SNS rejected it or could not be reached.
        Exception: any other error of boto3; SNS may have it.
    """
    if config.alert_topic_arn is None:
        logs.logger().warning("alert", extra={"subject": notification.subject, "text": notification.text})
        return
    region = config.alert_topic_arn.split(":")[3]
    # Imported here because it takes a quarter of a second, and most runs have nothing to send.
    from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

    try:
        _sns(config.aws_endpoint_url_sns, region).publish(
            TopicArn=config.alert_topic_arn,
            Subject=notification.subject,
            Message=notification.text,
            MessageAttributes={
                # For a subscription's filter policy.
                "condition": {"DataType": "String.Array", "StringValue": _array(notification.conditions)},
                # The content of the text as data, for functions/notify.
                "notification": {"DataType": "String", "StringValue": msgspec.json.encode(notification).decode()},
            },
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise
        raise NotTaken(f"SNS says {error.response['Error']['Code']}") from None
    except (ConnectTimeoutError, EndpointConnectionError, NoCredentialsError) as error:
        raise NotTaken(f"SNS could not be reached: {type(error).__name__}") from None


def _array(conditions: list[str]) -> str:
    return "[" + ", ".join(f'"{condition}"' for condition in conditions) + "]"


@lru_cache(maxsize=1)
def _sns(endpoint: str | None, region: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
    return boto3.client("sns", region_name=region, endpoint_url=endpoint or endpoints.url("sns", region), config=config)
