"""Posts messages from the topic to webhooks: alerts to the routes of their rules, everything else to WEBHOOK_URL.

It stores nothing and retries nothing: if it fails, Lambda retries, and permanent failures go to the dead letters. A
failing webhook does not prevent posts to the others.
"""

from typing import Any

from nexmdm.runtime import invocations, logs, settings

from functions.notify import message, targets, webhook


@invocations.named
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Handle an SNS event. Returns {"posted": number of requests}."""
    logs.begin(context.aws_request_id, context.function_name)
    known = targets.load(settings.load())
    requests = [each for record in event["Records"] for each in targets.requests(known, message.of(record["Sns"]))]
    webhook.post_all(requests)
    return {"posted": len(requests)}
