"""Words of English texts: in a random order, and without nouns or verbs.

TextBlob finds the parts of speech, with a lexicon and rules that its package holds (from `pattern`, De Smedt &
Daelemans 2012, after Brill 1992): nothing is downloaded. Tags are those of the Penn Treebank.
"""

import functools
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Callable

import numpy as np

from ...base.errors import UserError

NOUNS = "NN"
VERBS = "VB"
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_TOKEN = re.compile(rf"{_WORD.pattern}|[^\w\s]")
_BEFORE_POINT = re.compile(r"\s+(?=[,.;:!?])")


def shuffle_words(text: str, draw: np.random.Generator) -> str:
    """Put the words of a text in a random order; what stands between words stays in its place.

    >>> shuffle_words("A dog, then a cat.", np.random.default_rng(1))
    'cat A, dog then a.'
    """
    words = _WORD.findall(text)
    mixed = iter([words[place] for place in draw.permutation(len(words))])
    return _WORD.sub(lambda _: next(mixed), text)


def without_words(text: str, *, tags: str) -> str:
    """Take the words of a part of speech out of a text; a text of which no word would be left stays as it is.

    Args:
      text: English.
      tags: what their Penn Treebank tags begin with: `NOUNS` or `VERBS` (auxiliaries among them).

    Raises:
      UserError: TextBlob is not installed.
    """
    found = parts_of_speech(text)
    words = [_WORD.fullmatch(token) is not None for token, _ in found]
    kept = [not (word and tag.startswith(tags)) for word, (_, tag) in zip(words, found, strict=True)]
    if not any(keep and word for keep, word in zip(kept, words, strict=True)):
        return text
    places = iter(kept)
    left = _TOKEN.sub(lambda token: token[0] if next(places) else " ", text)
    return _BEFORE_POINT.sub("", " ".join(left.split()))


def parts_of_speech(text: str) -> list[tuple[str, str]]:
    """Return the words and punctuation marks of a text with their Penn Treebank tags.

    Raises:
      UserError: TextBlob is not installed.
    """
    tokens = _TOKEN.findall(text)
    tags = _tagger()(" ".join(tokens), tokenize=False) if tokens else []
    assert len(tags) == len(tokens), text
    return [(token, tag) for token, (_, tag) in zip(tokens, tags, strict=True)]


def tagger_missing() -> str:
    """Return why there is no tagger, and what to do; "" if there is one."""
    if importlib.util.find_spec("textblob") is not None:
        return ""
    return "needs TextBlob, which is not installed: pip install 'twinreel[words]'"


def tagger_name() -> str:
    """Return the library that finds parts of speech, with its version."""
    return f"TextBlob {importlib.metadata.version('textblob')}, PatternTagger (English)"


@functools.cache
def _tagger() -> Callable[..., list[tuple[str, str]]]:
    if reason := tagger_missing():
        raise UserError(f"the tagger of parts of speech {reason}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file of its lexicon to the garbage collector
        from textblob.en.taggers import PatternTagger

        tagger = PatternTagger()
        tagger.tag("a")  # reads the lexicon
    return tagger.tag
