"""The score that is explained, as functions of a model and rows: values, so that each compiles once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..models.layers.capture import real_pixels
from .cells import spread, sums

Rows = dict[str, jax.Array]
SIMILARITY = "similarity"
_LEAST = 1e-6  # probability at which log odds are cut off


@dataclasses.dataclass(frozen=True)
class Score:
    """The score of clips: the cosine with a text, the log odds of a class, or a number.

    Attributes:
      kind: "similarity", or the kind of a classifier, one of `encode.predict.predictor.KINDS`.
      side: of a dual tower "video", or its fusion of video and audio.
    """

    kind: str
    side: str = "video"

    def __call__(self, model: Any, video: Array, rows: Rows) -> Float[Array, "b"]:
        """Score clips.

        Args:
          model: a dual tower or a classifier.
          video: pixels `[b,T,H,W,3]`.
          rows: what all rows share: `target` `[E]` or `label`; `mask` `[T]`, `audio` `[S]` and `audio_samples`, if
            there are any; `mean` and `std` of a number.
        """
        if self.kind != SIMILARITY:
            return self._of_logits(model(video), rows)
        mask = None if "mask" not in rows else jnp.broadcast_to(rows["mask"], (video.shape[0], *rows["mask"].shape))
        if self.side == "video":
            return model.encode_video(video, mask=mask) @ rows["target"]
        count = video.shape[0]
        inputs = {"video": video} | ({} if mask is None else {"video_mask": mask})
        sound = rows["heard"] if "heard" in rows else jnp.broadcast_to(rows["audio"], (count, *rows["audio"].shape))
        inputs |= {"audio": sound, "audio_samples": jnp.broadcast_to(rows["audio_samples"], (count,))}
        present = {"audio": inputs["audio_samples"] > 0}
        return model.encode_fused(inputs, present=present).embedding @ rows["target"]

    def _of_logits(self, logits: Float[Array, "b K"], rows: Rows) -> Float[Array, "b"]:
        if self.kind == "regression":
            return logits[:, 0] * rows["std"] + rows["mean"]
        chosen = jnp.arange(logits.shape[1] + (self.kind == "ordinal")) == rows["label"]
        if self.kind == "multi":
            return jnp.sum(jnp.where(chosen, logits, jnp.float32(0)), axis=1)
        if self.kind == "single":
            rest = jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, logits), axis=1)
            return jnp.sum(jnp.where(chosen, logits, jnp.float32(0)), axis=1) - rest
        above = jax.lax.cummin(jax.nn.sigmoid(logits), axis=1)
        every = jnp.pad(above, ((0, 0), (1, 0)), constant_values=1) - jnp.pad(above, ((0, 0), (0, 1)))
        share = jnp.clip(jnp.sum(jnp.where(chosen, every, jnp.float32(0)), axis=1), _LEAST, 1 - _LEAST)
        return jnp.log(share) - jnp.log1p(-share)


@dataclasses.dataclass(frozen=True)
class Occluded:
    """Scores of a clip of which cells are taken away: rows `keep` bool `[b,t,G,G]`, shared `video` and `baseline`."""

    score: Score

    def __call__(self, model: Any, rows: Rows) -> Rows:
        """Return `score` float32 `[b]`."""
        keep = spread(rows["keep"], shape=rows["video"].shape)
        return {"score": self.score(model, jnp.where(keep, rows["video"][None], rows["baseline"][None]), rows)}


@dataclasses.dataclass(frozen=True)
class Muted:
    """Scores of sound of which segments are silent: rows `keep` bool `[b,K]`, shared `audio` and `segment` `[S]`."""

    score: Score
    fused: bool

    def __call__(self, model: Any, rows: Rows) -> Rows:
        """Return `score` float32 `[b]`: of the fused clip, or of the sound alone."""
        keep = jnp.take(rows["keep"], rows["segment"], axis=1)  # [b,S]
        heard = jnp.where(keep, rows["audio"][None], jnp.int16(0))
        if not self.fused:
            lengths = jnp.broadcast_to(rows["audio_samples"], (heard.shape[0],))
            return {"score": model.encode_audio(heard, lengths=lengths) @ rows["target"]}
        video = jnp.broadcast_to(rows["video"], (heard.shape[0], *rows["video"].shape))
        return {"score": self.score(model, video, rows | {"heard": heard})}


@dataclasses.dataclass(frozen=True)
class PixelGradients:
    """Gradients on the way from the baseline to the clip: rows `alpha` float32 `[b]`, where 1 is the clip.

    Attributes:
      score: what is explained.
      steps: time steps t.
      grid: cells G along each side.
    """

    score: Score
    steps: int
    grid: int

    def __call__(self, model: Any, rows: Rows) -> Rows:
        """Return gradient times (clip - baseline), summed over cells, `[b,t,G,G]`."""
        start = rows["baseline"].astype(jnp.float32)[None]
        way = rows["video"].astype(jnp.float32)[None] - start
        x = start + rows["alpha"][:, None, None, None, None] * way

        def total(x: Array) -> Array:
            with real_pixels():
                return jnp.sum(self.score(model, x, rows))

        return {"part": sums(jax.grad(total)(x) * way, steps=self.steps, grid=self.grid)}


@dataclasses.dataclass(frozen=True)
class TokenGradients:
    """Gradients on the way from empty words to a text: rows `alpha` `[b]`, shared `text`, `text_mask`, `worded` `[L]`.

    A token's place gets an entry of its own in the table of embeddings, behind the vocabulary, so that every text tower
    with such a table can be asked. Embeddings of words, where `worded` is True, come from zero; those of special tokens
    stay.
    """

    def __call__(self, model: Any, rows: Rows) -> Rows:
        """Return `part` `[b,L]`, gradient times embedding; and `score` `[b]`."""
        graph, state = nnx.split(model)
        table = model.text.embedding[...]
        own = jnp.take(table, rows["text"], axis=0)  # [L,D]
        count, length = rows["alpha"].shape[0], own.shape[0]
        share = jnp.where(rows["worded"][None], rows["alpha"][:, None], jnp.float32(1))
        x = own[None] * share[..., None].astype(own.dtype)
        ids = jnp.arange(count * length, dtype=jnp.int32).reshape(count, length) + jnp.int32(table.shape[0])
        mask = jnp.broadcast_to(rows["text_mask"], (count, length))

        def total(x: Array) -> tuple[Array, Array]:
            changed = nnx.merge(graph, state)
            changed.text.embedding = nnx.Param(jnp.concatenate([table, x.reshape(-1, x.shape[-1])]))
            score = changed.encode_text(ids, mask=mask) @ rows["clip"]
            return jnp.sum(score), score

        gradient, score = jax.grad(total, has_aux=True)(x)
        way = jnp.where(rows["worded"][:, None], own, jnp.zeros((), own.dtype))
        return {"part": jnp.sum((gradient * way[None]).astype(jnp.float32), axis=-1), "score": score}
