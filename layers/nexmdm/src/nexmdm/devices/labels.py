"""The limits of labels, and how labels are merged."""

from typing import Annotated

from msgspec import Meta

from nexmdm.devices.selectors import KEY_PATTERN
from nexmdm.runtime.errors import Invalid

MAX_LABELS = 32
LabelKey = Annotated[str, Meta(pattern=rf"^{KEY_PATTERN}(?![\s\S])")]
LabelValue = Annotated[str, Meta(max_length=200)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=MAX_LABELS)]


def merged(labels: dict[str, str], change: dict[str, str | None] | None, path: str = "$.labels") -> dict[str, str]:
    """The labels after a merge according to RFC 7396: null removes a key, and null for all labels removes them all.

    Raises:
        Invalid: there would be too many labels.
    """
    if change is None:
        return {}
    result = {key: value for key, value in (labels | change).items() if value is not None}
    if len(result) > MAX_LABELS:
        raise Invalid(path, f"the device would have {len(result)} labels; at most {MAX_LABELS} are allowed")
    return result


def of_enrolled(device: dict[str, str], token: dict[str, str]) -> dict[str, str]:
    """The labels of a re-enrolled device: those of the token, and its own up to the limit."""
    both = token | {key: value for key, value in device.items() if key not in token}
    return dict(list(both.items())[:MAX_LABELS])
