"""The part of the distillation term that compares tokens of visible patches (Unmasked Teacher, Li et al. 2023)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...base.errors import UserError
from ...encode.embed.teacher_tokens import PLACES, TOKENS
from ...engine.step.grad_cache import Rows
from ...losses.distillation import token_distance
from ...models.dual import DualTower, of_steps
from ...models.heads.distillation import TokenProjections
from ...models.layer_tokens import layer_tokens
from ...models.layers.draws import fold, is_frozen
from ...models.shapes import Scalar
from .interface import Seen


def aligned_tokens(seen: Seen) -> Scalar:
    """Return the mean squared distance of unit tokens to the teacher's, of valid rows and real time steps.

    The video tower encodes the patches at the teacher's places alone, in a second pass in the parts of
    `config.loss.microbatch`; the tokens behind each of its last blocks are compared with those of the teacher's.

    Raises:
      UserError: batches without the teacher's tokens.
    """
    if TOKENS not in seen.batch:
        raise UserError(
            "config.loss.terms.distillation.tokens needs the teacher's tokens in the batches, which `twinreel "
            f"pretrain` adds; these have {', '.join(sorted(seen.batch))}"
        )

    def compute(model: DualTower, rows: Rows) -> Rows:
        assert model.heads is not None
        tower, head, target = model.video, model.heads["distillation"], rows["target"]
        assert isinstance(head, TokenProjections)
        keys = None if is_frozen(tower) else fold(rows.get("keys"), 0)
        given = {"kept": rows["kept"], "mask": rows.get("mask"), "keys": keys}
        shape = {"rows": target.shape[0], "times": target.shape[1], "places": target.shape[2]}
        found = layer_tokens(lambda: tower.visible_patches(rows["video"], **given), **shape, layers=head.depth)
        error: Float[Array, "B T"] = token_distance(head(found.tokens), teacher=target).mean(axis=(2, 3))
        mask = rows.get("mask")
        real = jnp.ones(error.shape, bool) if mask is None else of_steps(mask, steps=error.shape[1])
        return {"error": jnp.where(real, error, jnp.float32(0)).sum(axis=1), "steps": real.sum(axis=1, dtype=jnp.int32)}

    rows = {"video": seen.batch["video"], "mask": seen.batch.get("video_mask"), "target": seen.batch[TOKENS]}
    found = seen.by_rows(compute, **rows, kept=seen.batch[PLACES], keys=seen.keys)
    steps = jnp.where(seen.valid, found["steps"], 0).sum().astype(jnp.float32)
    error = jnp.where(seen.valid, found["error"], jnp.float32(0)).sum()
    return error / jnp.maximum(steps, jnp.float32(1))
