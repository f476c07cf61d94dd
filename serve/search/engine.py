"""The search: terms are scored on moments, moments are merged into the stretches of files that answer the query."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from ...base.errors import UserError
from ...evaluate.measures.rerank import times_softmax
from ..index.models import VIDEO
from ..index.nearest import Side
from .collection import Collection, FileInfo
from .filters import Filters
from .query import Wanted

_FIRST = 256  # moments that are looked at first; more if they lie in too few files
_MOST = 1 << 20
_LOOKED_AT = 4  # files that are looked at for each hit, where those that look the same are one
_SLACK = 1e-5  # cosines in float32 are no more exact than this

Score = Callable[[np.ndarray], np.ndarray]
"""int64 [k], places of moments of a side -> float32 [k], -inf for those that cannot be meant."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a file: `start_s` to `end_s` in seconds of the file, with its best score."""

    start_s: float
    end_s: float
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    """A file that answers a query.

    Attributes:
      file: what is known of it.
      moment: id of its best moment.
      score: of the best moment.
      spans: the stretches that answer, best first.
      strip: all of its moments in order of time.
      terms: the cosine of each term of the query with the best moment; None where it has nothing on that side.
      alike: further hits that show nearly the same.
    """

    file: FileInfo
    moment: int
    score: float
    spans: tuple[Span, ...]
    strip: tuple[Span, ...]
    terms: tuple[float | None, ...] = ()
    alike: tuple["Hit", ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The answer to a query.

    Attributes:
      hits: best first.
      unit: "cosine" of one term; "z" of several, the weighted mean of standard scores; "dual softmax" after re-ranking.
      search: how it was searched.
      moments: how many moments were searched.
      seconds: how long it took.
    """

    hits: tuple[Hit, ...]
    unit: str
    search: str
    moments: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How hits are chosen and merged.

    Attributes:
      limit: how many files.
      per_file: how many stretches of a file.
      fold: cosine of best moments from which on a file counts as nearly the same as a better one; 0 = do not look.
      bank: float32 [b,E], embeddings of other queries: re-rank by the dual softmax; None = do not.
      scale: what multiplies the cosines in that softmax.
    """

    limit: int = 20
    per_file: int = 3
    fold: float = 0.0
    bank: np.ndarray | None = None
    scale: float = 100.0

    def __post_init__(self):
        if self.limit < 1 or self.per_file < 1:
            raise UserError(f"--limit is {self.limit} and --per_file {self.per_file}; wanted at least 1")


def search(collection: Collection, wanted: Sequence[Wanted], *, filters: Filters, options: SearchOptions) -> Results:
    """Find the files with the moments that answer a query best.

    Of one term a moment's score is its cosine. Of several, each term's cosines become standard scores (less their mean
    over the collection, divided by their standard deviation), whose weighted mean is the score: cosines of text with
    video and of video with video differ too much in size to be added. A moment without sound or transcript cannot
    answer a term that looks there; a term to be avoided does not count against it.

    Args:
      collection: the index.
      wanted: the terms, at least one with a weight above 0.
      filters: which files are searched.
      options: see `SearchOptions`.

    Raises:
      UserError: nothing to look for, terms of another width than the index, filters that leave nothing, or re-ranking
        of several terms.
    """
    begun = time.monotonic()
    positive = [one for one in wanted if one.term.weight > 0]
    if not positive:
        raise UserError("the query names only what to avoid; add what to look for")
    side = collection.side(positive[0].term.side)
    ids = filters.files(collection.connection)
    allowed = None if ids is None else np.isin(side.files, ids)
    score, unit = _scorer(collection, wanted, side=side, options=options)
    places, scores = _ranked(side, positive, score=score, allowed=allowed, options=options, several=len(wanted) > 1)
    kept: list[Hit] = []
    shown: list[np.ndarray] = []  # embeddings of the kept hits
    for place, best in _best_of_files(side, places, scores, limit=options.limit * (_LOOKED_AT if options.fold else 1)):
        hit = _hit(collection, side, place=place, best=best, wanted=wanted, score=score, options=options)
        if hit is not None and not (options.fold and _fold(kept, shown, hit, collection=collection, options=options)):
            kept.append(hit)
        if len(kept) == options.limit:
            break
    return Results(
        hits=tuple(kept),
        unit=unit,
        search=side.kind,
        moments=int(len(side) if allowed is None else allowed.sum()),
        seconds=time.monotonic() - begun,
    )


def _scorer(
    collection: Collection, wanted: Sequence[Wanted], *, side: Side, options: SearchOptions
) -> tuple[Score, str]:
    """Return what scores the moments of a side, and the unit of its scores."""
    if len(wanted) == 1:
        vectors, bank = wanted[0].vectors, options.bank
        if bank is None:
            return (lambda places: side.scores(vectors, places=places)), "cosine"

        def softmax(places: np.ndarray) -> np.ndarray:
            rows = [side.scores(vectors, places=places), *(side.vectors(places) @ np.ascontiguousarray(bank).T).T]
            return times_softmax(np.stack(rows).astype(np.float64), scale=options.scale)[0]

        return softmax, "dual softmax"
    if options.bank is not None:
        raise UserError("--rerank works for queries of one term; leave it out, or ask for one thing")
    total = sum(abs(one.term.weight) for one in wanted)
    spread = [collection.side(one.term.side).spread(one.vectors) for one in wanted]

    def combined(places: np.ndarray) -> np.ndarray:
        found = np.zeros(len(places), np.float64)
        for one, (mean, deviation) in zip(wanted, spread, strict=True):
            cosines = _cosines(collection, one, moments=side.moments[places])
            standard = one.term.weight * (cosines - mean) / deviation / total
            found += np.where(np.isnan(cosines), -np.inf if one.term.weight > 0 else 0.0, standard)
        return found

    return combined, "z"


def _cosines(collection: Collection, one: Wanted, *, moments: np.ndarray) -> np.ndarray:
    """Return the cosines of a term with moments, float64; NaN where a moment has nothing on the term's side."""
    side, found = collection.side(one.term.side), np.full(len(moments), np.nan)
    places = side.find(moments)
    found[places >= 0] = side.scores(one.vectors, places=places[places >= 0])
    return found


def _ranked(
    side: Side,
    positive: Sequence[Wanted],
    *,
    score: Score,
    allowed: np.ndarray | None,
    options: SearchOptions,
    several: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return places and scores of moments, best first: enough for `limit` files, or all there are.

    Of several terms, and for re-ranking, all moments are scored where the search is exact; an approximate index is
    asked for the moments that are near to a term that is looked for.
    """
    total = len(side) if allowed is None else int(allowed.sum())
    count = min(max(_FIRST, 4 * options.limit), total)
    own = np.concatenate([one.vectors for one in positive if one.term.side == positive[0].term.side])
    while True:
        if several and side.exact:
            places = np.arange(len(side)) if allowed is None else np.flatnonzero(allowed)
            count = total
        else:
            places = side.nearest(own, count=count, allowed=allowed)
        scores = score(places)
        places, scores = places[scores > -np.inf], scores[scores > -np.inf]
        enough = len(np.unique(side.files[places])) >= options.limit
        if enough or count >= min(total, _MOST):
            order = np.lexsort((side.moments[places], -scores))
            return places[order], scores[order]
        count = min(4 * count, total)


def _best_of_files(side: Side, places: np.ndarray, scores: np.ndarray, *, limit: int) -> list[tuple[int, float]]:
    """Return the best moment of each file, `(place, score)`, best first."""
    _, first = np.unique(side.files[places], return_index=True)
    chosen = np.sort(first)[:limit]
    return [(int(places[i]), float(scores[i])) for i in chosen]


def _hit(
    collection: Collection,
    side: Side,
    *,
    place: int,
    best: float,
    wanted: Sequence[Wanted],
    score: Score,
    options: SearchOptions,
) -> Hit | None:
    """Return the hit of a file by its best moment; None if the file left the index since it was opened."""
    file, moment = int(side.files[place]), int(side.moments[place])
    info, times = collection.files([file]).get(file), collection.moments(file)
    if info is None or moment not in times:
        return None
    own = side.of_file(file)
    own = own[[int(one) in times for one in side.moments[own]]]
    found = {int(one): float(value) for one, value in zip(side.moments[own], score(own), strict=True)}
    strip = [
        Span(start_s=start, end_s=end, score=found[one])
        for one, (start, end) in times.items()
        if found.get(one, -np.inf) > -np.inf
    ]
    cosines = [_cosines(collection, one, moments=np.array([moment]))[0] for one in wanted]
    return Hit(
        file=info,
        moment=moment,
        score=best,
        spans=tuple(merge(strip)[: options.per_file]),
        strip=tuple(strip),
        terms=tuple(None if np.isnan(value) else float(value) for value in cosines),
    )


def merge(strip: Sequence[Span]) -> list[Span]:
    """Join the moments of a file that answer a query into stretches, best first.

    A moment answers if its score is nearer to the best one than to the median of the file. Moments that touch or
    overlap are joined.

    >>> scores = [0.1, 0.3, 0.29, 0.1, 0.1, 0.25, 0.1]
    >>> strip = [Span(start_s=5.0 * i, end_s=5.0 * i + 10, score=score) for i, score in enumerate(scores)]
    >>> [(span.start_s, span.end_s, span.score) for span in merge(strip)]
    [(5.0, 20.0, 0.3), (25.0, 35.0, 0.25)]
    """
    scores = np.array([span.score for span in strip])
    least = (scores.max() + np.median(scores)) / 2 - _SLACK
    runs: list[Span] = []
    for span in sorted(strip, key=lambda span: span.start_s):
        if span.score < least:
            continue
        if runs and span.start_s <= runs[-1].end_s:
            last = runs.pop()
            span = Span(start_s=last.start_s, end_s=max(last.end_s, span.end_s), score=max(last.score, span.score))
        runs.append(span)
    return sorted(runs, key=lambda span: (-span.score, span.start_s))


def _fold(
    kept: list[Hit], shown: list[np.ndarray], hit: Hit, *, collection: Collection, options: SearchOptions
) -> bool:
    """Add a hit to the first better one that shows nearly the same; return whether there is one."""
    vector = collection.vector(hit.moment, side=VIDEO)[0]
    cosines = np.stack(shown) @ vector if shown else np.zeros(0)
    alike = np.flatnonzero(cosines >= options.fold)
    if len(alike):
        better = kept[alike[0]]
        kept[alike[0]] = dataclasses.replace(better, alike=(*better.alike, hit))
        return True
    shown.append(vector)
    return False
