"""Labels on the command line: KEY=VALUE sets one, KEY- removes it."""

from rich.text import Text

from nexmdm_cli.failures import Code, Failure


def changes(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """(labels to set, keys to remove).

    Raises:
        Failure: one of them is neither KEY=VALUE nor KEY-.
    """
    to_set: dict[str, str] = {}
    to_remove: list[str] = []
    for text in given:
        key, sign, value = text.partition("=")
        if sign and key:
            to_set[key] = value
        elif not sign and len(text) > 1 and text.endswith("-"):
            to_remove.append(text[:-1])
        else:
            raise Failure(f"{text!r} is not a label.", Code.USAGE, "Give KEY=VALUE to set a label, KEY- to remove one.")
    return to_set, to_remove


def only_set(given: list[str]) -> dict[str, str]:
    """Labels to set on a new object.

    Raises:
        Failure: one of them is not KEY=VALUE.
    """
    to_set, to_remove = changes(given)
    if to_remove:
        raise Failure(f"{to_remove[0] + '-'!r} is not KEY=VALUE.", Code.USAGE)
    return to_set


def shown(labels: dict[str, str]) -> Text:
    return Text(", ".join(f"{key}={value}" for key, value in sorted(labels.items())))
