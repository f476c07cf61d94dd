"""From the vectors of frames to the vector of a clip: what follows an image tower.

Each form adds to the frames, or to their mean, what new layers compute, behind a factor that starts at 0. A video tower
made of a pretrained image tower therefore begins as the mean over frames, exactly. Sources: mean, LSTM and transformer
with a residual, CLIP4Clip (Luo et al. 2021); the factor, ReZero (Bachlechner et al. 2020), LayerScale (Touvron et al.
2021).
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..shapes import FrameMask
from .blocks import Blocks
from .dense import along
from .draws import RowKeys
from .names import named
from .options import BlockOptions
from .pooling import AttentionPool
from .positions import position_embedding, resize_positions, resize_times
from .recurrent import RecurrentStack

Frames = Float[Array, "B T D"]


class OverTimeTransformer(nnx.Module):
    """A transformer over frames with learned positions, added to them."""

    def __init__(self, options: BlockOptions, *, depth: int, num_frames: int, rngs: nnx.Rngs):
        """Build the layers; positions are for `num_frames` frames and are interpolated linearly to other numbers."""
        self.time_position = position_embedding(num_frames, width=options.width)
        self.blocks = Blocks(options, depth=depth, rngs=rngs)
        self.gate = _gate(options.width)

    def __call__(self, x: Frames, *, mask: FrameMask | None = None, keys: RowKeys | None = None) -> Frames:
        """Let frames see each other; those where `mask` is False are not seen."""
        y = named(_placed(x, self.time_position).astype(self.blocks.options.dtype), "activation/video/tokens")
        return x + along(self.gate[...], x) * self.blocks(y, mask=mask, keys=keys).astype(jnp.float32)

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of other lengths to those of these layers."""
        return _time_resizers(self.time_position)


class OverTimeRecurrent(nnx.Module):
    """A recurrent layer over frames, added to them: LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014)."""

    def __init__(self, options: BlockOptions, *, cell: str, depth: int, rngs: nnx.Rngs):
        """Build `depth` layers of that cell."""
        width, one_way = options.width, {"bidirectional": False, "field": "config.model.video.over_time"}
        self.layers = RecurrentStack(width, width, cell=cell, depth=depth, **one_way, rngs=rngs)
        self.gate = _gate(width)

    def __call__(self, x: Frames, *, mask: FrameMask | None = None, keys: RowKeys | None = None) -> Frames:
        """Let frames see those before them; nothing is random."""
        del keys
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        return x + along(self.gate[...], x) * self.layers(x, mask=mask)


class OverTimePool(nnx.Module):
    """A learned query attends to the frames; its result is added to each, and so to their mean."""

    def __init__(self, options: BlockOptions, *, num_frames: int, rngs: nnx.Rngs):
        """Build the layer; for the positions see `OverTimeTransformer`."""
        self.time_position = position_embedding(num_frames, width=options.width)
        self.pool = AttentionPool(options, norm_tokens=True, rngs=rngs)
        self.gate = _gate(options.width)

    def __call__(self, x: Frames, *, mask: FrameMask | None = None, keys: RowKeys | None = None) -> Frames:
        """Add what the query finds; nothing is random."""
        del keys
        pooled = self.pool(_placed(x, self.time_position), mask=mask)  # [B,1,D]
        return x + along(self.gate[...], x) * pooled.astype(jnp.float32)

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return parameter -> function from positions of other lengths to those of these layers."""
        return _time_resizers(self.time_position)


def _time_resizers(position: nnx.Param) -> dict[str, Callable[[Array], Array | None]]:
    return {"time_position": functools.partial(resize_times, times=position.shape[0])}


OverTime = OverTimeTransformer | OverTimeRecurrent | OverTimePool

OVER_TIME = ("mean", "transformer", "attention", "lstm", "gru")
"""Names of what may follow the frames; "mean" adds nothing."""


def make_over_time(name: str, *, options: BlockOptions, depth: int, num_frames: int, rngs: nnx.Rngs) -> OverTime | None:
    """Build the layers of that name, one of `OVER_TIME`; None for "mean"."""
    if name == "transformer":
        return OverTimeTransformer(options, depth=depth, num_frames=num_frames, rngs=rngs)
    if name == "attention":
        return OverTimePool(options, num_frames=num_frames, rngs=rngs)
    if name in ("lstm", "gru"):
        return OverTimeRecurrent(options, cell=name, depth=depth, rngs=rngs)
    assert name == "mean", name
    return None


def _placed(x: Frames, position: nnx.Param) -> Frames:
    """Add positions, interpolated to the number of frames."""
    old, new = position.shape[0], x.shape[1]
    return x + resize_positions(position[...], old=(old,), new=(new,))[None]


def _gate(width: int) -> nnx.Param:
    """A factor for each channel on what new layers add, 0 at the start."""
    return nnx.Param(jnp.zeros((width,), jnp.float32))
