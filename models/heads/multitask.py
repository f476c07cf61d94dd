"""Several heads on one tower, with layers that they share between tower and heads."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..layers.blocks import Blocks
from ..layers.draws import RowKeys, fold
from ..layers.options import BlockOptions
from ..shapes import FrameFeatures, Video
from .answers import AnswerModel, Seen
from .classifier import Classifier
from .embedding import EmbeddingModel
from .timeline import TimelineModel

FORMS: dict[str, type] = {
    "classify": Classifier,
    "localise": TimelineModel,
    "highlight": TimelineModel,
    "summarise": TimelineModel,
    "identify": EmbeddingModel,
    "answer": AnswerModel,
}
"""Name of a task that may be one of several -> the model of towers and its head."""


class TaskVariable(nnx.Variable):
    """What a model keeps of its tasks and changes by itself, without a gradient."""


class SharedLayers(nnx.Module):
    """Transformer blocks over the time tokens that all tasks share."""

    def __init__(self, *, width: int, depth: int, heads: int, dropout: float, rngs: nnx.Rngs):
        """Build the blocks; `width` is D of the tokens, a multiple of `heads`."""
        self.blocks = Blocks(
            BlockOptions(width=width, heads=heads, dropout=dropout, tower="head"), depth=depth, rngs=rngs
        )

    def __call__(self, tokens: FrameFeatures, *, keys: RowKeys | None = None) -> Float[Array, "B T D"]:
        """Return tokens of the same shape, float32; without `keys` dropout is off."""
        return self.blocks(tokens.astype(jnp.float32), keys=keys)

    def layer_order(self) -> tuple[str, ...]:
        """Return the parts from input to output, as beginnings of parameter paths (layer-wise rates)."""
        return ("blocks/layers", "blocks/norm")


class OnSharedLayers(nnx.Module):
    """A head that sees the tokens through the shared layers."""

    def __init__(self, *, shared: SharedLayers, head: Any):
        """Join them."""
        self.shared, self.head = shared, head

    def __call__(self, seen: Any, **given: Any) -> Any:
        """Apply the head to tokens, or to the tokens of `heads.answers.Seen`."""
        if isinstance(seen, Seen):
            return self.head(seen._replace(video=self.shared(seen.video)), **given)
        return self.head(self.shared(seen), **given)


class Balance(nnx.Module):
    """The weights of GradNorm.

    Attributes:
      weights: float32 [K].
      first: float32 [K], the losses of the first step; 0 before it.
    """

    def __init__(self, count: int):
        """Begin with equal weights of K tasks."""
        self.weights = TaskVariable(jnp.ones((count,), jnp.float32))
        self.first = TaskVariable(jnp.zeros((count,), jnp.float32))


class MultiHead(nnx.Module):
    """The heads of several tasks, the layers that they share, and what weighs their losses.

    Attributes:
      tasks: name -> head.
      shared: layers between the tower and all heads, or None.
      log_variance: float32 [K], of weighting by uncertainty; otherwise None.
      balance: the weights of GradNorm; otherwise None.
    """

    def __init__(
        self,
        *,
        tasks: dict[str, Any],
        weighting: str,
        width: int,
        shared_depth: int = 0,
        shared_heads: int = 4,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """Join the heads.

        Args:
          tasks: name -> head.
          weighting: "fixed", "uncertainty" or "gradnorm".
          width: D of the video tower's tokens.
          shared_depth: blocks of the shared layers; 0 = none.
          shared_heads: their attention heads, a divisor of `width`.
          dropout: their rate.
          rngs: source of the initial values.
        """
        self.tasks = nnx.Dict(tasks)
        sizes = {"width": width, "depth": shared_depth, "heads": shared_heads, "dropout": dropout}
        self.shared = SharedLayers(**sizes, rngs=rngs) if shared_depth else None
        count = (len(tasks),)
        self.log_variance = nnx.Param(jnp.zeros(count, jnp.float32)) if weighting == "uncertainty" else None
        self.balance = Balance(len(tasks)) if weighting == "gradnorm" else None


class MultiTaskModel(nnx.Module):
    """Towers, and the heads of several tasks on the time tokens of the video tower.

    Attributes:
      forms: of each task its name, the name of its kind in `FORMS`, and its towers.
    """

    def __init__(
        self,
        *,
        video: Any,
        text: Any = None,
        audio: Any = None,
        head: MultiHead,
        forms: tuple[tuple[str, str, tuple[str, ...]], ...],
    ):
        """Join towers and heads."""
        self.video, self.text, self.audio, self.head, self.forms = video, text, audio, head, forms

    def tokens(self, video: Video, *, keys: RowKeys | None = None, frozen: bool = False) -> FrameFeatures:
        """Return the tower's time tokens of clips, uint8 `[B,T,H,W,3]`, for all tasks: `[B,T',D]`.

        Args:
          video: the clips.
          keys: one for each row; turns dropout on, never patch dropout.
          frozen: the tower is not trained: no gradient flows into it and its dropout stays off.
        """
        found = self.video.features(video, keys=None if frozen else fold(keys, 0), drop_patches=False)
        return jax.lax.stop_gradient(found) if frozen else found

    def share(self, tokens: FrameFeatures, *, keys: RowKeys | None = None) -> FrameFeatures:
        """Apply the shared layers, if there are any."""
        return tokens if self.head.shared is None else self.head.shared(tokens, keys=fold(keys, 1))

    def view(self, name: str, *, shared: bool = True) -> Any:
        """Return the model of one task; its parameters are those of this one.

        Args:
          name: of the task.
          shared: it takes the tower's tokens; otherwise those that `share` gives.
        """
        [(_, kind, sides)] = [form for form in self.forms if form[0] == name]
        head = self.head.tasks[name]
        if shared and self.head.shared is not None:
            head = OnSharedLayers(shared=self.head.shared, head=head)
        return FORMS[kind](**{side: getattr(self, side) for side in sides}, head=head)


MULTITASK_HEADS: dict[str, type[MultiHead]] = dict.fromkeys(("fixed", "uncertainty", "gradnorm"), MultiHead)
"""`kind` of a head in a spec: how the losses of its tasks are weighed -> class."""
