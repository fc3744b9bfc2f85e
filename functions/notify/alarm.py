"""A CloudWatch alarm as it arrives on a topic, in words."""

import json


def in_words(text: str) -> tuple[str, str] | None:
    """(title, text) of an alarm, or None when the message is something else."""
    try:
        alarm = json.loads(text)
    except ValueError:
        return None
    if not isinstance(alarm, dict) or "AlarmName" not in alarm:
        return None
    title = f"{alarm.get('NewStateValue', 'ALARM')}: {alarm['AlarmName']}"
    # The reason of an alarm is a sentence about datapoints; of one that is over it says nothing new.
    texts = [alarm.get("AlarmDescription")]
    if alarm.get("NewStateValue") != "OK":
        texts.append(alarm.get("NewStateReason"))
    texts.append(" ".join(filter(None, (alarm.get("Region"), alarm.get("StateChangeTime")))))
    return title, "\n".join(str(text) for text in texts if text)
