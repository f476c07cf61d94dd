"""Text cleaning, declared as a string (`"lower|strip_punctuation"`) and applied before tokenizing. No tensorflow."""

import dataclasses
import unicodedata
from collections.abc import Callable

from ..transforms.declare import parse


@dataclasses.dataclass(frozen=True)
class Lower:
    """Lower case, by Unicode's rules."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return text.lower()


@dataclasses.dataclass(frozen=True)
class StripPunctuation:
    """Drop all characters of the Unicode categories P* (punctuation), and the double spaces that this leaves."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        kept = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
        return " ".join(kept.split())


@dataclasses.dataclass(frozen=True)
class CollapseSpaces:
    """Make every run of white space one space, and none at the ends."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return " ".join(text.split())


TEXT_OPS: dict[str, type] = {
    "collapse_spaces": CollapseSpaces,
    "lower": Lower,
    "strip_punctuation": StripPunctuation,
}


def text_cleaner(declared: str, *, field: str = "config.data.text") -> Callable[[str], str]:
    """Build the function that cleans a text as declared; an empty declaration leaves it as it is.

    >>> text_cleaner("lower|strip_punctuation")("A dog, running!")
    'a dog running'

    Raises:
      UserError: an unknown operation, or wrong arguments.
    """
    operations = parse(declared, table=TEXT_OPS, field=field)

    def clean(text: str) -> str:
        for operation in operations:
            text = operation(text)
        return text

    return clean
