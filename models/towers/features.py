"""A tower for precomputed features: YouTube-8M's, those of another model, or classical descriptors."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown
from ..layers.dense import compute_dtype, linear
from ..layers.draws import RowKeys
from ..layers.norm import LayerNorm
from ..layers.options import block_options
from ..layers.over_time import OVER_TIME, FrameMask, make_over_time
from ..layers.pooling import masked_mean
from .outputs import ClipTower, VideoOutputs


class FeatureTower(ClipTower):
    """Precomputed vectors of a clip in order of time, a projection, and layers over time.

    Padding rows are seen by nothing; a row without any real vector gives zeros. Over time: mean pooling, an LSTM and a
    transformer as in CLIP4Clip (Luo et al. 2021), each beginning as the mean, see `layers.over_time`.

    Args:
      features: their name in the records; `config.data.features` says how many rows a clip has in a batch.
      input_width: columns of the features.
      num_frames: rows T of a clip for which positions in time are; they are interpolated to other numbers.
      width: D.
      norm: normalise each vector first.
      over_time: "mean", "transformer", "attention", "lstm" or "gru".
      depth: layers over time.
      heads: attention heads of the layers over time.
      dropout: rate on the residual branches of the transformer over time.
      block: further fields of `layers.options.BlockOptions` for the transformer over time.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      dtype: compute dtype, float32 or bfloat16.
      rngs: source of the initial values.

    Raises:
      UserError: a value out of its range, or an unknown name.
    """

    mean_of_features = True
    """The vector of a clip is the mean of its real `features`."""

    def __init__(
        self,
        *,
        features: str,
        input_width: int,
        num_frames: int,
        width: int = 512,
        norm: bool = True,
        over_time: str = "transformer",
        depth: int = 2,
        heads: int = 8,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        remat: str = "none",
        unroll: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if over_time not in OVER_TIME:
            raise unknown("config.model.video.over_time", over_time, OVER_TIME)
        self.stream, self.input_width, self.width, self.dtype = features, input_width, width, compute_dtype(dtype)
        self.norm = LayerNorm(input_width, dtype=jnp.float32, rngs=rngs) if norm else None
        self.embed = linear(input_width, width, dtype=jnp.float32, rngs=rngs)
        own = {"width": width, "heads": heads if over_time in ("transformer", "attention") else 1, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="video", causal=False, rotary="none", cross_width=None, **own)
        self.time = make_over_time(over_time, options=options, depth=depth, num_frames=num_frames, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("norm", "embed", "time")

    def outputs(
        self,
        video: Float[Array, "B T C"],
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> VideoOutputs:
        """Encode features: a vector of each row, aware of the others unless `over_time="mean"`, and their mean.

        Rows that are not real do not count. There are no patches; `keys` turns dropout on.
        """
        del drop_patches
        if video.ndim != 3 or video.shape[-1] != self.input_width:
            raise UserError(
                f"input of shape {video.shape}, the tower wants features {self.stream!r} of shape "
                f"[B,T,{self.input_width}]: set config.model.video.input_width to the width of the records' features, "
                "and where frames were meant, another family"
            )
        x = video.astype(jnp.float32)
        if mask is not None:
            x = jnp.where(mask[..., None], x, jnp.float32(0))
        x = self.embed(x if self.norm is None else self.norm(x))
        x = x if self.time is None else self.time(x, mask=mask, keys=keys)
        return VideoOutputs(masked_mean(x, mask=mask), x, None)
