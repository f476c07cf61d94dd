"""The video tower that is made of an image tower: each frame by itself, then layers over time."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Float, Int

from ...base.errors import UserError, unknown
from ...base.section import section
from ..layers.draws import RowKeys, fold, fold_each
from ..layers.norm import unit_rows
from ..layers.options import block_options
from ..layers.over_time import OVER_TIME, make_over_time
from ..layers.patches import PatchEmbedding, PatchLayout
from ..layers.pooling import masked_mean
from ..shapes import FrameFeatures, FrameMask, Video
from .clip_resnet import ClipResNetTower
from .fastvit import FastViTTower
from .outputs import ClipTower, VideoOutputs
from .resnet import ResNetTower
from .vit import ImageTower

IMAGE_TOWERS: dict[str, type] = {
    "vit": ImageTower,
    "resnet": ResNetTower,
    "clip_resnet": ClipResNetTower,
    "fastvit": FastViTTower,
}
"""Family of an image tower -> its class."""
_TIME = 1_000_033  # for the draws of the layers over time; those of the image tower count frames from 0


class FramesTower(ClipTower):
    """Any image tower on each frame, and what follows over time (CLIP4Clip, Luo et al. 2021).

    With `over_time="mean"` an embedding is the mean over frames of the image tower's. The other forms begin as that
    mean, exactly: see `layers.over_time`. A picture is a clip of one frame, and clips may have any number of frames.
    Vectors of the image tower that were computed before may stand in the place of frames.

    Args:
      image: arguments of the image tower, with `family` if it is not "vit", see `IMAGE_TOWERS`.
      num_frames: frames T of a clip, for which positions in time are; they are interpolated to other numbers.
      over_time: "mean", "transformer", "attention", "lstm" or "gru".
      depth: layers over time.
      heads: attention heads of the layers over time.
      features: name of such vectors in the records (`twinreel features`), from which training takes them (where the
        image tower is frozen, it need not run); "" = it takes frames. Evaluation and encoding take frames.
      unit_frames: divide the embedding of each frame by its length before the mean (PE-core's `normalize`).
      dropout: rate on the residual branches of the transformer over time.
      block: further fields of `layers.options.BlockOptions` for the transformer over time.
      pixel_mean: of R, G and B, scale 0..1, subtracted from the pixels.
      pixel_std: of R, G and B; divides them.
      remat: what the backward pass recomputes, a policy of `layers.remat`.
      unroll: layers in one iteration of the loop over them; 0 = all.
      rngs: source of the initial values.

    Raises:
      UserError: a value out of its range, or an unknown name.
    """

    mean_of_features = True
    """The vector of a clip is the mean of its `features`."""

    def __init__(
        self,
        *,
        image: Mapping[str, Any],
        num_frames: int,
        over_time: str = "mean",
        depth: int = 4,
        heads: int = 8,
        features: str = "",
        unit_frames: bool = False,
        dropout: float = 0.0,
        block: Mapping[str, Any] | None = None,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        remat: str = "none",
        unroll: int = 1,
        rngs: nnx.Rngs,
    ):
        if over_time not in OVER_TIME:
            raise unknown("config.model.video.over_time", over_time, OVER_TIME)
        arguments = dict(image)
        family = arguments.pop("family", "vit")
        if family not in IMAGE_TOWERS:
            raise unknown("config.model.video.image.family", family, IMAGE_TOWERS)
        given = {"pixel_mean": pixel_mean, "pixel_std": pixel_std, "remat": remat, "unroll": unroll, "rngs": rngs}
        self.image = section(IMAGE_TOWERS[family], arguments, name="model.video.image", **given)
        self.width, self.dtype, self.unit_frames = self.image.width, self.image.dtype, unit_frames
        self.stream = features
        attends = over_time in ("transformer", "attention")
        own = {"width": self.width, "heads": heads if attends else 1, "dropout": dropout}
        own |= {"remat": remat, "unroll": unroll, "dtype": self.dtype}
        options = block_options(block, tower="video", causal=False, rotary="none", cross_width=None, **own)
        self.time = make_over_time(over_time, options=options, depth=depth, num_frames=num_frames, rngs=rngs)

    def layer_order(self) -> tuple[str, ...]:
        """Return the tower's parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return (*(f"image/{part}" for part in self.image.layer_order()), "time")

    @property
    def patch_layout(self) -> PatchLayout | None:
        """What `visible_patches` takes; None of an image tower that cannot do it."""
        image = self.image
        if not isinstance(image, ImageTower) or image.naflex or not isinstance(image.embed, PatchEmbedding):
            return None
        return PatchLayout(image.patch, 1, image.options.width)

    def visible_patches(
        self, video: Video, *, kept: Int[Array, "B n"], mask: FrameMask | None = None, keys: RowKeys | None = None
    ) -> Float[Array, "B T n D"]:
        """Encode the patches at the places `kept` of every frame, which see only each other, in their frame."""
        del mask  # frames do not see each other
        times = video.shape[1]
        each = {"keys": fold_each(keys, times), "kept": repeat(kept, "b n -> (b t) n", t=times)}
        return rearrange(self.image.tokens(_frames(video), **each).patches, "(b t) n d -> b t n d", t=times)

    @property
    def tokens_width(self) -> int:
        """D of `tokens`."""
        return getattr(self.image, "tokens_width", self.image.width)

    def tokens(
        self, video: Video, *, mask: FrameMask | None = None, keys: RowKeys | None = None, drop_patches: bool = True
    ) -> tuple[Float[Array, "B T N D"], Int[Array, "B T N"] | None]:
        """Encode the patches of each frame by themselves, whatever the mask; for the arguments see `outputs`.

        Returns:
          The tokens of the patches that were kept, and their places (None if all were kept).
        """
        del mask
        times, frames = video.shape[1], _frames(video)
        x = self.image.tokens(frames, keys=fold_each(keys, times), drop_patches=drop_patches)
        kept = None if x.kept is None else rearrange(x.kept, "(b t) n -> b t n", t=times)
        return rearrange(x.patches, "(b t) n d -> b t n d", t=times), kept

    def outputs(
        self,
        video: Video | FrameFeatures,
        *,
        mask: FrameMask | None = None,
        keys: RowKeys | None = None,
        drop_patches: bool = True,
    ) -> VideoOutputs:
        """Encode clips: a vector of each frame, aware of the others unless `over_time="mean"`, and their mean.

        Args:
          video: clips of any number of frames, uint8 RGB 0..255 `[B,T,H,W,3]`; or vectors of the image tower
            `[B,T,D]`, which give no patches.
          mask: bool `[B,T]`, True where a frame is real; None = all are.
          keys: one key for each clip; turns dropout and patch dropout on.
          drop_patches: False turns patch dropout off all the same (unmasked tuning).
        """
        patches = None
        if video.ndim == 3:
            if video.shape[-1] != self.width:
                raise UserError(
                    f"features of shape {video.shape} (config.model.video.features={self.stream!r}), but the image "
                    f"tower gives vectors of {self.width} numbers; compute them with this image tower: "
                    "`twinreel features --config CONFIG`"
                )
            x = video.astype(jnp.float32)
        else:
            own = self.image.tokens(_frames(video), keys=fold_each(keys, video.shape[1]), drop_patches=drop_patches)
            x = rearrange(self.image.pooled(own), "(b t) d -> b t d", t=video.shape[1])
            patches = rearrange(own.patches, "(b t) n d -> b t n d", t=video.shape[1])
        if mask is not None:
            x = jnp.where(mask[..., None], x, jnp.float32(0))
        x = unit_rows(x) if self.unit_frames else x
        x = x if self.time is None else self.time(x, mask=mask, keys=fold(keys, _TIME))
        return VideoOutputs(masked_mean(x, mask=mask), x, patches)


def _frames(video: Video) -> Any:
    if video.ndim != 5:
        raise UserError(f"video of shape {video.shape}, the tower wants [B,T,H,W,3]")
    return rearrange(video, "b t h w c -> (b t) h w c")
