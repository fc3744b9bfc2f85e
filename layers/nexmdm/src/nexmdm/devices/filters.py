"""Filters: which devices a list, a bulk command, a rollout, a schedule or an alert rule applies to.

    checked   a caller's filter, rejected if it is empty or contradictory
    stored    the JSON in a column `filter`: the filter as given and its parsed selector (`requirements`)
    resolve   a filter together with its group's current filter
    where     the SQL condition for a resolved filter

For a single device the SQL function `device_matches` evaluates a stored filter; a test checks that both agree.
"""

from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct

from nexmdm.devices import selectors
from nexmdm.devices.selectors import Requirement
from nexmdm.runtime.database import Executor, Parameters
from nexmdm.runtime.errors import Invalid
from nexmdm.runtime.pagination import PageQuery
from nexmdm.runtime.validation import GivenName

SelectorText = Annotated[str, Meta(max_length=selectors.MAX_CHARACTERS)]
AliasPrefix = Annotated[str, Meta(min_length=1, max_length=200)]
AgentVersion = Annotated[str, Meta(min_length=1, max_length=50)]
PackageName = Annotated[
    str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*(?![\s\S])", max_length=255)
]


# A filter as a column keeps it, and as an event tells it.
Document: TypeAlias = dict[str, Any]


class AppFilter(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Devices that have a package installed, optionally below a version, or whose reported packages lack it."""

    package: PackageName
    version_code_below: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    missing: bool | None = None


class Filter(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Selects the devices that match every given condition, or all devices.

    Attributes:
        selector: labels, in Kubernetes' grammar.
        group: the name of a group, whose own filter must match too.
        alias_prefix: the beginning of the alias.
        online: whether the server heard from the device within three heartbeat intervals.
        all: true for every device; must be the only member.
    """

    selector: SelectorText | None = None
    group: GivenName | None = None
    alias_prefix: AliasPrefix | None = None
    online: bool | None = None
    agent_version: AgentVersion | None = None
    app: AppFilter | None = None
    all: bool | None = None


class Stored(Filter, omit_defaults=True, kw_only=True):
    """A filter as stored in a column."""

    requirements: tuple[Requirement, ...] = ()


class FilterQuery(Struct, kw_only=True):
    """A filter in a query string; `alias` is a prefix."""

    selector: SelectorText | None = None
    group: GivenName | None = None
    alias: AliasPrefix | None = None
    online: bool | None = None
    agent_version: Annotated[str, Meta(max_length=50)] | None = None


class FilteredPageQuery(PageQuery, kw_only=True):
    """The same in the query string of a list. msgspec cannot combine two Structs, so the fields are repeated."""

    selector: SelectorText | None = None
    group: GivenName | None = None
    alias: AliasPrefix | None = None
    online: bool | None = None
    agent_version: Annotated[str, Meta(max_length=50)] | None = None


class Condition(NamedTuple):
    """SQL over `devices d LEFT JOIN device_last_status l ON l.device_id = d.id`, and its parameters."""

    sql: str
    parameters: Parameters


def of_query(query: FilterQuery | FilteredPageQuery) -> Filter:
    """The filter in a query string; it may be empty, which in a list means every device."""
    return Filter(
        selector=query.selector,
        group=query.group,
        alias_prefix=query.alias,
        online=query.online,
        agent_version=query.agent_version,
    )


def checked(filter_: Filter, path: str = "$.filter") -> Filter:
    """The filter, if it is valid and not empty.

    Raises:
        Invalid: it is empty, `all` is not the only member, its selector is invalid, or `app` is contradictory.
    """
    given = conditions(filter_)
    if not given:
        raise Invalid(path, 'is empty; to select every device use {"all": true}')
    if "all" in given and (len(given) > 1 or given["all"] is not True):
        raise Invalid(f"{path}.all", "must be true and the only member")
    if filter_.selector is not None:
        selectors.parse(filter_.selector, f"{path}.selector")
    if filter_.app is not None and filter_.app.missing and filter_.app.version_code_below is not None:
        raise Invalid(f"{path}.app", "give version_code_below or missing, not both")
    return filter_


def conditions(filter_: Filter) -> Document:
    """The filter as plain JSON without absent members."""
    plain: Document = msgspec.to_builtins(filter_)
    return {name: value for name, value in plain.items() if value is not None}


def stored(filter_: Filter, path: str = "$.filter") -> Document:
    """The JSON to store in a column: the filter as given, with its parsed selector.

    Raises:
        Invalid: see `checked`.
    """
    given = conditions(checked(filter_, path))
    if filter_.selector is not None:
        requirements = selectors.parse(filter_.selector, f"{path}.selector")
        given["requirements"] = msgspec.json.decode(msgspec.json.encode(requirements))
    return given


def of_column(kept: Document) -> Filter:
    """A stored filter in the form that callers use."""
    return msgspec.convert(shown(kept), Filter)


def shown(kept: Document) -> Document:
    """The same as JSON, for an event."""
    return {name: value for name, value in kept.items() if name != "requirements"}


def resolve(db: Executor, filter_: Filter, path: str = "$.filter") -> list[Stored]:
    """The filter and its group's own filter; a device must match both.

    A group costs one round trip. An empty filter, which only lists accept, is an empty list.

    Raises:
        Invalid: the selector is invalid, or there is no such group.
    """
    parts: list[Stored] = []
    if conditions(filter_):
        requirements = () if filter_.selector is None else selectors.parse(filter_.selector, f"{path}.selector")
        parts.append(Stored(**msgspec.structs.asdict(filter_), requirements=requirements))
    if filter_.group is not None:
        found = db.execute(_GROUP, {"name": filter_.group}, repeatable=True)
        if not found:
            raise Invalid(f"{path}.group", f"there is no group {filter_.group!r}")
        parts.append(msgspec.convert(found[0]["filter"], Stored))
    return parts


def of_stored(db: Executor, kept: Document) -> list[Stored]:
    """The same for a filter from a column.

    Raises:
        Invalid: there is no such group.
    """
    return resolve(db, of_column(kept))


def where(parts: list[Stored], interval_seconds: float, name: str = "filter") -> Condition:
    """An SQL condition that is true for devices that match every part; without parts, for all devices.

    Args:
        name: the prefix of the parameters' names, for a statement with several conditions.
    """
    found: list[str] = []
    parameters: dict[str, object] = {}

    def add(sql: str, **values: object) -> None:
        found.append(f"({sql})")
        parameters.update(values)

    for n, part in enumerate(parts):
        at = f"{name}_{n}"
        for m, requirement in enumerate(part.requirements):
            sql, values = selectors.condition(requirement, f"{at}_{m}")
            add(sql, **values)
        if part.alias_prefix is not None:
            add(f"d.alias ^@ %({at}_alias)s", **{f"{at}_alias": part.alias_prefix})
        if part.agent_version is not None:
            add(f"l.agent_version = %({at}_agent)s", **{f"{at}_agent": part.agent_version})
        if part.online is not None:
            online = f"device_online(l.last_seen_at, %({name}_interval)s)"
            add(online if part.online else f"NOT {online}", **{f"{name}_interval": interval_seconds})
        if part.app is not None:
            add(
                _MISSING.format(at=at) if part.app.missing else _INSTALLED.format(at=at),
                **{f"{at}_package": part.app.package, f"{at}_below": part.app.version_code_below},
            )
    return Condition(" AND ".join(found) or "true", parameters)


_GROUP = "SELECT filter FROM device_groups WHERE name = %(name)s"

_INSTALLED = """EXISTS (
    SELECT FROM device_apps a WHERE a.device_id = d.id AND a.package = %({at}_package)s AND a.installed
      AND (%({at}_below)s::bigint IS NULL OR a.version_code < %({at}_below)s::bigint))"""

# Without an inventory it is not known which packages are missing.
_MISSING = """l.apps_hash IS NOT NULL AND NOT EXISTS (
    SELECT FROM device_apps a WHERE a.device_id = d.id AND a.package = %({at}_package)s AND a.installed)"""
