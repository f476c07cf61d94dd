"""Dense captions: events with times and captions against reference events, in two protocols.

*ActivityNet Captions* (Krishna et al. 2017), as its code `densevid_eval` computes it. At each threshold of temporal
intersection over union (tIoU) a predicted event is paired with all reference events of its film that it overlaps with
so much; one that overlaps with none is paired with a text that shares nothing with any caption. The pairs of a film are
a small corpus, which BLEU, ROUGE-L, CIDEr-D and METEOR score; films are averaged, those without a predicted event with
0, and then thresholds. So a reference event that nothing overlaps with costs recall alone, CIDEr-D takes its document
frequencies from the pairs of one film, and the CIDEr-D of a film with one pair is 0. Precision is the share of
predicted events that overlap with any reference event, recall the share of reference events that any predicted one
overlaps with, both of each film and averaged.

*SODA* (Fujita et al. 2020), as its code computes `SODA_c`: predicted and reference events are matched one to one, in
the order of time, so that the sum of tIoU times caption score is the largest. The sum over the number of predicted
events is precision, over that of reference events recall; the mean of the films' F1 is the figure. Published ones use
METEOR; ROUGE-L gives figures of their own.

Readings: the unmatched text is one fixed word, where `densevid_eval` draws letters at random; all predicted events
count, where it drops those after the 1000th of a film; films have one set of references, where ActivityNet's validation
films have two, which count as two films here. As in both codes, 1e-8 is added to the union, so that a tIoU that equals
a threshold is below it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from ...base.errors import UserError
from .captions import bleu, cider_d, rouge_l
from .checks import check_same_length
from .spans import check_spans, overlaps

if TYPE_CHECKING:
    from .meteor import Meteor

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""Of tIoU, in ActivityNet's protocol."""
_NOTHING = "qzxjvkwpfh"  # what a prediction is compared with that overlaps with no reference
_EPSILON = 1e-8  # of the union of two spans


class _Events(NamedTuple):
    """Events of a film in order of time: spans [n,2], and their captions."""

    spans: np.ndarray
    captions: list[str]


class _Film(NamedTuple):
    """A film: what was predicted, what is true, and the tIoU of both [n,m]."""

    found: _Events
    truth: _Events
    overlap: np.ndarray


def dense_caption_scores(
    predicted: Sequence[Sequence[Mapping[str, Any]]],
    *,
    references: Sequence[Sequence[Mapping[str, Any]]],
    thresholds: Sequence[float] = THRESHOLDS,
    meteor: "Meteor | None" = None,
) -> dict[str, Any]:
    """Return the figures of events with captions; for the protocols see the head of this file.

    Args:
      predicted: of each film its events: `start_s`, `end_s`, seconds, and `caption`, tokens separated by blanks.
      references: of each film at least one event of the same form.
      thresholds: of tIoU, above 0.
      meteor: the running program that computes METEOR; None = without.

    Returns:
      Fractions (CIDEr-D times 10): `BLEU-1` … `BLEU-4`, `ROUGE-L`, `CIDEr-D`, `METEOR` if asked for, `precision` and
      `recall`, means over the thresholds; `at`, the same at each threshold, by its text ("0.3"); `SODA`: of ROUGE-L
      and, if asked for, METEOR `precision`, `recall` and `F1`; `per_film`, the F1 of SODA with ROUGE-L of each film;
      the numbers `films`, `predicted` and `references`.

    Raises:
      UserError: no film, a film without a reference, spans that end before they start, or a threshold out of range.

    >>> event = {"start_s": 0.0, "end_s": 2.0, "caption": "a dog runs"}
    >>> found = dense_caption_scores([[event]], references=[[event, event | {"start_s": 5.0, "end_s": 9.0}]])
    >>> found["ROUGE-L"], found["precision"], found["recall"], round(found["SODA"]["ROUGE-L"]["F1"], 6)
    (1.0, 1.0, 0.5, 0.666667)
    """
    check_same_length(predicted=predicted, references=references)
    if not len(thresholds) or not all(0 < limit <= 1 for limit in thresholds):
        raise UserError(f"thresholds={list(thresholds)} of tIoU; wanted numbers above 0 and at most 1, such as 0.5")
    films = [_film(number, *both) for number, both in enumerate(zip(predicted, references, strict=True))]
    at = {f"{limit:g}": _at(films, limit=limit, meteor=meteor) for limit in thresholds}
    first = next(iter(at.values()))
    matched = {"ROUGE-L": [_soda(film, meteor=None) for film in films]}
    if meteor is not None:
        matched["METEOR"] = [_soda(film, meteor=meteor) for film in films]
    means = {name: np.mean(rows, axis=0).tolist() for name, rows in matched.items()}
    return {
        **{name: float(np.mean([one[name] for one in at.values()])) for name in first},
        "at": at,
        "SODA": {name: dict(zip(("precision", "recall", "F1"), row, strict=True)) for name, row in means.items()},
        "per_film": [float(f1) for _, _, f1 in matched["ROUGE-L"]],
        "films": len(films),
        "predicted": sum(map(len, predicted)),
        "references": sum(map(len, references)),
    }


