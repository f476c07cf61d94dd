"""Numbers that stand for texts: one that is equal where texts are equal, one where they are alike."""

import hashlib
import html
import re
import unicodedata

import ftfy

_KEPT = bytes(c for c in range(128) if chr(c).isalnum())
_DROPPED = bytes(c for c in range(256) if c not in _KEPT)
_PLAIN = re.compile(rb"[&<]|http|www", re.IGNORECASE)
_TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)
_LINK = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)


def exact_key(text: str) -> int:
    """Return 64 bits of a text's BLAKE2b: equal texts have equal keys."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def alike_key(text: str) -> int:
    """Return a key that texts share if text cleaning makes them equal, whatever `config.data.text` says.

    It is of the letters and digits alone, without case, after mending the encoding and dropping tags and links. Texts
    that stay different may share it, too. `max_words` alone makes texts equal that have different keys.
    """
    return exact_key(_reduced(text))


def _reduced(text: str) -> str:
    if text.isascii():
        raw = text.encode()
        if _PLAIN.search(raw) is None:
            return raw.translate(None, _DROPPED).lower().decode()
    text = ftfy.fix_text(html.unescape(html.unescape(text)))
    text = _LINK.sub(" ", _TAG.sub(" ", text.replace("<person>", "person")))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in folded if c.isalnum())
