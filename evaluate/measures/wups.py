"""WUPS: answers that are nearly right count by their distance to the right one in a taxonomy (Malinowski & Fritz 2014).

The taxonomy is WordNet, read by NLTK (`pip install 'twinreel[wups]'`) from a local folder with its data.
"""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from .answers import normalise_answer
from .checks import check_same_length

Similarity = Callable[[str, str], float]
"""Two words -> how alike they are, 0..1."""
THRESHOLDS = (0.9, 0.0)
"""Papers print WUPS@0.9 and WUPS@0.0."""
_FAR = 0.1  # a similarity below the threshold counts this much


def wups(
    predicted: Sequence[str], *, answers: Sequence[str], similarity: Similarity, threshold: float = 0.9
) -> dict[str, Any]:
    """Return WUPS of answers.

    An answer is the set of its words, normalised as VQA does it. Each word of one answer is matched with the most
    similar word of the other; the similarities of an answer's words are multiplied, and of both directions the smaller
    product counts. Equal words have similarity 1, whether the taxonomy knows them or not.

    Args:
      predicted: one answer per question; "" is wrong.
      answers: the right answers.
      similarity: of two different words.
      threshold: similarities below it count a tenth; 0 = all count as they are.

    Returns:
      `wups` in percent, `per_question` (percent, a list) and `n`.

    Raises:
      UserError: numbers of answers that differ, or a threshold outside 0..1.

    >>> found = wups(["dog", "a cat"], answers=["cat", "the cat"], similarity=lambda a, b: 0.8, threshold=0.9)
    >>> [round(one, 6) for one in found["per_question"]]
    [8.0, 100.0]
    """
    n = check_same_length(predicted=predicted, answers=answers)
    if not 0 <= threshold <= 1:
        raise UserError(f"the threshold of WUPS must be from 0 to 1, got {threshold}; papers print 0.9 and 0")

    def alike(a: str, b: str) -> float:
        if a == b:
            return 1.0
        found = similarity(a, b)
        return found if found >= threshold else _FAR * found

    found = []
    for guess, right in zip(predicted, answers, strict=True):
        mine, wanted = set(normalise_answer(guess).split()), set(normalise_answer(right).split())
        if not mine or not wanted:
            found.append(100.0 * (not mine and not wanted))
            continue
        forward = math.prod(max(alike(a, b) for b in wanted) for a in mine)
        backward = math.prod(max(alike(a, b) for a in mine) for b in wanted)
        found.append(100 * min(forward, backward))
    return {"wups": float(np.mean(found)), "per_question": found, "n": n}


def wordnet_similarity(folder: str | Path) -> Similarity:
    """Return the Wu-Palmer similarity (Wu & Palmer 1994) of the nouns of a WordNet.

    Of two words it is that of their most similar senses, 2 depth(s) / (depth(a) + depth(b)) with the deepest common
    hypernym s; 0 where one of the words is no noun of WordNet.

    Args:
      folder: with WordNet's files, such as `nltk_data/corpora/wordnet` (`data.noun`, `index.noun`, ...); unpacked.

    Raises:
      UserError: NLTK is not installed, or the folder lacks the files.
    """
    try:
        from nltk import data
        from nltk.corpus.reader.wordnet import NOUN, WordNetCorpusReader
    except ImportError as error:
        raise UserError("WUPS reads WordNet through NLTK; install it: pip install 'twinreel[wups]'") from error
    place = Path(folder).absolute()
    needed = WordNetCorpusReader._FILES
    if missing := [name for name in needed if not (place / name).is_file()]:
        raise UserError(
            f"{folder} has no WordNet: {', '.join(missing[:4])} of its {len(needed)} files {_are(missing)} missing; "
            "give the unpacked folder `corpora/wordnet` of NLTK's data, which nothing here downloads"
        )
    if str(place) not in data.path:
        data.path.append(str(place))  # NLTK opens no other folders

    class OneWordNet(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Map no synsets of another version: it would be looked for in NLTK's own folders."""

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions")
        reader: Any = OneWordNet(str(place), None)

    @functools.cache
    def of_pair(a: str, b: str) -> float:
        senses = reader.synsets(a, pos=NOUN), reader.synsets(b, pos=NOUN)
        return max((one.wup_similarity(other) or 0.0 for one in senses[0] for other in senses[1]), default=0.0)

    return lambda a, b: of_pair(*sorted((a, b)))


def _are(missing: Sequence[str]) -> str:
    return "is" if len(missing) == 1 else "are"