def overlap_of(first: np.ndarray, *, second: np.ndarray) -> Float64[np.ndarray, "n m"]:
    """Return the tIoU of spans [n,2] with spans [m,2], with 1e-8 added to the union.

    >>> overlap_of(np.array([[0.0, 10.0]]), second=np.array([[5.0, 10.0], [20.0, 30.0]])).round(4).tolist()
    [[0.5, 0.0]]
    """
    return overlaps(first, second=second, added=_EPSILON)


def matched_in_order(values: Float64[np.ndarray, "n m"]) -> list[tuple[int, int]]:
    """Return the pairs (row, column) that rise in both and whose values, not below 0, have the largest sum.

    Pairs of value 0 are left out.

    >>> matched_in_order(np.array([[0.1, 0.9], [0.8, 0.2], [0.0, 0.5]]))
    [(1, 0), (2, 1)]
    """
    n, m = values.shape
    best = np.zeros((n + 1, m + 1))
    for i in range(n):
        for j in range(m):
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + values[i, j])
    pairs, i, j = [], n, m
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _at(films: Sequence[_Film], *, limit: float, meteor: "Meteor | None") -> dict[str, float]:
    """Return the figures of ActivityNet's protocol at one threshold, means over films."""
    rows = []
    for film in films:
        near = film.overlap >= limit
        covered = {"precision": float(near.any(axis=1).mean()) if len(near) else 0.0}
        covered |= {"recall": float(near.any(axis=0).mean())}
        rows.append(_scores(*_pairs(film, near=near), meteor=meteor) | covered)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _pairs(film: _Film, *, near: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Return the captions of a film's predicted events, one for each reference that is near, and these references."""
    candidates, references = [], []
    for caption, row in zip(film.found.captions, near, strict=True):
        given = [film.truth.captions[j] for j in np.flatnonzero(row)] or [_NOTHING]
        candidates += [caption] * len(given)
        references += [[text] for text in given]
    return candidates, references


def _scores(candidates: list[str], references: list[list[str]], *, meteor: "Meteor | None") -> dict[str, float]:
    """Return the figures of the pairs of one film."""
    names = [f"BLEU-{n}" for n in range(1, 5)]
    if not candidates:
        empty = [*names, "ROUGE-L", "CIDEr-D", *(["METEOR"] if meteor is not None else [])]
        return dict.fromkeys(empty, 0.0)
    found = dict(zip(names, bleu(candidates, references=references)["corpus"], strict=True))
    found["ROUGE-L"] = float(rouge_l(candidates, references=references).mean())
    found["CIDEr-D"] = float(cider_d(candidates, references=references).mean())
    if meteor is not None:
        found["METEOR"] = meteor.scores(candidates, references=references)["corpus"]
    return found


def _soda(film: _Film, *, meteor: "Meteor | None") -> tuple[float, float, float]:
    """Return precision, recall and F1 of a film by SODA_c, with ROUGE-L or METEOR as the score of captions."""
    if not len(film.overlap):
        return 0.0, 0.0, 0.0
    values = film.overlap * caption_matrix(film.found.captions, references=film.truth.captions, meteor=meteor)
    total = sum(float(values[pair]) for pair in matched_in_order(values))
    precision, recall = total / values.shape[0], total / values.shape[1]
    return precision, recall, 2 * precision * recall / (precision + recall) if total else 0.0


def caption_matrix(
    captions: Sequence[str], *, references: Sequence[str], meteor: "Meteor | None" = None
) -> Float64[np.ndarray, "n m"]:
    """Return ROUGE-L, or METEOR, of each of n captions with each of m references alone; all are tokenised."""
    candidates = [one for one in captions for _ in references]
    given = [[text] for _ in captions for text in references]
    shape = (len(captions), len(references))
    if meteor is None:
        return rouge_l(candidates, references=given).reshape(shape)
    return np.asarray(meteor.scores(candidates, references=given)["per_clip"], np.float64).reshape(shape)


def _film(number: int, found: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> _Film:
    if not len(truth):
        raise UserError(f"'references' of film {number} has no event; leave that film out")
    own, true = (
        _events(found, name=f"'predicted' of film {number}"),
        _events(truth, name=f"'references' of film {number}"),
    )
    return _Film(own, true, overlap_of(own.spans, second=true.spans))


def _events(given: Sequence[Mapping[str, Any]], *, name: str) -> _Events:
    """Return the events of a film in order of time."""
    spans = check_spans([[one["start_s"], one["end_s"]] for one in given], name=name)
    order = np.lexsort((spans[:, 1], spans[:, 0]))
    return _Events(spans[order], [str(given[i]["caption"]) for i in order])
