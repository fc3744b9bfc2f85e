"""Create enrollment tokens without the API."""

from msgspec import structs
from nexmdm.enrollment import tokens
from nexmdm.runtime import actor
from nexmdm.runtime.database import Database, Row


def token(db: Database, alias: str = "label", uses: int = 1, scope: str = "register") -> Row:
    (made,) = tokens.create_tokens(
        db,
        aliases=[alias],
        scope=scope,
        expires_in_sec=1800,
        uses_allowed=uses,
        note=None,
        actor=actor.operator("the suite"),
    )
    return structs.asdict(made)
