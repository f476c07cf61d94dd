"""Mixup and CutMix of the clips of a batch, on the device: pixels, or the tokens of a frozen tower."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from ...base.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """How clips are mixed; with both, each batch draws one of the two.

    Attributes:
      mixup: alpha of mixup (Zhang et al. 2018): the share of a clip is drawn from Beta(alpha, alpha); 0 = none.
      cutmix: alpha of CutMix (Yun et al. 2019; the same box in all frames: VideoMix, Yun et al. 2020); 0 = none. Of
        tokens a stretch of time is cut.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        for field in ("mixup", "cutmix"):
            if getattr(self, field) < 0:
                raise UserError(f"config.task.{field} must be at least 0 (none), got {getattr(self, field)}")

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def mixed(
    x: Array, *, target: Float[Array, "B K"], valid: Bool[Array, "B"], mixing: Mixing, key: Key[Array, ""]
) -> tuple[Array, Float[Array, "B K"]]:
    """Mix each row with its mirror image in the batch; rows whose partner does not take part stay as they are.

    Args:
      x: uint8 clips `[B,T,H,W,3]`, or tokens `[B,T,D]`.
      target: of each row; mixed in the same shares.
      valid: rows that take part.
      mixing: how.
      key: of the step.

    Returns:
      Clips and targets of the same shapes and dtypes.
    """
    draw, place = jax.random.split(key)
    cut = mixing.cutmix > 0 and (mixing.mixup == 0 or jax.random.bernoulli(jax.random.fold_in(draw, 1)))
    alpha = jnp.where(cut, mixing.cutmix or 1.0, mixing.mixup or 1.0).astype(jnp.float32)
    share = jax.random.beta(draw, alpha, alpha, (x.shape[0],), jnp.float32)  # of the row itself
    partner = valid & valid[::-1]
    share = jnp.where(partner, share, jnp.float32(1))
    kept = _kept(x.shape, share=share, key=place)  # bool, [B,T,1...] or [B,1,H,W,1]
    area = jnp.mean(kept, axis=tuple(range(1, kept.ndim)), dtype=jnp.float32)
    whole = share.reshape(-1, *(1,) * (x.ndim - 1))
    blend = whole * x.astype(jnp.float32) + (1 - whole) * x[::-1].astype(jnp.float32)
    blend = (jnp.round(blend) if x.dtype == jnp.uint8 else blend).astype(x.dtype)
    own = jnp.where(cut, area, share)[:, None]
    return jnp.where(cut, jnp.where(kept, x, x[::-1]), blend), own * target + (1 - own) * target[::-1]


def mixed_batch(
    batch: dict[str, jax.Array], *, target: Float[Array, "B K"], mixing: Mixing, key: Key[Array, ""]
) -> tuple[dict[str, jax.Array], Float[Array, "B K"]]:
    """Return the batch with its clips, or the tokens of them, mixed by `mixed`, and the mixed targets."""
    name = "tokens" if "tokens" in batch else "video"
    x, target = mixed(batch[name], target=target, valid=batch["valid"], mixing=mixing, key=key)
    return {**batch, name: x}, target


def _kept(shape: tuple[int, ...], *, share: Float[Array, "B"], key: Key[Array, ""]) -> Bool[Array, "B *rest"]:
    """Return where a row keeps itself: outside of a box (a stretch of time) of 1 - share of the area."""
    rows, sides = shape[0], shape[2:4] if len(shape) == 5 else shape[1:2]
    size = (1 - share) ** (1 / len(sides))
    inside = jnp.ones((rows, *(1,) * len(sides)), bool)
    for axis, side in enumerate(sides):
        centre = jax.random.uniform(jax.random.fold_in(key, axis), (rows,), jnp.float32)
        middle = (jnp.arange(side, dtype=jnp.float32) + 0.5) / side
        within = jnp.abs(middle[None] - (size / 2 + centre * (1 - size))[:, None]) < size[:, None] / 2
        inside = inside & jnp.expand_dims(within, tuple(1 + other for other in range(len(sides)) if other != axis))
    kept = ~inside
    return kept[:, None, :, :, None] if len(shape) == 5 else kept[:, :, None]
