"""Describes a CloudWatch alarm that arrives on a topic."""

import json


def in_words(text: str) -> tuple[str, str] | None:
    """(title, text) of an alarm, or None if the message is not an alarm."""
    try:
        alarm = json.loads(text)
    except ValueError:
        return None
    if not isinstance(alarm, dict) or "AlarmName" not in alarm:
        return None
    title = f"{alarm.get('NewStateValue', 'ALARM')}: {alarm['AlarmName']}"
    # An alarm's reason is a sentence about data points, which is not useful when the alarm is over.
    texts = [alarm.get("AlarmDescription")]
    if alarm.get("NewStateValue") != "OK":
        texts.append(alarm.get("NewStateReason"))
    texts.append(" ".join(filter(None, (alarm.get("Region"), alarm.get("StateChangeTime")))))
    return title, "\n".join(str(text) for text in texts if text)
