"""Posts messages from the topic to webhooks: alerts to the routes of their rules, everything else to WEBHOOK_URL.

It stores nothing and retries nothing: if it fails, Lambda retries, and permanent failures go to the dead letters. A
failing webhook does not prevent posts to the others.
"""

from typing import Any, TypeAlias

from nexmdm.runtime import invocations, logs, settings

from functions.notify import message, targets, webhook

# What SNS calls a function with: `Records`, each with its `Sns`.
Event: TypeAlias = dict[str, Any]


@invocations.named
def handler(event: Event, context: Any) -> dict[str, int]:
    """Handle an SNS event. Returns {"posted": number of requests}."""
    logs.begin(context.aws_request_id, context.function_name)
    known = targets.load(settings.load())
    requests = [each for record in event["Records"] for each in targets.requests(known, message.of(record["Sns"]))]
    webhook.post_all(requests)
    return {"posted": len(requests)}
