"""The audio tower of CLAP: HTSAT, a Swin transformer on a mel spectrogram that is folded to a square picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError, unknown
from ..layers.conv import FrozenBatchNorm
from ..layers.decibels import MEL_SCALES, decibel_mel, upsampled
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys, fold
from ..layers.names import named
from ..layers.norm import LayerNorm
from ..layers.options import block_options
from ..layers.remat import rematerialised
from ..layers.windows import PatchMerging, WindowBlock

PADDINGS = ("repeatpad", "repeat", "pad")
"""What fills up short sound: whole repeats and then silence, repeats to the end, silence."""
_RATE = 48_000
_FULL_SCALE = 32_768


class HtsatTower(nnx.Module):
    """HTSAT (Chen et al. 2022, arXiv:2202.00874) as CLAP has it (Wu et al. 2023, arXiv:2211.06687); mean of all places.

    The spectrogram of `side * side / mels` frames at most, interpolated to that number, is cut into `side / mels`
    pieces in time, which lie below each other in a square picture. With `fusion`, patches of the spectrogram and wider
    ones of three further pieces of the sound are merged by attention; sound that is no longer than the input is its own
    piece, as in CLAP's feature extractor.

    Args:
      audio_samples: samples S of a clip's sound (`config.data.audio_seconds`).
      audio_rate: their rate in Hz, of which 48,000 is a multiple; sound of a lower one is upsampled first.
      side: of the square picture, places.
      mels: mel bins F; a divisor of `side`.
      fft: samples of a frame of the spectrogram, at 48 kHz.
      hop: samples from frame to frame.
      low_hz: lower edge of the first mel filter.
      high_hz: upper edge of the last.
      mel_scale: one of `layers.decibels.MEL_SCALES`.
      padding: what fills up short sound, one of `PADDINGS`.
      patch: side of the patches, places.
      width: channels of the first stage; each further one has twice as many.
      depths: blocks of each stage.
      stage_heads: attention heads of each stage.
      window: side of the windows of attention, places.
      mlp_ratio: hidden width of the MLPs / their width.
      activation: a name of `layers.activations`.
      patch_norm: a norm follows the embedding of patches.
      fusion: patches of several pieces are merged.
      fusion_ratio: `width` / hidden width of that attention.
      dropout: rate on the residual branches.
      block: further fields of `layers.options.BlockOptions`.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: of no effect, as blocks are not looped over.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not fit, a value out of its range, or an unknown name.
    """

    mean_of_features = True
    """The vector of a sound is the mean of its `features`."""

    def __init__(
        self,
        *,
        audio_samples: int,
        audio_rate: int = _RATE,
        side: int = 256,
        mels: int = 64,
        fft: int = 1024,
        hop: int = 480,
        low_hz: float = 0.0,
        high_hz: float = 14_000.0,
        mel_scale: str = "slaney",
        padding: str = "repeatpad",
        patch: int = 4,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        stage_heads: Sequence[int] = (4, 8, 16, 32),
        window: int = 8,
        mlp_ratio: float = 4.0,
        activation: str = "gelu_exact",
        patch_norm: bool = True,
        fusion: bool = False,
        fusion_ratio: int = 4,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del unroll
        _check(audio_rate, mel_scale=mel_scale, padding=padding, block=block or {})
        _check_sizes(side, mels=mels, patch=patch, window=window, depths=depths, heads=stage_heads)
        self.factor, self.audio_samples = _RATE // audio_rate, audio_samples
        self.side, self.mels, self.patch, self.padding, self.remat = side, mels, patch, padding, remat
        sound = {"sample_rate": _RATE, "window": fft, "hop": hop, "mels": mels, "scale": mel_scale}
        self.sound: tuple[tuple[str, Any], ...] = (*sound.items(), ("low_hz", low_hz), ("high_hz", high_hz))
        self._check_samples(audio_samples, fft=fft, hop=hop)
        self.dtype = compute_dtype(dtype)
        own = {"mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout, "dtype": self.dtype}
        own |= {
            "remat": remat,
            "causal": False,
            "rotary": "none",
            "cross_width": None,
            "final_norm": False,
            "norm_position": "pre",
        }
        self.mel_norm = FrozenBatchNorm(mels, dtype=jnp.float32)
        self.embed = linear(patch * patch, width, dtype=self.dtype, rngs=rngs)
        self.fusion = (
            _PatchFusion(width, patch=patch, ratio=fusion_ratio, dtype=self.dtype, rngs=rngs) if fusion else None
        )
        self.patch_norm = LayerNorm(width, dtype=self.dtype, rngs=rngs) if patch_norm else None
        stages, merges = [], []
        for number, (depth, heads) in enumerate(zip(depths, stage_heads, strict=True)):
            options = block_options(block, tower="audio", width=width, heads=heads, **own)
            blocks = []
            for place in range(depth):
                shifted = place % 2 == 1 and side // patch // 2**number > window
                blocks.append(WindowBlock(options, window=window, shifted=shifted, rngs=rngs))
            stages.append(nnx.List(blocks))
            if number + 1 < len(depths):
                merges.append(PatchMerging(width, dtype=self.dtype, rngs=rngs))
                width *= 2
        self.stages, self.merges, self.width = nnx.List(stages), nnx.List(merges), width
        self.norm = LayerNorm(width, dtype=self.dtype, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        stages = [f"{part}/{n}" for n in range(len(self.stages)) for part in ("stages", "merges")]
        return ("mel_norm", "embed", "fusion", "patch_norm", *stages[: 2 * len(self.stages) - 1], "norm")

    def features(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
        """Return a vector for each place, and a mask: all are real unless a row has no sound; see `__call__`."""
        if audio.shape[1] != self.audio_samples:
            raise UserError(
                f"sound of {audio.shape[1]} samples, the tower wants {self.audio_samples}; config.data.audio_seconds "
                "must be that of the checkpoint"
            )
        x = self._picture(audio, lengths=lengths)
        y = self.embed(rearrange(x, "b (h p) (w q) -> b h w (p q)", p=self.patch, q=self.patch).astype(self.dtype))
        y = y if self.fusion is None else self.fusion(x, patches=y)
        y = named(y if self.patch_norm is None else self.patch_norm(y), "activation/audio/tokens")
        number = 0
        for stage, blocks in enumerate(self.stages):
            for block in blocks:
                y = self._block(block, y, keys=fold(keys, number))
                number += 1
            if stage < len(self.merges):
                y = self.merges[stage](y)
        y = rearrange(self.norm(y), "b h w d -> b (h w) d")
        there = jnp.ones(y.shape[:1], bool) if lengths is None else lengths > 0
        return y, jnp.broadcast_to(there[:, None], y.shape[:2])

    def __call__(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B D"]:
        """Encode sound into float32 vectors.

        Args:
          audio: int16, full scale 32768, padded at the end.
          lengths: int32, real samples of each row, 0 ... S; None = all are real. A row of length 0 gives zeros.
          keys: one key for each row; turns dropout on.
        """
        x, real = self.features(audio, lengths=lengths, keys=keys)
        return jnp.mean(x.astype(jnp.float32), axis=1) * real[:, :1].astype(jnp.float32)

    def _block(self, block: WindowBlock, x: Array, *, keys: RowKeys | None) -> Array:
        graph, params = nnx.split(block)

        def apply(params: Any, x: Array, keys: RowKeys | None) -> Array:
            return nnx.merge(graph, params)(x, keys=keys)

        return rematerialised(apply, policy=self.remat, looped=False)(params, x, keys)

    def _picture(self, audio: Array, *, lengths: Array | None) -> Float[Array, "B side side"]:
        """Return the spectrogram, normalised for each mel bin and folded to a square."""
        lengths = jnp.full(audio.shape[:1], audio.shape[1], jnp.int32) if lengths is None else lengths
        sound = filled_up(audio.astype(jnp.float32) / _FULL_SCALE, lengths=lengths, padding=self.padding)
        x = self.mel_norm(decibel_mel(upsampled(sound, factor=self.factor), **dict(self.sound)))  # [B,frames,F]
        frames = self.side * self.side // self.mels
        if x.shape[1] < frames:
            places, weights = _bicubic(x.shape[1], frames)
            x = jnp.einsum("bktf,kt->btf", x[:, places], jnp.asarray(weights), precision="highest")
        return rearrange(x, "b (r t) f -> b (r f) t", r=self.side // self.mels)

    def _check_samples(self, samples: int, *, fft: int, hop: int) -> None:
        frames, most = 1 + samples * self.factor // hop, self.side * self.side // self.mels
        if samples * self.factor <= fft // 2 or frames > most:
            raise UserError(
                f"sound of {samples} samples is {frames} frames; the tower wants more than {fft // 2} samples at 48 "
                f"kHz and at most {most} frames: set config.data.audio_seconds to at most {(most - 1) * hop / _RATE:g}"
            )


class _PatchFusion(nnx.Module):
    """Patches of a spectrogram and wider ones of three pieces, weighted by attention (AFF, Dai et al. 2021)."""

    def __init__(self, width: int, *, patch: int, ratio: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.patch, self.dtype = patch, dtype
        self.pieces = linear(3 * patch * patch, width, dtype=dtype, rngs=rngs)
        kind = {"ratio": ratio, "dtype": dtype, "rngs": rngs}
        self.near, self.far = _Channels(width, **kind), _Channels(width, **kind)

    def __call__(self, x: Float[Array, "B side side"], *, patches: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        """Merge the patches of `x` with those of three pieces, which all are `x`, one beside the other."""
        count = x.shape[2] // (3 * self.patch)
        x = x[:, :, : count * 3 * self.patch].astype(self.dtype)
        pieces = self.pieces(rearrange(x, "b (h p) (w q) -> b h w (p q)", p=self.patch, q=3 * self.patch))
        pieces = jnp.tile(pieces, (1, 1, 3, 1))
        pieces = jnp.pad(pieces, ((0, 0), (0, 0), (0, patches.shape[2] - pieces.shape[2]), (0, 0)))
        both = patches + pieces
        share = jax.nn.sigmoid(self.near(both) + self.far(jnp.mean(both, axis=(1, 2), keepdims=True)))
        return 2 * patches * share + 2 * pieces * (1 - share)


class _Channels(nnx.Module):
    """Two linear maps with BatchNorm, and ReLU between them."""

    def __init__(self, width: int, *, ratio: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        hidden = width // ratio
        self.up, self.down = (linear(*size, dtype=dtype, rngs=rngs) for size in ((width, hidden), (hidden, width)))
        self.norm1, self.norm2 = FrozenBatchNorm(hidden, dtype=dtype), FrozenBatchNorm(width, dtype=dtype)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return self.norm2(self.down(jax.nn.relu(self.norm1(self.up(x)))))


def filled_up(sound: Float[Array, "B S"], *, lengths: Int[Array, "B"], padding: str) -> Float[Array, "B S"]:
    """Fill what follows the real samples, as CLAP's feature extractor does.

    Args:
      sound: rows of samples.
      lengths: real samples of each row; of a row of 0 all is silence.
      padding: one of `PADDINGS`.
    """
    samples = sound.shape[1]
    real = jnp.maximum(lengths, 1)[:, None]
    place = jnp.arange(samples)[None]
    wanted = {"pad": real, "repeat": samples, "repeatpad": samples // real * real}[padding]
    x = jnp.take_along_axis(sound, place % real, axis=1)
    return jnp.where((place < wanted) & (lengths > 0)[:, None], x, jnp.float32(0))


def _bicubic(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Return four places and their weights for each of `new` ones, `[4,new]`; corners are aligned, a = -0.75."""
    at = np.arange(new) * (old - 1) / (new - 1)
    first = np.floor(at)
    away = np.abs(at - first - np.arange(-1, 3)[:, None])
    a, near = -0.75, (-0.75 + 2) * away**3 - (-0.75 + 3) * away**2 + 1
    far = a * away**3 - 5 * a * away**2 + 8 * a * away - 4 * a
    places = np.clip(first + np.arange(-1, 3)[:, None], 0, old - 1).astype(np.int32)
    return places, np.where(away <= 1, near, far).astype(np.float32)


