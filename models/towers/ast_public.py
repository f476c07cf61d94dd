"""The audio tower of the public AST weights: Kaldi's filter banks, overlapping patches, two leading tokens."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError
from ..layers.blocks import Blocks
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.fbank import kaldi_fbank
from ..layers.names import named
from ..layers.options import block_options
from ..layers.positions import resize_positions

_WINDOW, _HOP = 400, 160  # samples: 25 ms and 10 ms at 16 kHz


class PublicAstTower(nnx.Module):
    """Audio spectrogram transformer as it was published (AST, Gong et al. 2021).

    The sound becomes `frames` frames of filter banks: longer sound is cut, and after shorter sound stand zeros, which
    the tokens see, as in training. The result is the mean of class and distillation token. Our own form for training
    from scratch, in which padding has no part, is `ast.AudioTower`.

    Args:
      audio_samples: samples S of a clip's sound at 16 kHz (`config.data.audio_seconds`), at least one frame of 400.
      frames: frames of 10 ms that the tower sees.
      mels: mel bins F.
      patch: patch side, in frames and in mel bins.
      time_stride: frames from patch to patch.
      mel_stride: mel bins from patch to patch.
      mean: of the filter banks, subtracted.
      spread: divides them (twice their deviation, in the public weights).
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      block: further fields of `layers.options.BlockOptions`.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not fit, a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        *,
        audio_samples: int,
        frames: int = 1024,
        mels: int = 128,
        patch: int = 16,
        time_stride: int = 10,
        mel_stride: int = 10,
        mean: float = -4.2677393,
        spread: float = 9.1379948,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        activation: str = "gelu_exact",
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        sizes = {"frames": frames, "mels": mels, "patch": patch, "time_stride": time_stride, "mel_stride": mel_stride}
        _check(audio_samples=audio_samples, **sizes)
        self.audio_samples, self.frames, self.mels, self.patch = audio_samples, frames, mels, patch
        self.mean, self.spread, self.width, self.dtype = mean, spread, width, compute_dtype(dtype)
        self.time_stride, self.mel_stride = time_stride, mel_stride
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="audio", causal=False, rotary="none", cross_width=None, **own)
        count = _count(frames, patch=patch, stride=time_stride) * _count(mels, patch=patch, stride=mel_stride)
        self.embed = linear(patch * patch, width, dtype=self.dtype, rngs=rngs)
        self.class_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (2, width), jnp.float32))
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (count, width), jnp.float32))
        self.blocks = Blocks(options, depth=depth, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("embed", "class_token", "position", "blocks/layers", "blocks/norm")

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of another number of frames to those of this tower."""
        bands = _count(self.mels, patch=self.patch, stride=self.mel_stride)
        times = _count(self.frames, patch=self.patch, stride=self.time_stride)
        return {"position": functools.partial(_other_times, bands=bands, times=times)}

    def tokens(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B M D"]:
        """Encode sound into tokens: class and distillation token, then the patches, frequency by frequency.

        The arguments are those of `__call__`.
        """
        if audio.shape[1] != self.audio_samples:
            raise UserError(
                f"sound of {audio.shape[1]} samples, the tower wants {self.audio_samples}; "
                "config.data.audio_seconds must be that of the checkpoint"
            )
        x = (self._filter_banks(audio, lengths=lengths) - jnp.float32(self.mean)) / jnp.float32(self.spread)
        times = _places(self.frames, patch=self.patch, stride=self.time_stride)
        bands = _places(self.mels, patch=self.patch, stride=self.mel_stride)
        x = rearrange(x[:, times][..., bands], "b t p f q -> b (f t) (q p)")  # [B,patches,P*P]
        x = self.embed(x.astype(self.dtype)).astype(jnp.float32) + self.position[...][None]
        leading = jnp.broadcast_to(self.class_token[...][None], (x.shape[0], 2, self.width))
        x = jnp.concatenate([leading, x], axis=1)
        return self.blocks(named(x.astype(self.dtype), "activation/audio/tokens"), keys=keys)

    def __call__(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B D"]:
        """Encode sound.

        Args:
          audio: int16 at 16 kHz, full scale 32768, padded at the end.
          lengths: int32, real samples of each row, 0 ... S; None = all are real. A row of length 0 gives zeros.
          keys: one key for each row; turns dropout on.

        Returns:
          float32, the mean of class and distillation token.
        """
        pooled = jnp.mean(self.tokens(audio, lengths=lengths, keys=keys)[:, :2].astype(jnp.float32), axis=1)
        return pooled if lengths is None else jnp.where(lengths[:, None] > 0, pooled, jnp.float32(0))

    def features(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
        """Return `tokens`, and a mask: all are real unless a row has no sound; for the arguments see `__call__`."""
        x = self.tokens(audio, lengths=lengths, keys=keys)
        there = jnp.ones(x.shape[:1], bool) if lengths is None else lengths > 0
        return x, jnp.broadcast_to(there[:, None], x.shape[:2])

    def _filter_banks(self, audio: Array, *, lengths: Array | None) -> Float[Array, "B frames F"]:
        """Return `frames` frames, zeros where they do not lie wholly within the real sound."""
        x = kaldi_fbank(audio, mels=self.mels)[:, : self.frames]
        if lengths is not None:
            real = jnp.where(lengths >= _WINDOW, 1 + (lengths - _WINDOW) // _HOP, 0)
            x = jnp.where((jnp.arange(x.shape[1])[None] < real[:, None])[..., None], x, jnp.float32(0))
        return jnp.pad(x, ((0, 0), (0, self.frames - x.shape[1]), (0, 0)))


def _other_times(table: Float[Array, "M D"], *, bands: int, times: int) -> Float[Array, "L D"] | None:
    """Cut positions to the middle ones in time, or interpolate them, as AST's own code does (Gong et al. 2021)."""
    if table.shape[0] % bands:
        return None
    grid = rearrange(table, "(f t) d -> f t d", f=bands)
    old = grid.shape[1]
    if times > old:
        return resize_positions(table, old=(bands, old), new=(bands, times), method="bilinear")
    first = old // 2 - times // 2
    return rearrange(grid[:, first : first + times], "f t d -> (f t) d")


def _count(length: int, *, patch: int, stride: int) -> int:
    return (length - patch) // stride + 1


def _places(length: int, *, patch: int, stride: int) -> np.ndarray:
    """Return the places of each patch along one axis, int `[patches,patch]`."""
    return np.arange(_count(length, patch=patch, stride=stride))[:, None] * stride + np.arange(patch)


def _check(*, audio_samples: int, frames: int, mels: int, patch: int, time_stride: int, mel_stride: int) -> None:
    if audio_samples < _WINDOW:
        raise UserError(f"sound of {audio_samples} samples is shorter than 25 ms; set config.data.audio_seconds")
    if min(patch, time_stride, mel_stride) < 1 or patch > min(frames, mels):
        raise UserError(
            f"config.model.audio: patch={patch}, time_stride={time_stride} and mel_stride={mel_stride} must be at "
            f"least 1, and patch at most frames={frames} and mels={mels}"
        )
