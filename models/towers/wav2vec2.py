"""The sound tower of wav2vec 2.0 (Baevski et al. 2020): convolutions on the waveform, then a transformer."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int16

from ...base.errors import UserError, unknown
from ..layers.activations import ACTIVATIONS
from ..layers.attention import AttentionInputs
from ..layers.blocks import Blocks
from ..layers.dense import along, compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.names import named
from ..layers.norm import LayerNorm
from ..layers.options import block_options
from ..layers.pooling import masked_mean

CONV_NORMS = ("group", "layer")
"""Norm of the convolutions: after the first one over time, channel by channel; after each one over the channels."""
_FULL_SCALE = 32_768


class Wav2Vec2Tower(nnx.Module):
    """wav2vec 2.0 on sound of any length; the mean over the real frames.

    Padding has no part in it: neither in the statistics of the sound and of the group norm, nor in the attention and
    the mean. A row gives what the public code gives for its real samples alone.

    Args:
      audio_samples: samples S of a clip's sound at 16 kHz (`config.data.audio_seconds`), at least one frame.
      channels: of each convolution.
      kernels: samples or frames that each convolution sees.
      strides: steps of each convolution.
      conv_bias: the convolutions have biases.
      conv_norm: a name of `CONV_NORMS`.
      conv_activation: a name of `layers.activations`, after the convolutions.
      normalise: sound is given a mean of 0 and a variance of 1 first.
      position_kernel: frames that the convolution sees which stands for positions.
      position_groups: groups of channels of that convolution.
      width: D.
      depth: blocks.
      heads: attention heads K.
      mlp_ratio: hidden width of the MLPs / D.
      activation: a name of `layers.activations`.
      dropout: rate on the residual branches.
      block: further fields of `layers.options.BlockOptions`. With `norm_position="post"` (base) a norm precedes the
        blocks and none follows them; with "pre" (large, XLS-R) one follows.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: sizes that do not fit, a value out of its range, or an unknown name.
    """

    mean_of_features = True
    """The vector of a sound is the mean of its real `features`."""

    def __init__(
        self,
        *,
        audio_samples: int,
        channels: Sequence[int] = (512,) * 7,
        kernels: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
        strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
        conv_bias: bool = False,
        conv_norm: str = "group",
        conv_activation: str = "gelu_exact",
        normalise: bool = True,
        position_kernel: int = 128,
        position_groups: int = 16,
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
        _check(channels, kernels=kernels, strides=strides, norm=conv_norm, activation=conv_activation)
        if width % position_groups:
            raise UserError(f"config.model.audio.width={width} must be a multiple of position_groups={position_groups}")
        self.kernels, self.strides, self.normalise = tuple(kernels), tuple(strides), normalise
        self.width, self.dtype = width, compute_dtype(dtype)
        self.activation, self.conv_norm = conv_activation, conv_norm
        self._check_samples(audio_samples)
        own = {"width": width, "heads": heads, "mlp_ratio": mlp_ratio, "activation": activation, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        after = (block or {}).get("norm_position", "pre") == "pre"
        given = {"causal": False, "rotary": "none", "cross_width": None, "final_norm": after}
        options = block_options(block, tower="audio", **given, **own)
        kind = {"use_bias": conv_bias, "dtype": self.dtype, "rngs": rngs}
        self.convolutions = _convolutions(channels, kernels=kernels, strides=strides, **kind)
        norms = channels[:1] if conv_norm == "group" else channels
        self.conv_norms = nnx.List([LayerNorm(size, dtype=self.dtype, rngs=rngs) for size in norms])
        self.norm = options.make_norm(width=channels[-1], rngs=rngs)
        self.embed = linear(channels[-1], width, dtype=self.dtype, rngs=rngs)
        places = {"kernel_size": (position_kernel,), "padding": ((position_kernel // 2, (position_kernel - 1) // 2),)}
        groups = {"feature_group_count": position_groups, "param_dtype": jnp.float32}
        self.position = nnx.Conv(width, width, **places, **groups, dtype=self.dtype, rngs=rngs)
        self.pre_norm = None if after else options.make_norm(rngs=rngs)
        self.blocks = Blocks(options, depth=depth, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        first = [f"{part}/{n}" for n in range(len(self.convolutions)) for part in ("convolutions", "conv_norms")]
        return (*first, "norm", "embed", "position", "pre_norm", "blocks/layers", "blocks/norm")

    def features(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
        """Encode sound into frames of 20 ms, and tell which are real; the arguments are those of `__call__`."""
        rows, samples = audio.shape
        self._check_samples(samples)
        lengths = jnp.full((rows,), samples, jnp.int32) if lengths is None else lengths
        x, real = self._convolved(audio, lengths=lengths)
        x = jnp.where(real[..., None], self.embed(self.norm(x)), jnp.zeros((), self.dtype))
        x = x + ACTIVATIONS[self.activation](self.position(x))
        x = named(x if self.pre_norm is None else self.pre_norm(x), "activation/audio/tokens")
        return self.blocks(x, inputs=AttentionInputs(mask=real), keys=keys), real

    def __call__(
        self, audio: Int16[Array, "B S"], *, lengths: Int[Array, "B"] | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B D"]:
        """Encode sound into float32 vectors.

        Args:
          audio: int16 at 16 kHz, full scale 32768, padded at the end; of any length that gives a frame.
          lengths: int32, real samples of each row, 0 ... S; None = all are real. A row of length 0 gives zeros, one
            that is shorter than a frame is followed by silence.
          keys: one key for each row; turns dropout on.

        Raises:
          UserError: sound that is too short for a frame.
        """
        x, real = self.features(audio, lengths=lengths, keys=keys)
        return masked_mean(x, mask=real)

    def _check_samples(self, samples: int) -> None:
        if self._frames(samples) < 1:
            raise UserError(f"sound of {samples} samples gives no frame of wav2vec 2.0; set config.data.audio_seconds")

    def _frames(self, samples: Any, *, layers: int | None = None) -> Any:
        """Return how many frames so many samples give after the first `layers` convolutions."""
        for kernel, stride in list(zip(self.kernels, self.strides, strict=True))[:layers]:
            samples = (samples - kernel) // stride + 1
        return samples

    def _convolved(self, audio: Array, *, lengths: Array) -> tuple[Float[Array, "B M C"], Bool[Array, "B M"]]:
        """Return the outputs of the convolutions, and which of them are real."""
        real = jnp.arange(audio.shape[1])[None] < lengths[:, None]
        x = jnp.where(real, audio.astype(jnp.float32) / _FULL_SCALE, jnp.float32(0))[..., None]  # [B,S,1]
        if self.normalise:
            x = jnp.where(real[..., None], normalised(x, mask=real, epsilon=1e-7), jnp.float32(0))
        for number, convolution in enumerate(self.convolutions):
            x = convolution(x.astype(self.dtype))
            frames = jnp.maximum(self._frames(lengths, layers=number + 1), 1)
            real = jnp.arange(x.shape[1])[None] < jnp.where(lengths > 0, frames, 0)[:, None]
            if self.conv_norm == "layer":
                x = self.conv_norms[number](x)
            elif number == 0:
                x = self._group_norm(x, mask=real)
            x = ACTIVATIONS[self.activation](x)
        return x, real

    def _group_norm(self, x: Float[Array, "B M C"], *, mask: Bool[Array, "B M"]) -> Float[Array, "B M C"]:
        """Normalise each channel over the real frames of its row."""
        norm = self.conv_norms[0]
        assert norm.scale is not None and norm.bias is not None
        y = normalised(x.astype(jnp.float32), mask=mask, epsilon=norm.epsilon)
        return (y * along(norm.scale[...], y) + along(norm.bias[...], y)).astype(self.dtype)


def normalised(x: Float[Array, "B M C"], *, mask: Bool[Array, "B M"], epsilon: float) -> Float[Array, "B M C"]:
    """Give each row and channel a mean of 0 and a variance of 1 over its real places; float32.

    Args:
      x: float32.
      mask: True where a place is real.
      epsilon: added to the variance.
    """
    mean = masked_mean(x, mask=mask)[:, None]
    variance = masked_mean(jnp.square(x - mean), mask=mask)[:, None]
    return (x - mean) * jax.lax.rsqrt(variance + epsilon)


def _convolutions(channels: Sequence[int], *, kernels: Sequence[int], strides: Sequence[int], **kind: Any) -> nnx.List:
    sizes = zip(itertools.pairwise([1, *channels]), kernels, strides, strict=True)
    kind |= {"padding": "VALID", "param_dtype": jnp.float32}
    return nnx.List([nnx.Conv(a, b, kernel_size=(k,), strides=(s,), **kind) for (a, b), k, s in sizes])


def _check(
    channels: Sequence[int], *, kernels: Sequence[int], strides: Sequence[int], norm: str, activation: str
) -> None:
    if norm not in CONV_NORMS:
        raise unknown("config.model.audio.conv_norm", norm, CONV_NORMS)
    if activation not in ACTIVATIONS:
        raise unknown("config.model.audio.conv_activation", activation, ACTIVATIONS)
    if not channels or not len(channels) == len(kernels) == len(strides) or min(*channels, *kernels, *strides) < 1:
        raise UserError(
            "config.model.audio: channels, kernels and strides must be one number of at least 1 for each convolution, "
            f"got {list(channels)}, {list(kernels)} and {list(strides)}"
        )
