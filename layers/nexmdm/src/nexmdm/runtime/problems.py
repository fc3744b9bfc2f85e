"""Problem documents (RFC 9457), the bodies of the errors in `nexmdm.runtime.errors`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class FieldError(Struct, forbid_unknown_fields=True, kw_only=True):
    """`path` is a JSONPath into the body, or query., path. or header. with a name."""

    path: str
    detail: str
    column: Annotated[int, Meta(ge=1, description="of a selector: the position of the error")] | UnsetType = UNSET


class Use(Struct, forbid_unknown_fields=True, kw_only=True):
    """A use of a group."""

    kind: str
    name: str


class Problem(Struct, forbid_unknown_fields=True, kw_only=True):
    """RFC 9457. `detail` is for people: it names the field or the limit and says what to do."""

    type: Literal["about:blank"]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: list[FieldError] | UnsetType = UNSET
    reason: Annotated[str, Meta(description="of a 410; recognized by the agent")] | UnsetType = UNSET
    what: Annotated[str, Meta(description="of a refused build: the part that was checked")] | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    found: str | UnsetType = UNSET
    code: Annotated[str, Meta(description="of a 409: targets_changed")] | UnsetType = UNSET
    device_count: Annotated[int, Meta(description="of targets_changed: the current number of devices")] | UnsetType = (
        UNSET
    )
    target_hash: Annotated[str, Meta(description="of targets_changed: the current set of devices")] | UnsetType = UNSET
    used_by: Annotated[list[Use], Meta(description="of a group in use")] | UnsetType = UNSET
