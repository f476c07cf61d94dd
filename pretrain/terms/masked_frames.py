"""Masked frame modelling: the pixels of hidden tubes of a clip are found from the patches around them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ...base.errors import UserError
from ...engine.step.grad_cache import Rows
from ...models.dual import DualTower
from ...models.heads.masked_frames import MaskedFramesDecoder, is_kept
from ...models.layers.draws import fold, folded, is_frozen, kept_tokens
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from .interface import Seen, TermOptions

_TOWER, _HEAD, _TUBES = range(3)  # numbers of the draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedFramesOptions(TermOptions):
    """`config.loss.terms.masked_frames`.

    Attributes:
      ratio: share of the places of a frame that are hidden, in all frames of a clip (tubes). VideoMAE hides 0.9; clips
        that move much, or have few patches, want less.
      normalise: the target is a patch's pixels less their mean, over their deviation (MAE), instead of pixels 0..1.
      epsilon: added to the variance of a patch, of pixels 0..1, before the root. MAE has 1e-6; rendered films with flat
        patches want more, or their compression noise is what there is to learn.
    """

    ratio: float = 0.9
    normalise: bool = True
    epsilon: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        field = "config.loss.terms.masked_frames"
        if not 0 < self.ratio < 1:
            raise UserError(f"{field}.ratio must be above 0 and below 1, got {self.ratio}")
        if not 0 < self.epsilon < float("inf"):
            raise UserError(f"{field}.epsilon must be above 0, got {self.epsilon}")


def check_masked_frames(options: MaskedFramesOptions, spec: ModelSpec) -> None:
    """Raise UserError for a video tower that takes vectors instead of frames."""
    del options
    name = spec.features.get("video")
    if name or spec.towers["video"]["family"] == "features":
        raise UserError(
            f"config.loss.terms.masked_frames needs frames, but config.model.video.features={name!r} takes vectors "
            "that were computed before; leave one of them out"
        )


def patch_targets(
    patches: UInt8[Array, "*B F"], *, normalise: bool = True, epsilon: float = 1e-6
) -> Float[Array, "*B F"]:
    """Return what is to be found of patches, RGB 0..255, float32: each normalised by itself (MAE, section 4), or 0..1.

    Args:
      patches: the pixels of each patch along the last axis.
      normalise: subtract their mean and divide by their deviation.
      epsilon: added to the variance of pixels 0..1.
    """
    x = patches.astype(jnp.float32) / jnp.float32(255)
    if not normalise:
        return x
    return (x - x.mean(axis=-1, keepdims=True)) * jax.lax.rsqrt(x.var(axis=-1, keepdims=True) + jnp.float32(epsilon))


def masked_frames(seen: Seen, options: MaskedFramesOptions) -> tuple[Scalar, dict[str, Scalar]]:
    """Return the mean squared error of the hidden patches of the valid rows; steps that only fill up do not count.

    He et al. 2022 (MAE); Tong et al. 2022 (VideoMAE): the video tower encodes the visible patches alone, in a second
    pass in the parts of `config.loss.microbatch`.
    """
    layout, video = seen.model.video.patch_layout, seen.batch["video"]
    grid = (video.shape[2] // layout.patch, video.shape[3] // layout.patch)
    places = grid[0] * grid[1]
    kept = kept_tokens(folded(seen.draws(), _TUBES), tokens=places, rate=options.ratio)  # [B,n]
    count = kept.shape[1]
    if count == places:
        raise UserError(
            f"config.loss.terms.masked_frames.ratio={options.ratio} hides none of the {places} patches of a frame; "
            "raise it"
        )
    hidden = jnp.argsort(is_kept(kept, places=places), axis=1)[:, : places - count].astype(jnp.int32)  # ascending
    how = {"normalise": options.normalise, "epsilon": options.epsilon}

    def compute(model: DualTower, rows: Rows) -> Rows:
        assert model.heads is not None
        tower, head, keys = model.video, model.heads["masked_frames"], rows.get("keys")
        assert isinstance(head, MaskedFramesDecoder)
        mask, kept, hidden = rows.get("mask"), rows["kept"], rows["hidden"]
        own = None if is_frozen(tower) else fold(keys, _TOWER)
        x = tower.visible_patches(rows["video"], kept=kept, mask=mask, keys=own)
        times = None if mask is None else mask[:, :: layout.tubelet]
        found = head(x, kept=kept, hidden=hidden, grid=grid, times=times, keys=fold(keys, _HEAD))
        cut = jnp.take_along_axis(layout.cut(rows["video"]), hidden[:, None, :, None], axis=2)
        error = jnp.square(found - patch_targets(cut, **how)).mean(axis=(2, 3))  # [B,T]
        real = jnp.ones(error.shape, bool) if times is None else times
        return {"error": jnp.where(real, error, jnp.float32(0)).sum(axis=1), "steps": real.sum(axis=1, dtype=jnp.int32)}

    rows = {"video": video, "mask": seen.batch.get("video_mask"), "kept": kept, "hidden": hidden}
    found = seen.by_rows(compute, **rows, keys=seen.keys)
    steps = jnp.where(seen.valid, found["steps"], 0).sum().astype(jnp.float32)
    error = jnp.where(seen.valid, found["error"], jnp.float32(0)).sum()
    return error / jnp.maximum(steps, jnp.float32(1)), {}
