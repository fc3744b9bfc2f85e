"""Posts what arrives on the topic to a webhook: alerts about devices as they are, CloudWatch's alarms in words.

It keeps nothing and tries nothing twice: it fails, Lambda tries again, and what failed for good is in the dead letters.
"""

from typing import Any

from nexmdm.runtime import invocations, logs, secrets, settings

from functions.notify import alarm, webhook


@invocations.named
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """{"posted": how many messages}"""
    logs.begin(context.aws_request_id, context.function_name)
    config = settings.load()
    url = secrets.webhook_url(config)
    for record in event["Records"]:
        message = record["Sns"]
        title, text = alarm.in_words(message) or (message.get("Subject") or "NexMDM", message["Message"])
        webhook.post(url, config.webhook_shape, title, text)
    return {"posted": len(event["Records"])}
