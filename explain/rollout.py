"""Gradient times attention, rolled out through the first stack of a tower: from its output to patches or words.

Attention rollout is Abnar & Zuidema 2020 (arXiv:2005.00928); weights times their gradients are Chefer, Gur & Wolf 2021
(arXiv:2103.15679): `R <- R + A R` with `A = mean over heads of max(0, dS/dA * A)`, block by block. Two choices are
ours. `A` of a block is divided by its largest sum of a row, so that the result does not depend on the scale of the
score. The rollout begins at each output token of the stack with the length of the score's gradient by it, so that it
fits every pool (class token, mean, end of sentence, attention) and what follows the stack, such as layers over time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..base.errors import UserError
from ..models.layers.capture import Capture, capturing
from .scores import Rows, Score


@dataclasses.dataclass(frozen=True)
class Patches:
    """How the tokens of a video tower's first stack lie.

    Attributes:
      steps: time steps t.
      rows: patches along the height.
      columns: patches along the width.
      frames: the stack encodes each time step by itself (True), or all of them together.
    """

    steps: int
    rows: int
    columns: int
    frames: bool


def patches_of(tower: Any, *, family: str, shape: tuple[int, ...]) -> Patches:
    """Return how the patches of a clip of shape `[T,H,W,3]` lie in the first stack of a tower.

    Raises:
      UserError: a family whose first stack does not attend among patches.
    """
    image = getattr(tower, "image", tower)
    if family == "vivit":
        side = round(tower.space_position.shape[0] ** 0.5)
        return Patches(tower.time_position.shape[0], side, side, frames=True)
    if family == "joint":
        rows, columns = (size // tower.patch for size in shape[1:3])
        return Patches(shape[0] // tower.tubelet, rows, columns, frames=False)
    if family == "videoprism" or (family == "frames" and hasattr(image, "blocks")):
        return Patches(shape[0], shape[1] // image.patch, shape[2] // image.patch, frames=True)
    raise UserError(
        f"--method attention: a video tower of the family {family!r} has no attention among patches that could be "
        "followed (vivit, joint, videoprism, and frames with a ViT have); use occlusion or integrated_gradients"
    )


@dataclasses.dataclass(frozen=True)
class PatchRollout:
    """The rollout of a clip's patches: rows `index` `[b]` (their values do not matter), shared `video`."""

    score: Score
    patches: Patches

    def __call__(self, model: Any, rows: Rows) -> Rows:
        """Return `part` float32 `[b,t,h,w]`, all rows alike."""
        count = rows["index"].shape[0]
        video = jnp.broadcast_to(rows["video"], (count, *rows["video"].shape))
        relevance = rolled_out(lambda: self.score(model, video, rows), tower="video")
        places = self.patches.rows * self.patches.columns * (1 if self.patches.frames else self.patches.steps)
        shape = (count, self.patches.steps, self.patches.rows, self.patches.columns)
        return {"part": relevance[:, relevance.shape[1] - places :].reshape(shape)}


@dataclasses.dataclass(frozen=True)
class TokenRollout:
    """The rollout of a text's tokens: rows `index` `[b]`, shared `text`, `text_mask` `[L]`, `clip` `[E]`."""

    def __call__(self, model: Any, rows: Rows) -> Rows:
        """Return `part` float32 `[b,L]`, all rows alike."""
        count, length = rows["index"].shape[0], rows["text"].shape[0]
        text, mask = (jnp.broadcast_to(rows[name], (count, length)) for name in ("text", "text_mask"))
        found = rolled_out(lambda: model.encode_text(text, mask=mask) @ rows["clip"], tower="text")
        first = found.shape[1] - length - (model.text.class_token is not None)  # prompts precede, that token follows
        return {"part": found[:, first : first + length]}


def rolled_out(score: Any, *, tower: str) -> Float[Array, "R L"]:
    """Return the relevance of each token that enters the first stack of a tower.

    Args:
      score: () -> float32 `[b]`; calls the model.
      tower: "video" or "text".

    Returns:
      float32 `[R,L]`, not negative; R rows of the stack (b, or b times the frames), L tokens, prompts and class token
      included.
    """

    def total(taps: list[Array] | None) -> tuple[Array, list[Array]]:
        with capturing(Capture(tower, taps=taps)) as capture:
            value = jnp.sum(score())
        return value, capture.values

    shapes = jax.eval_shape(lambda: total(None)[1])
    zeros = [jnp.zeros(one.shape, one.dtype) for one in shapes]
    gradients, values = jax.grad(total, has_aux=True)(zeros)
    *weights, output = values
    *by_weights, by_output = gradients
    begin = jnp.linalg.norm(by_output.astype(jnp.float32), axis=-1)  # [R,L]
    tokens = weights[0].shape[-1] if weights else output.shape[1]
    relevance = jnp.pad(begin, ((0, 0), (tokens - output.shape[1], 0)))  # prompts are no output
    for weight, gradient in zip(reversed(weights), reversed(by_weights), strict=True):
        step = jnp.mean(jnp.maximum(weight * gradient, jnp.float32(0)), axis=1)  # [R,L,L]
        step = step / jnp.maximum(jnp.max(jnp.sum(step, axis=-1)), jnp.float32(1e-30))
        relevance = relevance + jnp.einsum("rl,rlm->rm", relevance, step)
    return relevance
