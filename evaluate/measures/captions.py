"""Captions against references: BLEU, ROUGE-L and CIDEr-D on tokens, as pycocoevalcap computes them.

All take tokens separated by blanks; figures on other tokens are other figures (`ptb_tokens`). BLEU is of the corpus.
CIDEr-D's document frequencies come from the references of the set that is scored, so a subset or a batch gives other
figures. For METEOR see `meteor`: papers print the figure of a Java program (METEOR 1.5) with its own tables of
paraphrases, and implementations without these are another metric of the same name.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from .checks import check_same_length

_REMOVED = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|ll|re|ve))(?!\w)")
_TOKEN = re.compile(r"n't|'(?:s|m|d|ll|re|ve)(?!\w)|\.\.\.|--|[\w]+(?:[-.,/&'][\w]+)*|\S")


def ptb_tokens(text: str) -> str:
    """Return a caption in lower case, cut into tokens as the Penn Treebank does, without punctuation marks.

    An approximation, without Java, of the PTBTokenizer that pycocoevalcap runs: the two agree on plain captions.

    >>> ptb_tokens("A man's dog doesn't bark, does it?")
    "a man 's dog does n't bark does it"
    """
    spaced = _CLITIC.sub(r" \1", text.lower().replace("’", "'"))
    found = [token for token in _TOKEN.findall(spaced) if token not in _REMOVED and token != '"']
    return " ".join(str(_BRACKETS.get(token, token)) for token in found)


def caption_scores(candidates: Sequence[str], *, references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the figures of captions against their references.

    Args:
      candidates: one tokenised caption per clip.
      references: of each clip, at least one tokenised reference.

    Returns:
      `BLEU-1` … `BLEU-4`, `ROUGE-L`, `CIDEr-D`, fractions (CIDEr-D times 10); `exact`, the share of captions that
      equal a reference; `n`.

    >>> found = caption_scores(["a dog runs", "a cat"], references=[["a dog runs"], ["the bird flies", "a cat"]])
    >>> found["ROUGE-L"], round(found["BLEU-2"], 6)
    (1.0, 1.0)
    """
    bleu_figures = bleu(candidates, references=references)["corpus"]
    return {
        **{f"BLEU-{n}": value for n, value in enumerate(bleu_figures, 1)},
        "ROUGE-L": float(rouge_l(candidates, references=references).mean()),
        "CIDEr-D": float(cider_d(candidates, references=references).mean()),
        "exact": float(np.mean([one in given for one, given in zip(candidates, references, strict=True)])),
        "n": len(candidates),
    }


def bleu(candidates: Sequence[str], *, references: Sequence[Sequence[str]], least: int = 0) -> dict[str, Any]:
    """Return BLEU-1 to BLEU-4 (Papineni et al. 2002) of the corpus and of each clip.

    The reference length is the closest one. The figure of the corpus is not the mean over clips.

    Args:
      candidates: as in `caption_scores`.
      references: as in `caption_scores`.
      least: n-grams that a candidate counts as having even if it is shorter than n: 0 in pycocoevalcap, sacrebleu and
        torchmetrics, 1 in nltk's `corpus_bleu`.

    Returns:
      `corpus`, four fractions; `per_clip`, float64 [n,4].

    >>> [round(value, 4) for value in bleu(["a b c d"], references=[["a b x d"]])["corpus"]]
    [0.75, 0.5, 0.0, 0.0]
    """
    pairs = _check(candidates, references=references)
    counts = np.zeros((len(pairs), 2, 4))  # matches and guesses of each order
    lengths = np.zeros((len(pairs), 2))  # of the candidate and of the closest reference
    for row, (candidate, given) in enumerate(pairs):
        lengths[row] = len(candidate), min((abs(len(one) - len(candidate)), len(one)) for one in given)[1]
        for order in range(4):
            found, allowed = _grams(candidate, order + 1), Counter()
            for one in given:
                allowed |= _grams(one, order + 1)
            counts[row, :, order] = (found & allowed).total(), max(least, len(candidate) - order)
    return {
        "corpus": _bleu_of(counts.sum(axis=0), lengths=lengths.sum(axis=0)).tolist(),
        "per_clip": np.stack([_bleu_of(*row) for row in zip(counts, lengths, strict=True)]),
    }


