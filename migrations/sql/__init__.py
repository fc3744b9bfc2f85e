"""SQL of the schema's functions, one file per version. A released file never changes: code that still runs calls it."""

from pathlib import Path


def frozen(name: str) -> str:
    """The text of `<name>.sql` in this folder."""
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")
