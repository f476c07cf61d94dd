"""Text cleaning, declared as a string (`"fix_unicode|lower"`) and applied before tokenizing. No tensorflow.

What public models did to their captions, as declarations:

    CLIP (OpenAI), open_clip "lower"       fix_unicode|unescape_html|collapse_spaces|lower
    SigLIP                                 canonicalize
    SigLIP 2                               lower
    big_vision, open_clip "canonicalize"   underscores_to_spaces|canonicalize
    InternVideo2, VindLU (`pre_text`)      pre_text
    VideoPrism                             punctuation_to_spaces|lower|collapse_spaces|full_stop
"""

import dataclasses
import html
import re
import string
import unicodedata
from collections.abc import Callable

from ...base.errors import UserError
from ..transforms.declare import parse

# Nothing is seen of these, although Unicode counts them among letters, symbols or marks: the fillers of Hangul, the
# blank of Braille, joiners, and selectors of variants.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for block in (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810)) for code in block
}
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")  # categories: control and format characters, white space
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACED = str.maketrans(dict.fromkeys(string.punctuation, " "))
_TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)
_LINK = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)
_PRE_TEXT_DROPPED = re.compile(r"""[,.'!?"()*#:;~]""")


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


@dataclasses.dataclass(frozen=True)
class FixUnicode:
    """Mend text decoded with the wrong encoding (`cafÃ©`), curly quotes, ligatures, full width: ftfy.fix_text."""

    def __post_init__(self) -> None:
        try:
            import ftfy  # noqa: F401
        except ImportError as error:
            raise UserError(
                "text cleaning 'fix_unicode' needs ftfy, which is not installed: pip install ftfy"
            ) from error

    def __call__(self, text: str) -> str:
        """Clean one text."""
        import ftfy

        return ftfy.fix_text(text)


@dataclasses.dataclass(frozen=True)
class Nfc:
    """Compose characters (Unicode NFC): e + combining acute becomes é."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return unicodedata.normalize("NFC", text)


@dataclasses.dataclass(frozen=True)
class Nfkc:
    """Compose characters and replace compatible forms (Unicode NFKC): full width, ligatures, superscripts."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return unicodedata.normalize("NFKC", text)


@dataclasses.dataclass(frozen=True)
class StripControl:
    """Drop control and format characters (Cc, Cf), but not white space nor the joiners of emoji and scripts."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return "".join(c for c in text if c in "\t\n\r\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf"))


@dataclasses.dataclass(frozen=True)
class UnescapeHtml:
    """Replace HTML character references (`&amp;`, `&#39;`), also those that were escaped twice (`&amp;amp;`)."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return html.unescape(html.unescape(text)).strip()


@dataclasses.dataclass(frozen=True)
class StripHtml:
    """Put a space in the place of each HTML tag and comment; `a < b` is left alone. References: `unescape_html`."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return " ".join(_TAG.sub(" ", text).split())


@dataclasses.dataclass(frozen=True)
class StripLinks:
    """Drop links (`https://...`, `www...`)."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return " ".join(_LINK.sub(" ", text).split())


@dataclasses.dataclass(frozen=True)
class UnderscoresToSpaces:
    """Put a space in the place of each underscore."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return text.replace("_", " ")


@dataclasses.dataclass(frozen=True)
class PunctuationToSpaces:
    """Put a space in the place of each character of ASCII punctuation; runs of spaces stay: `collapse_spaces`."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return text.translate(_SPACED)


@dataclasses.dataclass(frozen=True)
class FullStop:
    """End with a full stop: add one unless there is one, also to an empty text."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return text if text.endswith(".") else f"{text}."


@dataclasses.dataclass(frozen=True)
class Canonicalize:
    """Lower case, drop ASCII punctuation, collapse white space: as SigLIP's tokenizer class (Zhai et al. 2023)."""

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return " ".join(text.lower().translate(_ASCII_PUNCTUATION).split())


@dataclasses.dataclass(frozen=True)
class PreText:
    """Clean as the ALBEF family does, InternVideo2 among them (`pre_text`).

    Lower case; drop `, . ' ! ? " ( ) * # : ; ~`; spaces for `-` and `/`; `person` for `<person>`; collapse white space.
    """

    def __call__(self, text: str) -> str:
        """Clean one text."""
        text = _PRE_TEXT_DROPPED.sub("", text.lower())
        text = text.replace("-", " ").replace("/", " ").replace("<person>", "person")
        return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")


@dataclasses.dataclass(frozen=True)
class MaxWords:
    """Keep the first n words."""

    n: int

    def __post_init__(self) -> None:
        if isinstance(self.n, int) and self.n < 1:
            raise ValueError("n must be at least 1")

    def __call__(self, text: str) -> str:
        """Clean one text."""
        return " ".join(text.split()[: self.n])


TEXT_OPS: dict[str, type] = {
    "canonicalize": Canonicalize,
    "collapse_spaces": CollapseSpaces,
    "collapse_whitespace": CollapseSpaces,
    "fix_unicode": FixUnicode,
    "full_stop": FullStop,
    "lower": Lower,
    "max_words": MaxWords,
    "nfc": Nfc,
    "nfkc": Nfkc,
    "pre_text": PreText,
    "punctuation_to_spaces": PunctuationToSpaces,
    "strip_control": StripControl,
    "strip_html": StripHtml,
    "strip_links": StripLinks,
    "strip_punctuation": StripPunctuation,
    "underscores_to_spaces": UnderscoresToSpaces,
    "unescape_html": UnescapeHtml,
}


def is_visible(text: str) -> bool:
    """Return whether a text has a character that can be seen: more than white space, zero-width and control characters.

    >>> is_visible(" a"), is_visible(" \\t"), is_visible("\\u200b\\ufeff")
    (True, False, False)
    """
    return any(c not in _BLANKS and unicodedata.category(c) not in _UNSEEN for c in text)


def text_cleaner(declared: str, *, field: str = "config.data.text") -> Callable[[str], str]:
    """Build the function that cleans a text as declared; an empty declaration leaves it as it is.

    >>> text_cleaner("lower|strip_punctuation")("A dog, running!")
    'a dog running'

    Raises:
      UserError: an unknown operation, wrong arguments, or a library that an operation needs is not installed.
    """
    operations = parse(declared, table=TEXT_OPS, field=field)

    def clean(text: str) -> str:
        for operation in operations:
            text = operation(text)
        return text

    return clean
