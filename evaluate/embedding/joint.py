"""Score texts with clips by the heads of a model: all pairs in blocks, or the first candidates of each query."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError
from ...encode.devices.rows import rounded_up, shares
from ...models.heads.sides import Clips, Texts
from ..measures.rows import UnitRows, cosine, parts, row_numbers, unit_rows
from ..progress import track
from ..protocols.joint import KINDS, SIDES, Candidates, JointScores, first_candidates
from ..protocols.scored import check_size
from .loaded import Tokens

if TYPE_CHECKING:
    import jax

    from ...encode.embed.encoder import Encoder
    from ...zoo.spec import ModelSpec

_TEXTS = 1024
"""Texts whose tokens are held at a time, at least."""
_CLIPS = 256
"""Clips that meet a batch of texts at a time, where all pairs are scored."""
_PAIRS = 8
"""Pairs in a batch, as a multiple of the batch of clips."""


def check_heads(spec: "ModelSpec", *, asked: Mapping[str, int], clip_side: str, source: str = "") -> None:
    """Raise UserError unless a model has the heads that methods of re-ranking need.

    Args:
      spec: of the model.
      asked: of `scored.joint_asked`.
      clip_side: what stands for a clip; heads see the video tower alone.
      source: where the model comes from, for messages.
    """
    heads = spec.joint_heads if asked else {}
    for kind in asked:
        if heads.get(KINDS[kind], {}).get("kind") != kind:
            has = ", ".join(heads) or "none"
            raise UserError(
                f"--rerank {kind} needs a model with the head {KINDS[kind]!r}, and {source or 'this one'} has: "
                f"{has}; train one with config.model.heads={{{KINDS[kind]!r}: {{'kind': {kind!r}}}}} and its term in "
                "config.loss.terms"
            )
        if clip_side not in ("", "video"):
            raise UserError(f"--rerank {kind} compares texts with what is seen; set --clip_side video")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sides:
    """The texts and clips whose pairs are scored.

    Attributes:
      text: float32 [n,E], the embeddings of the texts.
      video: float32 [m,E], those of the clips.
      words: the texts as token ids.
      tokens: float32 [m,T,D], the video tower's time tokens.
      mask: bool [m,T], which of them are real.
    """

    text: np.ndarray
    video: np.ndarray
    words: Tokens
    tokens: np.ndarray
    mask: np.ndarray


def score_jointly(
    encoder: "Encoder", *, sides: Sides, asked: Mapping[str, int], batch_size: int, progress: bool
) -> dict[str, JointScores]:
    """Score pairs by the model's heads, sharded over devices and processes; all processes must call this.

    Equal texts and equal clips are scored once, so that their ties remain ties.

    Args:
      encoder: the model, with the heads; see `check_heads`.
      sides: texts and clips.
      asked: of `scored.joint_asked`: kind -> candidates k of each query, 0 = all pairs.
      batch_size: clips in a global batch.
      progress: draw a progress bar.

    Raises:
      UserError: so many pairs that re-ranking could not hold their scores.
    """
    check_size(len(sides.text), len(sides.video))
    pairs = _Pairs(encoder, sides=sides, batch_size=batch_size, progress=progress)
    found = {}
    for kind, k in asked.items():
        if not k and kind == "x_pool":
            found[kind] = JointScores(pairs=pairs.all_pairs())
            continue
        index = {
            "videos": _first(sides.text, candidates=sides.video, k=k or len(sides.video)),
            "texts": _first(sides.video, candidates=sides.text, k=k or len(sides.text)),
        }
        found[kind] = JointScores(candidates=pairs.of_candidates(index, kind=kind))
    return found


def _first(queries: np.ndarray, *, candidates: np.ndarray, k: int) -> np.ndarray:
    """Return the first k candidates of each query by their cosines, int32 [q,k]."""
    rows, gallery = UnitRows(queries, name="queries"), unit_rows(candidates, name="candidates")
    blocks = parts(len(rows), width=2 * len(gallery))
    return np.concatenate(
        [first_candidates(cosine(rows[block], gallery=gallery), k=min(k, len(gallery))) for block in blocks]
    )


class _Pairs:
    """Pairs of distinct texts and distinct clips."""

    def __init__(self, encoder: "Encoder", *, sides: Sides, batch_size: int, progress: bool):
        self._encoder, self._sides, self._progress = encoder, sides, progress
        self._size = rounded_up(batch_size, mesh=encoder.mesh)
        self._batch = self._size * _PAIRS
        self._span = max(_TEXTS, self._batch)  # texts whose tokens are held; those of a batch are consecutive
        self._text_of = sides.words.place  # [n], the distinct text of each
        self._text_row = np.unique(self._text_of, return_index=True)[1]
        self._clip_of = row_numbers(sides.tokens.reshape(len(sides.tokens), -1))  # [m], the distinct clip of each
        self._clip_row = np.unique(self._clip_of, return_index=True)[1]

    def all_pairs(self) -> np.ndarray:
        """Return the scores of all texts with all clips by the head of text-conditioned pooling, float32 [n,m]."""
        texts, clips = len(self._text_row), len(self._clip_row)
        found = np.zeros((texts, clips), np.float32)
        block = min(_CLIPS, clips)
        steps = [(start, one) for start in range(0, clips, block) for one in shares(texts, batch_size=self._batch)]
        given = {"what": "x_pool", "total": len(steps), "batch_size": 1, "progress": self._progress}
        for start, (whole, own) in track(steps, **given):
            columns = self._clip_row[np.arange(start, start + block) % clips]
            shared = {"tokens": self._sides.tokens[columns], "tokens_mask": self._sides.mask[columns]}
            rows = {"text": self._sides.text[self._text_row[np.arange(own.start, own.stop) % texts]]}
            made = self._encoder.apply_local(rows, function=_pool_all, shared=shared)["scores"]
            stop = min(start + block, clips)
            found[whole, start:stop] = made[: whole.stop - whole.start, : stop - start]
        return found[self._text_of][:, self._clip_of]

    def of_candidates(self, index: Mapping[str, np.ndarray], *, kind: str) -> dict[str, Candidates]:
        """Score the candidates of both directions.

        Args:
          index: of `SIDES`, int32 [q,k].
          kind: of `joint.KINDS`.
        """
        texts, videos = (np.arange(len(index[side]))[:, None] for side in SIDES)
        both = {
            "videos": self._text_of[texts] * len(self._clip_row) + self._clip_of[index["videos"]],
            "texts": self._text_of[index["texts"]] * len(self._clip_row) + self._clip_of[videos],
        }
        wanted, place = np.unique(np.concatenate([both[side].reshape(-1) for side in SIDES]), return_inverse=True)
        scores = self._score(*np.divmod(wanted, len(self._clip_row)), kind=kind)[place.reshape(-1)]
        cut = both["videos"].size
        flat = {"videos": scores[:cut], "texts": scores[cut:]}
        return {side: Candidates(index=index[side], scores=flat[side].reshape(index[side].shape)) for side in SIDES}

    def _score(self, text: np.ndarray, clip: np.ndarray, *, kind: str) -> np.ndarray:
        """Score distinct pairs int64 [p] of distinct texts (rising) and clips; float32 [p]."""
        found, words, first = np.zeros(len(text), np.float32), {}, 0
        _, own = next(shares(self._batch, batch_size=self._batch))
        begins = range(0, len(text), self._batch)
        given = {"total": len(text), "batch_size": self._batch, "progress": self._progress}
        for begin in track(begins, what=kind, **given):
            stop = min(begin + self._batch, len(text))
            rows = np.minimum(np.arange(own.start, own.stop) + begin, stop - 1)
            if kind == "cross_encoder" and (not words or text[stop - 1] >= first + self._span):
                first = int(text[begin])
                words = self._words(first)
            pairs = {"text": self._sides.text[self._text_row[text[rows]]]}
            pairs |= {key: value[text[rows] - first] for key, value in words.items()}
            at = self._clip_row[clip[rows]]
            pairs |= {"tokens": self._sides.tokens[at], "tokens_mask": self._sides.mask[at]}
            made = self._encoder.apply_local(pairs, function=_FUNCTIONS[kind])
            found[begin:stop] = made["score"][: stop - begin]
        return found

    def _words(self, first: int) -> dict[str, np.ndarray]:
        """Return the tokens of `_span` distinct texts from one on, and which are real."""
        words, total = self._sides.words, len(self._text_row)
        stop = min(first + self._span, total)
        made = []
        for whole, own in shares(stop - first, batch_size=self._size):
            rows = np.minimum(np.arange(own.start, own.stop) + first, stop - 1)
            given = {"text": words.ids[rows], "text_mask": words.mask[rows]}
            made.append(self._encoder.apply_local(given, function=_text_tokens)["tokens"][: whole.stop - whole.start])
        return {"words": np.concatenate(made), "words_mask": words.mask[first:stop]}


def _clips(model: Any, rows: "dict[str, jax.Array]") -> Clips:
    return model.clips(rows["tokens"], mask=rows["tokens_mask"])


def _text_tokens(model: Any, rows: "dict[str, jax.Array]") -> "dict[str, jax.Array]":
    _, tokens = model.encode_with_tokens("text", inputs=rows)
    return {"tokens": tokens.astype("float32")}


def _match(model: Any, rows: "dict[str, jax.Array]") -> "dict[str, jax.Array]":
    texts = Texts(rows["text"], rows["words"], rows["words_mask"])
    return {"score": model.heads["matching"](texts, clips=_clips(model, rows))}


def _pool(model: Any, rows: "dict[str, jax.Array]") -> "dict[str, jax.Array]":
    return {"score": model.heads["text_pooling"](Texts(rows["text"]), clips=_clips(model, rows))}


def _pool_all(model: Any, rows: "dict[str, jax.Array]") -> "dict[str, jax.Array]":
    return {"scores": model.heads["text_pooling"].scores(Texts(rows["text"]), clips=_clips(model, rows))}


_FUNCTIONS = {"cross_encoder": _match, "x_pool": _pool}
