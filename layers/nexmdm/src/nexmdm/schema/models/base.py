"""What the models of every domain share: the declarative base, names of constraints, types of columns."""

from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, Boolean, Integer, MetaData, Text
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


# An object in a jsonb column; the package of its domain says what it holds.
Json: TypeAlias = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy wants it plain
        str: Text(),
        datetime: TIMESTAMP(timezone=True),
        Json: JSONB(),
        float: DOUBLE_PRECISION(),
        list[str]: ARRAY(Text()),
    }


# At most 32 labels; keys like `site`, values strings of at most 200 characters.
LABEL_LIMITS = (
    "jsonb_typeof(labels) = 'object'"
    " AND jsonb_array_length(jsonb_path_query_array(labels, 'strict $.keyvalue()', '{}', true)) <= 32"
    ' AND NOT labels @? \'strict $.keyvalue() ? (!(@.key like_regex "^[a-z][a-z0-9_.-]{0,31}$")'
    ' || @.value.type() != "string" || !(@.value like_regex "^.{0,200}$" flag "s"))\''
)


def one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


TYPES = {
    "text": Text,
    "integer": Integer,
    "bigint": BigInteger,
    "double precision": DOUBLE_PRECISION,
    "boolean": Boolean,
}
