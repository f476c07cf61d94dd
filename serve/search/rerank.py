"""Re-ranking by a head that sees a text and a clip together: the best moments of the first hits are decoded again."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.machine import cores
from ...data.media.decode import DecodeError
from ...data.media.workers import Decoders, Job, Limits
from ...encode.devices.rows import rounded_up
from ...evaluate.embedding.joint import Sides, check_heads, score_jointly
from ...evaluate.embedding.loaded import Tokens
from ...evaluate.protocols.joint import DEFAULT_K, KINDS
from ...evaluate.protocols.options import parse_named
from ..index.models import VIDEO, Opened
from .collection import Collection
from .engine import Hit, Results
from .query import Wanted

_BATCH = 8  # moments whose time tokens are computed at a time
_FIRST = 50  # hits that are scored, unless k says otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointRerank:
    """How hits are re-ranked.

    Attributes:
      kind: "cross_encoder" or "x_pool", see `evaluate --rerank`.
      k: hits that are scored.
      cosine: factor on the cosine, which is added to the head's score.
    """

    kind: str
    k: int
    cosine: float


def parse_rerank(given: str) -> JointRerank | None:
    """Read `--rerank KIND` or `KIND:k=50,cosine=1`; None if it names no kind, and so a file.

    >>> parse_rerank("cross_encoder:k=20"), parse_rerank("other_queries.txt")
    (JointRerank(kind='cross_encoder', k=20, cosine=0.0), None)

    Raises:
      UserError: an unknown parameter, or a value that is no number.
    """
    if given.partition(":")[0] not in KINDS:
        return None
    kind, options = parse_named(given, known=dict.fromkeys(KINDS, _parameters), flag="--rerank")
    k, cosine = options.get("k", DEFAULT_K[kind] or _FIRST), options.get("cosine", 0.0)
    if type(k) is not int or k < 1 or type(cosine) not in (int, float):
        raise UserError(
            f"--rerank {given}: k must be a number of hits, at least 1, and cosine a factor; got k={k!r} and "
            f"cosine={cosine!r}"
        )
    return JointRerank(kind=kind, k=k, cosine=float(cosine))


def _parameters(*, k: int = _FIRST, cosine: float = 0.0) -> None:
    """Name the parameters of a kind, for `parse_named`."""


def check_rerank(asked: JointRerank, *, wanted: Sequence[Wanted], opened: Opened) -> None:
    """Raise UserError unless a model can re-rank the hits of a query."""
    check_heads(opened.encoder.spec, asked={asked.kind: asked.k}, clip_side=VIDEO, source=opened.row.source)
    terms = [one.term for one in wanted]
    if [(term.kind, term.side) for term in terms] != [("text", VIDEO)]:
        raise UserError(
            f"--rerank {asked.kind} compares one text with what is seen; got "
            f"{', '.join(term.shown() for term in terms)}: ask for one text, without --in"
        )


def rerank_jointly(
    results: Results,
    *,
    asked: JointRerank,
    wanted: Sequence[Wanted],
    collection: Collection,
    opened: Opened,
    limits: Limits | None = None,
) -> tuple[Results, list[str]]:
    """Order the first k hits by a head's scores of the text with their best moments (ALBEF, Li et al. 2021).

    Args:
      results: of the text; the hits behind the first k are left out.
      asked: which head, and how many hits.
      wanted: the text with its embedding; see `check_rerank`.
      collection: the index.
      opened: its model, with the head.
      limits: of the processes that decode; None = the default ones.

    Returns:
      The hits with the head's scores (log-odds of a match by "cross_encoder", cosines by "x_pool"); their stretches and
      strips keep the cosines. And what was wrong with those whose moment cannot be decoded any more: they are left out.
    """
    hits = results.hits[: asked.k]
    frames, failed = _decoded(hits, collection=collection, opened=opened, limits=limits)
    kept = [hit for hit in hits if hit.moment in frames]
    if not kept:
        return dataclasses.replace(results, hits=(), unit=asked.kind), failed
    encoder, (text,) = opened.encoder, wanted
    tokens, mask = _tokens(opened, [frames[hit.moment] for hit in kept])
    sides = Sides(
        text=text.vectors,
        video=np.concatenate([collection.vector(hit.moment, side=VIDEO) for hit in kept]),
        words=Tokens.of(encoder, texts=[text.term.value]),
        tokens=tokens,
        mask=mask,
    )
    made = score_jointly(encoder, sides=sides, asked={asked.kind: len(kept)}, batch_size=_BATCH, progress=False)
    cosines = sides.text @ sides.video.T
    found = made[asked.kind].first("videos", plain=cosines, k=0)
    scores = np.zeros(len(kept))
    scores[found.index[0]] = found.scores[0] + asked.cosine * cosines[0, found.index[0]]
    order = np.argsort(-scores, kind="stable")
    ranked = tuple(dataclasses.replace(kept[i], score=float(scores[i])) for i in order)
    return dataclasses.replace(results, hits=ranked, unit=asked.kind), failed


def _decoded(
    hits: Sequence[Hit], *, collection: Collection, opened: Opened, limits: Limits | None
) -> tuple[dict[int, np.ndarray], list[str]]:
    """Decode the best moments of hits; return their frames by the moment's id, and what could not be decoded."""
    frames, failed = {}, []
    with Decoders(workers=min(cores(), len(hits)) or 1, limits=limits) as decoders:
        coming = []
        for hit in hits:
            start, end = collection.moments(hit.file.id).get(hit.moment, (None, None))
            times: dict[str, Any] = {} if hit.file.fps is None else {"start_s": start, "end_s": end}
            coming.append(decoders.submit(Job(path=hit.file.path, options=opened.decode, **times)))
        for hit, future in zip(hits, coming, strict=True):
            clip = future.result()
            if isinstance(clip, DecodeError):
                failed.append(f"{hit.file.path}: {clip}")
                continue
            try:
                frames[hit.moment] = opened.frames(clip)
            except (UserError, ValueError) as error:
                failed.append(f"{hit.file.path}: {error}")
    return frames, failed


def _tokens(opened: Opened, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the video tower's time tokens of moments, float32 [m,T,D], and which are real; views one after another."""
    encoder, total = opened.encoder, len(frames)
    size = rounded_up(min(_BATCH, total), mesh=encoder.mesh)
    found: list[list[np.ndarray]] = []
    for start in range(0, total, size):
        video = np.stack([frames[min(row, total - 1)] for row in range(start, start + size)])
        views = [video] if video.ndim == 5 else [video[:, view] for view in range(video.shape[1])]
        made = [encoder.embed_local({"video": view}, side=VIDEO, tokens=True) for view in views]
        found.append([np.concatenate([one[key] for one in made], axis=1) for key in ("tokens", "tokens_mask")])
    tokens, mask = (np.concatenate(parts)[:total] for parts in zip(*found, strict=True))
    return tokens, mask
