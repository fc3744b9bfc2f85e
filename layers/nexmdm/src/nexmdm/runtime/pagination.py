"""Keyset pages: `?limit=&cursor=` in, `{items, next_cursor}` out. A cursor is the key of the last item seen."""

import base64
import json
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from nexmdm.runtime import validation
from nexmdm.runtime.errors import Invalid

T = TypeVar("T")


class PageQuery(Struct, kw_only=True):
    """The query parameters of every list."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    cursor: Annotated[str, Meta(max_length=2000)] | None = None

    def after(self, *types: type) -> list[Any]:
        """The key that the cursor encodes, each part with its type (str or datetime), or nulls for the first page.

        Raises:
            Invalid: the cursor is not one of this list.
        """
        if self.cursor is None:
            return [None] * len(types)
        try:
            padded = self.cursor + "=" * (-len(self.cursor) % 4)
            parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            key = list(msgspec.convert(parts, tuple.__class_getitem__(types)))
        except (ValueError, RecursionError):
            raise Invalid("query.cursor", "is not a cursor of this list; use next_cursor of the page before") from None
        for part in key:
            validation.storable(str(part), "query.cursor")
        return [validation.in_utc(part, "query.cursor") if isinstance(part, datetime) else part for part in key]


class Page(Struct, Generic[T]):
    """One page; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None


def page(rows: list[T], limit: int, key: tuple[str, ...]) -> Page[T]:
    """A page of up to `limit + 1` rows (Structs or dicts); an additional row shows that there is a next page."""
    items = rows[:limit]
    if len(rows) <= limit:
        return Page(items, None)
    last = items[-1]
    cursor = msgspec.json.encode([last[name] if isinstance(last, dict) else getattr(last, name) for name in key])
    return Page(items, base64.urlsafe_b64encode(cursor).decode().rstrip("="))
