"""Device aliases: which text is a valid alias, and which two aliases look the same."""

import re
import unicodedata
from typing import Annotated

from msgspec import Meta

from nexmdm.runtime.errors import Invalid

MAX_LENGTH = 200
Alias = Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH)]

_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
# Letters and symbols that are invisible.
_INVISIBLE = (
    "\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\N{HANGUL FILLER}\N{HALFWIDTH HANGUL FILLER}"
    "\N{BRAILLE PATTERN BLANK}"
)
# The characters with the property Default_Ignorable_Code_Point (DerivedCoreProperties.txt of Unicode 16), without those
# of category Cf: displayed as nothing, or as another shape of the character before them.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
# Control characters, private use, unpaired surrogates, line and paragraph separators.
_REFUSED = {"Cc", "Co", "Cs", "Zl", "Zp"}


def checked(alias: str, path: str) -> str:
    """The alias in its stored form: NFC, without surrounding space.

    Raises:
        Invalid: it is blank, too long, or contains a character that is invisible or changes the order of others.
    """
    alias = unicodedata.normalize("NFC", alias).strip()
    if not any(unicodedata.category(c)[0] in "LNPS" and c not in _INVISIBLE for c in alias):
        raise Invalid(path, "is blank; give it at least one visible character")
    if len(alias) > MAX_LENGTH:
        raise Invalid(path, f"has {len(alias)} characters; the limit is {MAX_LENGTH}")
    for place, character in enumerate(alias):
        if unicodedata.category(character) in _REFUSED or (
            unicodedata.category(character) == "Cf" and not _joins(alias, place)
        ):
            raise Invalid(path, f"contains the invisible character U+{ord(character):04X}; remove it")
    return alias


def key(alias: str) -> str:
    """A key that is equal for two aliases that look alike: by NFKC and case folding, without invisible characters."""
    shown = "".join(c for c in alias if unicodedata.category(c) != "Cf" and not _IGNORABLE.match(c))
    spaced = shown.replace("\N{BRAILLE PATTERN BLANK}", " ").strip()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", spaced).casefold())


def _joins(alias: str, place: int) -> bool:
    """Whether a joiner is between two visible characters, as in emoji sequences and Persian words."""
    around = (alias[place - 1 : place], alias[place + 1 : place + 2])
    return alias[place] in _JOINERS and all(c and unicodedata.category(c)[0] not in "CZ" for c in around)
