"""Posts what arrives on the topic to webhooks: alerts to the routes of their rules, all else to WEBHOOK_URL.

It keeps nothing and tries nothing twice: it fails, Lambda tries again, and what failed for good is in the dead letters.
One webhook that fails does not keep the others from being posted to.
"""

from typing import Any, TypeAlias

from nexmdm.runtime import invocations, logs, settings

from functions.notify import message, targets, webhook

# What SNS calls a function with: `Records`, each with its `Sns`.
Event: TypeAlias = dict[str, Any]


@invocations.named
def handler(event: Event, context: Any) -> dict[str, int]:
    """{"posted": how many requests were made}"""
    logs.begin(context.aws_request_id, context.function_name)
    known = targets.load(settings.load())
    requests = [each for record in event["Records"] for each in targets.requests(known, message.of(record["Sns"]))]
    webhook.post_all(requests)
    return {"posted": len(requests)}