def _bleu_of(counts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    precision = np.cumprod((counts[0] + 1e-15) / (counts[1] + 1e-9)) ** (1 / np.arange(1, 5))
    ratio = (lengths[0] + 1e-15) / (lengths[1] + 1e-9)
    return precision * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def rouge_l(candidates: Sequence[str], *, references: Sequence[Sequence[str]], beta: float = 1.2) -> np.ndarray:
    """Return ROUGE-L of each clip, float64 [n]: the best precision and the best recall over the references.

    >>> rouge_l(["a b c d"], references=[["a c d e"]]).tolist()
    [0.75]
    """
    found = []
    for candidate, given in _check(candidates, references=references):
        common = [_longest_common(candidate, one) for one in given]
        precision = max(common) / max(1, len(candidate))
        recall = max(length / max(1, len(one)) for length, one in zip(common, given, strict=True))
        below = recall + beta**2 * precision
        found.append((1 + beta**2) * precision * recall / below if below else 0.0)
    return np.array(found)


def rouge_f1(candidates: Sequence[str], *, references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the F1 of ROUGE-L of each clip with its best reference, float64 [n], as the package rouge-score prints it.

    It cuts its own tokens: what is no letter a to z and no digit parts them. Without its stemmer.

    >>> rouge_f1(["a b c d"], references=[["a c!", "x"]]).round(4).tolist()
    [0.6667]
    """
    check_same_length(candidates=candidates, references=references)
    words = [re.findall(r"[a-z0-9]+", text.lower()) for text in candidates]
    found = []
    for mine, given in zip(words, references, strict=True):
        theirs = [re.findall(r"[a-z0-9]+", one.lower()) for one in given]
        # 2PR / (P + R) with P = common / mine and R = common / theirs
        found.append(max(2 * _longest_common(mine, one) / max(1, len(mine) + len(one)) for one in theirs))
    return np.array(found)


def cider_d(candidates: Sequence[str], *, references: Sequence[Sequence[str]], sigma: float = 6.0) -> np.ndarray:
    """Return CIDEr-D of each clip, float64 [n], times 10 (Vedantam et al. 2015): pycocoevalcap's "CIDEr".

    The penalty is for the difference in the number of bigrams. One clip alone scores 0,
    since all its n-grams are in all documents.

    >>> cider_d(["a dog", "a cat"], references=[["a dog"], ["a bird"]]).round(3).tolist()
    [5.0, 0.0]
    """
    pairs = _check(candidates, references=references)
    frequency: Counter = Counter()
    for _, given in pairs:
        frequency.update({gram for one in given for gram in _all_grams(one)})
    documents = math.log(len(pairs))

    def vector(tokens: list[str]) -> list[dict[tuple, float]]:
        return [
            {gram: count * (documents - math.log(max(1, frequency[gram]))) for gram, count in _grams(tokens, n).items()}
            for n in range(1, 5)
        ]

    found = []
    for candidate, given in pairs:
        mine, total = vector(candidate), 0.0
        for one in given:
            bigrams = max(0, len(candidate) - 1) - max(0, len(one) - 1)
            penalty = math.exp(-(bigrams**2) / (2 * sigma**2))
            total += penalty * sum(_clipped_cosine(*both) for both in zip(mine, vector(one), strict=True)) / 4
        found.append(10 * total / len(given))
    return np.array(found)


def _clipped_cosine(mine: dict[tuple, float], theirs: dict[tuple, float]) -> float:
    product = sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in mine.items())
    norms = math.sqrt(sum(v * v for v in mine.values())) * math.sqrt(sum(v * v for v in theirs.values()))
    return product / norms if norms else product


def _grams(tokens: list[str], order: int) -> Counter:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def _all_grams(tokens: list[str]) -> set[tuple]:
    return {gram for order in range(1, 5) for gram in _grams(tokens, order)}


def _longest_common(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for token in first:
        before = row[:]
        for j, other in enumerate(second, 1):
            row[j] = before[j - 1] + 1 if token == other else max(before[j], row[j - 1])
    return row[-1]


def _check(
    candidates: Sequence[str], *, references: Sequence[Sequence[str]]
) -> list[tuple[list[str], list[list[str]]]]:
    check_same_length(candidates=candidates, references=references)
    pairs = []
    for row, (candidate, given) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(given, str) or not len(given):
            raise UserError(f"'references' of clip {row} is {given!r}; wanted a list of at least one reference")
        pairs.append((candidate.split(), [one.split() for one in given]))
    return pairs
