"""Minimal pairs: does a clip's caption score above a foil, the same caption with a single thing changed?

Foil captions as in FOIL (Shekhar et al. 2017) and SugarCrepe (Hsieh et al. 2023): retrieval among unrelated clips is
won by what is easiest to see, and minimal pairs tell which attributes a model sees at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..measures.checks import check_index
from ..measures.intervals import wilson_interval
from ..measures.rows import check_pair, paired_cosine, unit_rows

CHANCE = 50.0


@dataclass(frozen=True, kw_only=True)
class Foils:
    """Wrong captions of a split, embedded.

    Attributes:
      embedding: float [p,E], one row per foil.
      of_text: int [p], the caption that each foil contradicts.
      names: str [p], what each foil changes, such as "colour".
    """

    embedding: np.ndarray
    of_text: np.ndarray
    names: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], *, texts: int) -> "Foils | None":
        """Take the foils from the arrays of `to_arrays`; None if there are none.

        Raises:
          UserError: one of the three arrays is missing, or they do not fit together or the `texts` captions.
        """
        found = {key: arrays[name] for key, name in _ARRAYS.items() if name in arrays}
        if not found:
            return None
        if missing := [name for key, name in _ARRAYS.items() if key not in found]:
            raise UserError(f"no array {missing[0]!r}; foils need {', '.join(_ARRAYS.values())}")
        foils = cls(**found)
        unit_rows(foils.embedding, name=_ARRAYS["embedding"])
        check_index(foils.of_text, name=_ARRAYS["of_text"], length=len(foils.embedding), limit=texts)
        if foils.names.shape != foils.of_text.shape or foils.names.dtype.kind != "U":
            got = f"{foils.names.dtype} {foils.names.shape}"
            raise UserError(
                f"{_ARRAYS['names']!r} is {got}; wanted a string for each of the {len(foils.of_text)} foils"
            )
        return foils

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of an `.npz` of embeddings."""
        return {name: getattr(self, key) for key, name in _ARRAYS.items()}


_ARRAYS = {"embedding": "foil", "of_text": "text_of_foil", "names": "foil_names"}


def list_foils(rows: Sequence[Mapping[str, Any]], *, video_of_text: np.ndarray) -> tuple[list[str], np.ndarray, list]:
    """List the foils of clips.

    Args:
      rows: lines of `clips.jsonl`; `foils` maps what is changed to the first caption with that change.
      video_of_text: int [n], each caption's clip, in order.

    Returns:
      The p foils, the caption that each contradicts (int64 [p]), and what each changes.
    """
    first = np.searchsorted(video_of_text, np.arange(len(rows)))
    listed = [
        (text, int(first[clip]), name)
        for clip, row in enumerate(rows)
        if row["captions"]
        for name, text in (row.get("foils") or {}).items()
    ]
    return [text for text, *_ in listed], np.array([k for _, k, _ in listed], np.int64), [name for *_, name in listed]


def minimal_pairs(*, text: np.ndarray, video: np.ndarray, video_of_text: np.ndarray, foils: Foils) -> dict[str, Any]:
    """Measure how often a clip's caption scores above a foil of it, for each thing that foils change.

    Args:
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video.
      foils: of the captions.

    Returns:
      name -> `accuracy` in percent (a tie counts half; chance is 50), `low` and `high`, its 95 % confidence interval
      (Wilson 1927), and `n`, the pairs; in alphabetical order of the names.

    Raises:
      UserError: rows that are zero or not finite, or arrays that do not fit together.

    Two videos; the model tells the colour, and gives both captions of a pair of shapes the same embedding:

    >>> video = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> foils = Foils(
    ...     embedding=np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]),
    ...     of_text=np.array([0, 1, 0]),
    ...     names=np.array(["colour", "colour", "shape"]),
    ... )
    >>> found = minimal_pairs(text=video, video=video, video_of_text=np.array([0, 1]), foils=foils)
    >>> [(name, one["accuracy"], one["n"]) for name, one in found.items()]
    [('colour', 100.0, 2), ('shape', 50.0, 1)]
    """
    text, video, index = check_pair(text, video=video, video_of_text=video_of_text)
    wrong_text = unit_rows(foils.embedding, name=_ARRAYS["embedding"])
    if wrong_text.shape[1] != text.shape[1]:
        raise UserError(f"'foil' has width {wrong_text.shape[1]} and 'text' {text.shape[1]}; wanted those of one model")
    clip = index[foils.of_text]
    right = paired_cosine(text[foils.of_text], second=video[clip])
    wrong = paired_cosine(wrong_text, second=video[clip])
    won = (right > wrong) + 0.5 * (right == wrong)
    found = {}
    for name in sorted(set(foils.names.tolist())):
        here = won[foils.names == name]
        share, n = float(here.mean()), len(here)
        low, high = wilson_interval(share, n=n)
        found[name] = {"accuracy": 100 * share, "low": 100 * low, "high": 100 * high, "n": n}
    return found
