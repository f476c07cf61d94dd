"""The tokens of an image teacher at the places to which it attends, for their alignment (UMT, Li et al. 2023)."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...base.errors import UserError
from ...models.layer_tokens import attended_places, kept_places, layer_tokens
from ...models.layers.draws import numbered_keys

if TYPE_CHECKING:
    from ...zoo.load import Located

TOKENS, PLACES = "teacher_tokens", "teacher_places"
"""Arrays of the batch: float32 `[b,T,n,k,F]`, and int32 `[b,n]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """Which tokens of a teacher are wanted.

    Attributes:
      layers: k, behind its last blocks.
      ratio: share of the places of a frame that are hidden.
      patch: side of the student's patches, pixels of its frames.
      tubelet: frames of a patch of the student; the teacher sees the middle one.
      width: F that its tokens must have.
    """

    layers: int
    ratio: float
    patch: int
    tubelet: int
    width: int


def check_tokens(located: "Located", *, model: Any, options: TokenOptions, field: str) -> None:
    """Raise UserError unless a teacher is an image tower of patches with tokens of the width that the head has."""
    layout = getattr(model.video, "patch_layout", None)
    if located.spec.towers["video"]["family"] != "frames" or layout is None:
        raise UserError(
            f"{field}.tokens needs the tokens of an image teacher of patches, such as CLIP's or DINOv2's ViT, and the "
            f"video tower of {located.path} is none; name another one, or set {field}.tokens=0"
        )
    if layout.width != options.width:
        raise UserError(
            f"config.model.heads.distillation.width={options.width}, but the tokens of the teacher {located.path} have "
            f"{layout.width} numbers; set it to that"
        )


def visible_tokens(tower: Any, video: Array, *, options: TokenOptions) -> dict[str, Array]:
    """Return the teacher's tokens at the places that it draws by its attention, the same in all frames of a clip.

    The draw is a function of the frames alone, so a resumed run sees the same places.

    Args:
      tower: of the teacher; encodes frames by themselves.
      video: uint8 `[b,t,H,W,3]`, as the student sees it; resized so that the teacher has as many patches.
      options: which tokens.
    """
    rows, grid = video.shape[0], (video.shape[2] // options.patch, video.shape[3] // options.patch)
    frames = video[:, options.tubelet // 2 :: options.tubelet]
    side, times, places = tower.patch_layout.patch, frames.shape[1], grid[0] * grid[1]
    shape = (rows, times, grid[0] * side, grid[1] * side, 3)
    if shape != frames.shape:
        resized = jax.image.resize(frames.astype(jnp.float32), shape, "linear", antialias=True)
        frames = jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)
    every = jnp.broadcast_to(jnp.arange(places, dtype=jnp.int32)[None], (rows, places))
    given = {"rows": rows, "times": times, "places": places, "layers": options.layers}
    found = layer_tokens(lambda: tower.visible_patches(frames, kept=every), **given)
    numbers = jnp.sum(video.astype(jnp.uint32), axis=(1, 2, 3, 4), dtype=jnp.uint32)
    keys = numbered_keys(jax.random.key(0), numbers=numbers)
    count = kept_places(places, ratio=options.ratio)
    at = attended_places(found.attention.mean(axis=1), count=count, keys=keys)
    tokens = jnp.take_along_axis(found.tokens, at[:, None, :, None, None], axis=2)
    return {TOKENS: tokens.astype(jnp.float32), PLACES: at}
