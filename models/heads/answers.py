"""Heads that answer questions: tokens of question, frames and sound in one transformer, and the model around a head."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError
from ..layers.blocks import Blocks
from ..layers.dense import linear
from ..layers.draws import RowKeys, dropout, fold, fold_each
from ..layers.norm import LayerNorm
from ..layers.options import BlockOptions
from ..layers.positions import sinusoids
from ..shapes import FrameFeatures, Text, TextMask, Video


class Seen(NamedTuple):
    """Tokens of a clip.

    Attributes:
      video: time tokens `[B,T,C]`.
      sound: tokens `[B,N,S]`, or None for a model without a sound tower.
      sound_mask: bool `[B,N]`, True where a token is real.
    """

    video: FrameFeatures
    sound: Float[Array, "B N S"] | None = None
    sound_mask: Bool[Array, "B N"] | None = None


class Answers(NamedTuple):
    """Scores of answers, float32 `[B,K]`: from question and clip, and from the question alone."""

    joint: Float[Array, "B K"]
    question_only: Float[Array, "B K"]


class JointEncoder(nnx.Module):
    """Question and clip to scores: all tokens in one transformer (merged attention; as in VIOLET, Fu et al. 2021).

    Each modality is projected to one width and gets a learned vector of its own; tokens of frames and sound get
    sinusoids of their places in time. The scores are a linear map of a learned token's last state.
    """

    def __init__(
        self,
        *,
        widths: dict[str, int],
        outputs: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        """Build the layers.

        Args:
          widths: "text", and of "video" and "audio" those that it sees -> width of their tokens.
          outputs: scores K.
          width: D, even; a multiple of `heads`.
          depth: blocks.
          heads: attention heads.
          dropout: rate on the tokens and on the residual branches.
          rngs: source of the initial values.
        """
        self.width, self.dropout, self.sides = width, dropout, tuple(widths)
        make = {"dtype": jnp.float32, "rngs": rngs}
        self.norms = nnx.Dict({side: LayerNorm(size, **make) for side, size in widths.items()})
        self.project = nnx.Dict({side: linear(size, width, **make) for side, size in widths.items()})
        start = jax.random.normal(rngs.params(), (1 + len(widths), width), jnp.float32)
        self.kinds = nnx.Param(0.02 * start)  # of the learned token, then of the modalities
        self.blocks = Blocks(
            BlockOptions(width=width, heads=heads, dropout=dropout, tower="head"), depth=depth, rngs=rngs
        )
        zeros = nnx.initializers.zeros
        self.scores = nnx.Linear(width, outputs, kernel_init=zeros, param_dtype=jnp.float32, rngs=rngs)

    def __call__(
        self,
        tokens: dict[str, Float[Array, "B L C"]],
        *,
        masks: dict[str, Bool[Array, "B L"]],
        keys: RowKeys | None = None,
    ) -> Float[Array, "B K"]:
        """Score answers; `masks` is True where a token is real. Without `keys` dropout is off."""
        rows = tokens["text"].shape[0]
        parts, real = [jnp.broadcast_to(self.kinds[...][None, :1], (rows, 1, self.width))], [jnp.ones((rows, 1), bool)]
        for number, side in enumerate(self.sides, start=1):
            x = (
                self.project[side](self.norms[side](tokens[side].astype(jnp.float32)))
                + self.kinds[...][None, number : number + 1]
            )
            if side != "text":
                x = x + jnp.asarray(sinusoids(x.shape[1], width=self.width), jnp.float32)[None]
            parts.append(x)
            real.append(masks[side])
        x = dropout(jnp.concatenate(parts, axis=1), rate=self.dropout, keys=fold(keys, 0))
        return self.scores(self.blocks(x, mask=jnp.concatenate(real, axis=1), keys=fold(keys, 1))[:, 0])


class AnswerHead(nnx.Module):
    """Scores of answers from question and clip, and next to it the same from the question alone, as a baseline.

    The baseline has parameters of its own and never sees a token of a clip.
    """

    def __init__(
        self,
        *,
        video_width: int,
        text_width: int,
        audio_width: int | None,
        outputs: int,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """Build both.

        Args:
          video_width: of the time tokens.
          text_width: of the question's tokens.
          audio_width: of the sound's tokens; None = there is none.
          outputs: answers K; 1 where each candidate is scored by itself.
          width: D, even.
          depth: blocks.
          heads: attention heads; divides `width`.
          dropout: rate.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide.
        """
        if width % 2 or width % heads or depth < 1:
            raise UserError(
                f"config.task.width={width} must be even and a multiple of config.task.heads={heads}, and "
                f"config.task.depth={depth} at least 1"
            )
        sizes = {"outputs": outputs, "width": width, "depth": depth, "heads": heads, "dropout": dropout, "rngs": rngs}
        widths = {"text": text_width, "video": video_width}
        widths |= {} if audio_width is None else {"audio": audio_width}
        self.joint = JointEncoder(widths=widths, **sizes)
        self.question_only = JointEncoder(widths={"text": text_width}, **sizes)

    def __call__(
        self, seen: Seen, *, words: Float[Array, "B L C"], mask: TextMask, keys: RowKeys | None = None
    ) -> Answers:
        """Score answers to questions about clips, or candidates; row i of both belong together."""
        tokens, masks = {"text": words, "video": seen.video}, {"text": mask}
        masks["video"] = jnp.ones(seen.video.shape[:2], bool)
        if seen.sound is not None and seen.sound_mask is not None:
            tokens["audio"], masks["audio"] = seen.sound, seen.sound_mask
        joint = self.joint(tokens, masks=masks, keys=fold(keys, 0))
        return Answers(joint, self.question_only({"text": words}, masks={"text": mask}, keys=fold(keys, 1)))


class AnswerModel(nnx.Module):
    """A video and a text tower, a sound tower where there is one, and a head that joins their tokens."""

    def __init__(self, *, video: Any, text: Any, audio: Any = None, head: AnswerHead):
        """Join towers and head.

        Args:
          video: a tower whose `features` give `[B,T,C]` for clips.
          text: a tower whose `tokens` give `[B,L,C]` for token ids.
          audio: a tower whose `features` give `[B,N,C]` and their mask for sound; or None.
          head: scores answers.
        """
        self.video, self.text, self.audio, self.head = video, text, audio, head

    def see(
        self,
        *,
        video: Video | None = None,
        tokens: FrameFeatures | None = None,
        audio: Int16[Array, "B S"] | None = None,
        audio_samples: Int[Array, "B"] | None = None,
        keys: RowKeys | None = None,
        frozen: frozenset[str] = frozenset(),
    ) -> Seen:
        """Return the tokens of clips.

        Args:
          video: uint8 `[B,T,H,W,3]`; or `tokens`, the time tokens of a frozen tower, computed before.
          tokens: see `video`.
          audio: int16 `[B,S]`; needed if there is a sound tower.
          audio_samples: real samples of each row; a row without any has no real token.
          keys: one for each row; turns dropout on in the towers that are trained.
          frozen: towers that are not trained: no gradient flows into them and their dropout stays off.
        """
        if tokens is None:
            own = None if "video" in frozen else fold(keys, 0)
            tokens = self.video.features(video, keys=own, drop_patches=False)
        sound, mask = None, None
        if self.audio is not None:
            assert audio is not None and audio_samples is not None
            sound, mask = self.audio.features(
                audio, lengths=audio_samples, keys=None if "audio" in frozen else fold(keys, 1)
            )
            mask = mask & (audio_samples > 0)[:, None]
        stop = jax.lax.stop_gradient
        assert tokens is not None
        tokens = stop(tokens) if "video" in frozen else tokens
        return Seen(tokens, stop(sound) if sound is not None and "audio" in frozen else sound, mask)

    def answer(
        self,
        seen: Seen,
        *,
        text: Text,
        mask: TextMask,
        keys: RowKeys | None = None,
        frozen: frozenset[str] = frozenset(),
    ) -> Answers:
        """Score answers to questions, token ids int32 `[B,L]`, about the clips of the same rows.

        With candidates `[B,O,L]` each is scored by itself: the scores are `[B,O]`. For the others see `see`.
        """
        several = text.ndim == 3
        rows, options = text.shape[:2] if several else (text.shape[0], 1)
        if several:
            text, mask = text.reshape(rows * options, -1), mask.reshape(rows * options, -1)
            sound, real = (
                None if part is None else jnp.repeat(part, options, axis=0) for part in (seen.sound, seen.sound_mask)
            )
            seen = Seen(jnp.repeat(seen.video, options, axis=0), sound, real)
            keys = fold_each(keys, options)
        words = self.text.tokens(text, mask=mask, keys=None if "text" in frozen else fold(keys, 2))
        words = jax.lax.stop_gradient(words) if "text" in frozen else words
        found = self.head(seen, words=words, mask=mask, keys=fold(keys, 3))
        return Answers(*(part.reshape(rows, options) for part in found)) if several else found


ANSWER_HEADS = {"closed": AnswerHead, "choice": AnswerHead}
"""`kind` of a head in a spec: answers of a closed vocabulary, or candidates that come with each question."""
