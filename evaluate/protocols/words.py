"""Words of texts: in a random order, and without nouns or verbs.

spaCy tags the parts of speech with a model that the user installs separately (by default an English one); nothing is
downloaded at run time. Parts of speech are those of Universal Dependencies (de Marneffe et al. 2021).
"""

import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from ...base.errors import UserError

NOUNS, VERBS = ("NOUN", "PROPN"), ("VERB", "AUX")
ENGLISH = "en_core_web_sm"
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_TOKEN = re.compile(rf"{_WORD.pattern}|[^\w\s]")
_BEFORE_POINT = re.compile(r"\s+(?=[,.;:!?])")
_UNNEEDED = ("parser", "senter", "ner", "lemmatizer")

Tagger = Callable[[Sequence[Sequence[str]]], list[list[str]]]
"""Tokens of texts -> their parts of speech."""


def shuffle_words(text: str, draw: np.random.Generator) -> str:
    """Put the words of a text in a random order; what stands between words stays in its place.

    >>> shuffle_words("A dog, then a cat.", np.random.default_rng(1))
    'cat A, dog then a.'
    """
    words = _WORD.findall(text)
    mixed = iter([words[place] for place in draw.permutation(len(words))])
    return _WORD.sub(lambda _: next(mixed), text)


def without_words(texts: Sequence[str], *, parts: Collection[str], tagger: Tagger) -> list[str]:
    """Take the words of some parts of speech out of texts; a text of which no word would be left stays as it is.

    Args:
      texts: in the language of the tagger.
      parts: of speech, such as `NOUNS` or `VERBS`.
      tagger: see `tagger_of`.

    >>> nouns = lambda texts: [["NOUN" if word in ("dog", "cat") else "X" for word in text] for text in texts]
    >>> without_words(["A dog, then a cat.", "dog"], parts=NOUNS, tagger=nouns)
    ['A, then a.', 'dog']
    """
    tokens = [_TOKEN.findall(text) for text in texts]
    found = []
    for text, words, tags in zip(texts, tokens, tagger(tokens), strict=True):
        are_words = [_WORD.fullmatch(word) is not None for word in words]
        kept = [not (is_word and tag in parts) for is_word, tag in zip(are_words, tags, strict=True)]
        places = iter(kept)
        left = _TOKEN.sub(lambda token, places=places: token[0] if next(places) else " ", text)
        anything = any(keep and is_word for keep, is_word in zip(kept, are_words, strict=True))
        found.append(_BEFORE_POINT.sub("", " ".join(left.split())) if anything and not all(kept) else text)
    return found


def tagger_missing(model: str) -> str:
    """Return why there is no tagger, and what to do; "" if there is one.

    Args:
      model: the package, or the folder, of a spaCy model.
    """
    if importlib.util.find_spec("spacy") is None:
        return f"needs spaCy: pip install 'twinreel[words]' && python -m spacy download {model}"
    if not Path(model).is_dir() and not (model.isidentifier() and importlib.util.find_spec(model)):
        return (
            f"needs the spaCy model {model!r}, which is not installed: python -m spacy download {model}; --tagger "
            "names another one"
        )
    return ""


def tagger_name(model: str) -> str:
    """Return what finds the parts of speech, with versions."""
    meta = _load(model).meta
    return f"spaCy {importlib.metadata.version('spacy')}, {meta['lang']}_{meta['name']} {meta['version']}"


def tagger_of(model: str) -> Tagger:
    """Return the tagger of a spaCy model.

    Raises:
      UserError: spaCy or the model is not installed.
    """
    pipeline = _load(model)
    from spacy.tokens import Doc  # pyright: ignore[reportMissingImports]

    def tag(texts: Sequence[Sequence[str]]) -> list[list[str]]:
        docs = (Doc(pipeline.vocab, words=list(words)) for words in texts)
        return [[token.pos_ for token in doc] for doc in pipeline.pipe(docs, batch_size=256)]

    return tag


@functools.cache
def _load(model: str):
    if reason := tagger_missing(model):
        raise UserError(f"the tagger of parts of speech {reason}")
    import spacy  # pyright: ignore[reportMissingImports]

    return spacy.load(model, exclude=list(_UNNEEDED))
