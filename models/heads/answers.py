"""Heads that answer questions: tokens of question, frames and sound in one transformer, and the model around a head."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError
from ..decoder import TextDecoder
from ..layers.blocks import Blocks, Context
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
          outputs: scores K; 0 = none, for `states` alone.
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
        made = {"kernel_init": zeros, "param_dtype": jnp.float32, "rngs": rngs}
        self.scores = nnx.Linear(width, outputs, **made) if outputs else None

    def __call__(
        self,
        tokens: dict[str, Float[Array, "B L C"]],
        *,
        masks: dict[str, Bool[Array, "B L"]],
        keys: RowKeys | None = None,
    ) -> Float[Array, "B K"]:
        """Score answers; `masks` is True where a token is real. Without `keys` dropout is off."""
        assert self.scores is not None
        return self.scores(self.states(tokens, masks=masks, keys=keys).tokens[:, 0])

    def states(
        self,
        tokens: dict[str, Float[Array, "B L C"]],
        *,
        masks: dict[str, Bool[Array, "B L"]],
        keys: RowKeys | None = None,
    ) -> Context:
        """Return the last states of all tokens `[B,N,D]`, the learned one first, and where they are real."""
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
        mask = jnp.concatenate(real, axis=1)
        return Context(self.blocks(x, mask=mask, keys=fold(keys, 1)), mask)


def _check_sizes(*, width: int, heads: int, depth: int) -> None:
    if width % 2 or width % heads or depth < 1:
        raise UserError(
            f"config.task.width={width} must be even and a multiple of config.task.heads={heads}, and "
            f"config.task.depth={depth} at least 1"
        )


def _joined(
    seen: Seen, *, words: Float[Array, "B L C"], mask: TextMask
) -> tuple[dict[str, Array], dict[str, Bool[Array, "B L"]]]:
    """Return the tokens of question and clip by modality, and their masks."""
    tokens, masks = {"text": words, "video": seen.video}, {"text": mask}
    masks["video"] = jnp.ones(seen.video.shape[:2], bool)
    if seen.sound is not None and seen.sound_mask is not None:
        tokens["audio"], masks["audio"] = seen.sound, seen.sound_mask
    return tokens, masks


def _widths(video: int, text: int, audio: int | None) -> dict[str, int]:
    return {"text": text, "video": video} | ({} if audio is None else {"audio": audio})


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
        _check_sizes(width=width, heads=heads, depth=depth)
        sizes = {"outputs": outputs, "width": width, "depth": depth, "heads": heads, "dropout": dropout, "rngs": rngs}
        self.joint = JointEncoder(widths=_widths(video_width, text_width, audio_width), **sizes)
        self.question_only = JointEncoder(widths={"text": text_width}, **sizes)

    def __call__(
        self, seen: Seen, *, words: Float[Array, "B L C"], mask: TextMask, keys: RowKeys | None = None
    ) -> Answers:
        """Score answers to questions about clips, or candidates; row i of both belong together."""
        tokens, masks = _joined(seen, words=words, mask=mask)
        joint = self.joint(tokens, masks=masks, keys=fold(keys, 0))
        return Answers(joint, self.question_only({"text": words}, masks={"text": mask}, keys=fold(keys, 1)))


def _spread(seen: Seen, *, text: Array, mask: Array, keys: RowKeys | None) -> tuple[Seen, Array, Array, RowKeys | None]:
    """Return one row for each of several texts `[B,O,L]` of a clip."""
    rows, several = text.shape[:2]
    sound, real = (
        None if part is None else jnp.repeat(part, several, axis=0) for part in (seen.sound, seen.sound_mask)
    )
    own = Seen(jnp.repeat(seen.video, several, axis=0), sound, real)
    text, mask = text.reshape(rows * several, -1), mask.reshape(rows * several, -1)
    return own, text, mask, fold_each(keys, several)


class Writings(NamedTuple):
    """What writers of answers attend to: the states of question and clip, and those of the question alone."""

    joint: Context
    question_only: Context


class AnswerWriter(nnx.Module):
    """Writes answers token by token, from question and clip, and next to it from the question alone, as a baseline.

    A causal decoder attends to the states of a `JointEncoder`, as GIT and BLIP answer open questions (Wang et al. 2022;
    Li et al. 2022). The baseline has parameters of its own.

    Attributes:
      start_id: the token that begins every answer.
    """

    def __init__(
        self,
        *,
        video_width: int,
        text_width: int,
        audio_width: int | None,
        vocab_size: int,
        context_length: int,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        decoder_depth: int = 1,
        rngs: nnx.Rngs,
    ):
        """Build both.

        Args:
          video_width: of the time tokens.
          text_width: of the question's tokens.
          audio_width: of the sound's tokens; None = there is none.
          vocab_size: V, of the tokenizer.
          context_length: the most tokens of an answer.
          width: D, even.
          depth: blocks of the encoder.
          heads: attention heads; divides `width`.
          dropout: rate.
          decoder_depth: blocks of the decoder.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide.
        """
        _check_sizes(width=width, heads=heads, depth=min(depth, decoder_depth))
        sizes: dict[str, Any] = {"width": width, "heads": heads, "dropout": dropout, "rngs": rngs}
        encoder: dict[str, Any] = sizes | {"outputs": 0, "depth": depth}
        self.joint = JointEncoder(widths=_widths(video_width, text_width, audio_width), **encoder)
        self.question_only = JointEncoder(widths={"text": text_width}, **encoder)
        self.start_id = vocab_size
        decoder = sizes | {"vocab_size": vocab_size, "context_length": context_length + 1, "start_token": True}
        decoder |= {"depth": decoder_depth, "cross_width": width}
        self.writers = nnx.Dict({name: TextDecoder(**decoder) for name in Writings._fields})

    def __call__(
        self, seen: Seen, *, words: Float[Array, "B L C"], mask: TextMask, keys: RowKeys | None = None
    ) -> Writings:
        """Read questions about clips; row i of both belong together."""
        tokens, masks = _joined(seen, words=words, mask=mask)
        joint = self.joint.states(tokens, masks=masks, keys=fold(keys, 0))
        alone = self.question_only.states({"text": words}, masks={"text": mask}, keys=fold(keys, 1))
        return Writings(joint, alone)

    def states(
        self, read: Writings, *, answer: Text, mask: TextMask, keys: RowKeys | None = None
    ) -> tuple[dict[str, Float[Array, "B L D"]], Text, TextMask]:
        """Return the states of the token after each one of the answers, given those before it.

        Args:
          read: of `__call__`.
          answer: token ids int32 `[B,L]`, the end token included.
          mask: True where a token is real.
          keys: one for each row; turns dropout on.

        Returns:
          Name of `Writings` -> states `[B,L+1,D]`, of which `writers[name].logits` makes logits; the ids behind the
          start token, `[B,L+1]`; and their mask.
        """
        text = jnp.pad(answer, ((0, 0), (1, 0)), constant_values=self.start_id)
        real = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        found = {}
        for number, (name, context) in enumerate(read._asdict().items(), start=2):
            found[name] = self.writers[name].states(text, mask=real, context=context, keys=fold(keys, number))
        return found, text, real


class AnswerModel(nnx.Module):
    """A video and a text tower, a sound tower where there is one, and a head that joins their tokens."""

    def __init__(self, *, video: Any, text: Any, audio: Any = None, head: AnswerHead | AnswerWriter):
        """Join towers and head.

        Args:
          video: a tower whose `features` give `[B,T,C]` for clips.
          text: a tower whose `tokens` give `[B,L,C]` for token ids.
          audio: a tower whose `features` give `[B,N,C]` and their mask for sound; or None.
          head: scores answers, or writes them.
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
          tokens: see `video`. Gradients flow into them, as layers of several tasks may have made them.
          audio: int16 `[B,S]`; needed if there is a sound tower.
          audio_samples: real samples of each row; a row without any has no real token.
          keys: one for each row; turns dropout on in the towers that are trained.
          frozen: towers that are not trained: no gradient flows into them and their dropout stays off.
        """
        if tokens is None:
            own = None if "video" in frozen else fold(keys, 0)
            tokens = self.video.features(video, keys=own, drop_patches=False)
            tokens = jax.lax.stop_gradient(tokens) if "video" in frozen else tokens
        sound, mask = None, None
        if self.audio is not None:
            assert audio is not None and audio_samples is not None
            sound, mask = self.audio.features(
                audio, lengths=audio_samples, keys=None if "audio" in frozen else fold(keys, 1)
            )
            mask = mask & (audio_samples > 0)[:, None]
        sound = jax.lax.stop_gradient(sound) if sound is not None and "audio" in frozen else sound
        assert tokens is not None
        return Seen(tokens, sound, mask)

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

        With several texts `[B,O,L]` of each clip, questions or candidates, each is scored by itself: the scores are
        `[B,O,K]`. For the others see `see`.
        """
        assert isinstance(self.head, AnswerHead)
        several, rows = text.ndim == 3, text.shape[0]
        if several:
            seen, text, mask, keys = _spread(seen, text=text, mask=mask, keys=keys)
        found = self.head(seen, words=self._words(text, mask, keys=keys, frozen=frozen), mask=mask, keys=fold(keys, 3))
        return Answers(*(part.reshape(rows, -1, part.shape[1]) for part in found)) if several else found

    def read(
        self,
        seen: Seen,
        *,
        text: Text,
        mask: TextMask,
        keys: RowKeys | None = None,
        frozen: frozenset[str] = frozenset(),
    ) -> Writings:
        """Return what the writers of answers attend to; for the arguments see `answer`.

        Of several questions `[B,O,L]` of each clip, that of all of them, one clip's after another's.
        """
        if text.ndim == 3:
            seen, text, mask, keys = _spread(seen, text=text, mask=mask, keys=keys)
        assert isinstance(self.head, AnswerWriter)
        words = self._words(text, mask, keys=keys, frozen=frozen)
        return self.head(seen, words=words, mask=mask, keys=fold(keys, 3))

    def _words(
        self, text: Text, mask: TextMask, *, keys: RowKeys | None, frozen: frozenset[str]
    ) -> Float[Array, "B L C"]:
        words = self.text.tokens(text, mask=mask, keys=None if "text" in frozen else fold(keys, 2))
        return jax.lax.stop_gradient(words) if "text" in frozen else words


ANSWER_HEADS = {"closed": AnswerHead, "choice": AnswerHead, "generated": AnswerWriter}
"""`kind` of a head in a spec: answers of a closed vocabulary, candidates that come with each question, or answers that
are written token by token."""