def _check(rate: int, *, mel_scale: str, padding: str, block: Mapping[str, Any]) -> None:
    for field, value, known in (
        ("mel_scale", mel_scale, MEL_SCALES),
        ("padding", padding, PADDINGS),
    ):
        if value not in known:
            raise unknown(f"config.model.audio.{field}", value, known)
    if rate < 1 or _RATE % rate:
        raise UserError(
            f"config.data.audio_rate={rate}; the tower takes 48,000 Hz or a whole part of it, such as 16,000"
        )
    if block.get("drop_path"):
        raise UserError("config.model.audio.block.drop_path has no form in windows; use config.model.audio.dropout")


def _check_sizes(side: int, *, mels: int, patch: int, window: int, depths: Sequence[int], heads: Sequence[int]) -> None:
    if len(depths) != len(heads) or not depths or min(depths) < 1:
        raise UserError(
            f"config.model.audio: depths={list(depths)} and stage_heads={list(heads)} must be one number of at least 1 "
            "for each stage"
        )
    if side % mels or side % patch or (side // patch) % (window * 2 ** (len(depths) - 1)):
        raise UserError(
            f"config.model.audio.side={side} must be a multiple of mels={mels}, and of patch={patch} times "
            f"window={window} times {2 ** (len(depths) - 1)}, the places that a window of the last stage stands for"
        )
