"""The objective of several tasks on one tower: one pass through the tower, a loss for each task, their weighted sum."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from ...base.errors import UserError
from ...engine.optimizer.rates import layer_distances
from ...engine.sharding.layers import is_stacked
from ...engine.step.state import join
from ...losses.multitask import gradnorm_weights, uncertainty_weighted
from ...models.heads.multitask import MultiTaskModel
from ...models.layers.draws import RowKeys, row_keys
from ...models.shapes import Scalar
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from .objective import HeadObjective
from .task import TowerOptions

Batch = dict[str, jax.Array]


class Part(NamedTuple):
    """A task of several.

    Attributes:
      objective: of the task; its loss takes `tokens`.
      weight: of its loss.
      squared: whether its loss is a squared error, for the weighting by uncertainty.
    """

    objective: HeadObjective
    weight: float
    squared: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradNorm:
    """How GradNorm moves the weights: `alpha` and `lr` of `losses.multitask.gradnorm_weights`."""

    alpha: float
    lr: float


class JointObjective(HeadObjective):
    """The weighted sum of the losses of several tasks on the tokens of one pass through the tower."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        options: TowerOptions,
        context: TaskContext,
        parts: Mapping[str, Part],
        balance: GradNorm,
    ):
        """Describe the model and the loss; see `objective.HeadObjective`.

        Args:
          spec: with the head "multitask".
          options: `config.task`.
          context: of the run.
          parts: the tasks, in the order of the head's.
          balance: for the weighting "gradnorm".

        Raises:
          UserError: GradNorm without a layer that the tasks share and train.
        """
        super().__init__(spec=spec, options=options, context=context)
        self._parts, self._balance = dict(parts), balance
        self._weighting = spec.heads["multitask"]["kind"]
        for part in self._parts.values():
            # What is trained is decided for all tasks together.
            part.objective.frozen, part.objective.trained_sides = self.frozen, self.trained_sides
        self._layer = self._last_shared() if self._weighting == "gradnorm" else {}

    def loss(self, model: MultiTaskModel, batch: Batch, *, rngs: nnx.Rngs | None) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the weighted sum of the losses; of each task `NAME/loss`, its other metrics, and `NAME/weight`."""
        key = None if rngs is None else rngs()
        keys = None if key is None else row_keys(key, rows=batch["valid"].shape[0])
        if self._weighting == "gradnorm":
            tokens, pull = jax.vjp(lambda layer: self._tokens(model, batch, keys=keys, layer=layer), self._of(model))
        else:
            tokens, pull = self._tokens(model, batch, keys=keys, layer={}), None
        losses, metrics = [], {}
        for number, name in enumerate(self._parts):
            value, own = self._of_part(model, batch, name=name, number=number, tokens=tokens, key=key)
            losses.append(value)
            metrics |= {f"{name}/loss": value} | {f"{name}/{metric}": one for metric, one in own.items()}
        each = jnp.stack(losses)
        given = jnp.asarray([part.weight for part in self._parts.values()], jnp.float32)
        weights = given
        if pull is not None:
            sizes = self._sizes(model, batch, tokens=jax.lax.stop_gradient(tokens), key=key, pull=pull)
            weights = given * self._balanced(model, each, sizes=sizes)
        if self._weighting == "uncertainty":
            factor = jnp.asarray([0.5 if part.squared else 1.0 for part in self._parts.values()], jnp.float32)
            assert model.head.log_variance is not None
            variance = model.head.log_variance[...]
            weights = given * factor * jnp.exp(-variance)
            total = uncertainty_weighted(each, log_variance=variance, factor=given * factor)
        else:
            total = jnp.sum(weights * each)
        return total, metrics | {f"{name}/weight": weights[i] for i, name in enumerate(self._parts)}

    def _tokens(self, model: MultiTaskModel, batch: Batch, *, keys: RowKeys | None, layer: dict[str, Array]) -> Array:
        """Return the tokens that all heads see; `layer` takes the place of parameters of the model."""
        if layer:
            graph, state = nnx.split(model)
            flat = dict(nnx.to_flat_state(state))
            flat |= {path: flat[path].replace(layer[join(path)]) for path in flat if join(path) in layer}
            model = nnx.merge(graph, nnx.from_flat_state(flat))
        if "tokens" in batch:
            return model.share(batch["tokens"], keys=keys)
        return model.share(model.tokens(batch["video"], keys=keys, frozen=self.frozen), keys=keys)

    def _of_part(
        self,
        model: MultiTaskModel,
        batch: Batch,
        *,
        name: str,
        number: int,
        tokens: Array,
        key: jax.Array | None,
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss of a task on its part of the batch, and its metrics."""
        own = {k.removeprefix(f"{name}/"): value for k, value in batch.items() if k.startswith(f"{name}/")}
        rngs = None if key is None else nnx.Rngs(jax.random.fold_in(key, number))
        objective: Any = self._parts[name].objective
        return objective.loss(model.view(name, shared=False), own | {"tokens": tokens}, rngs=rngs)

    def _sizes(self, model: MultiTaskModel, batch: Batch, *, tokens: Array, key: Any, pull: Any) -> Array:
        """Return the norms of the gradients of the losses by the last shared layer, float32 [K]."""
        found = []
        for number, name in enumerate(self._parts):

            def alone(tokens: Array, name: str = name, number: int = number) -> Scalar:
                return self._of_part(model, batch, name=name, number=number, tokens=tokens, key=key)[0]

            [grads] = pull(jax.grad(alone)(tokens))
            squares = [jnp.sum(jnp.square(grads[path]) * jnp.asarray(mask)) for path, mask in self._layer.items()]
            found.append(jnp.sqrt(sum(squares)))
        return jax.lax.stop_gradient(jnp.stack(found))

    def _balanced(self, model: MultiTaskModel, each: Array, *, sizes: Array) -> Array:
        """Return the weights of this step, and move those of the model for the next one."""
        kept, losses = model.head.balance, jax.lax.stop_gradient(each)
        assert kept is not None
        weights = kept.weights[...]
        first = jnp.where(kept.first[...] > 0, kept.first[...], losses)
        how = {"alpha": self._balance.alpha, "lr": self._balance.lr}
        kept.first[...] = first
        kept.weights[...] = gradnorm_weights(weights, norms=sizes, losses=losses, first=first, **how)
        return weights

    def _of(self, model: MultiTaskModel) -> dict[str, Array]:
        """Return the parameters of the last shared layer."""
        flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
        return {join(path): value.get_value() for path, value in flat if join(path) in self._layer}

    def _last_shared(self) -> dict[str, np.ndarray]:
        """Return the trained parameters of the last layer that all tasks share, and which of a stack are of it."""
        model = self.abstract()
        beginning = "head/shared/" if model.head.shared is not None else "video/"
        shapes = {join(path): value.get_value() for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}
        found = {}
        for path, distance in layer_distances(model).items():
            if path.startswith(beginning) and path in self.trained and is_stacked(path) and np.any(distance == 1):
                rest = (1,) * (len(shapes[path].shape) - 1)
                found[path] = (distance == 1).astype(np.float32).reshape(-1, *rest)
        if not found:
            raise UserError(
                "config.task.weighting='gradnorm' compares gradients by the last layer that all tasks share, and none "
                "is trained; set config.task.shared_depth=1, or train the tower's last layer (config.task.trainable)"
            )
        return found
