"""What the objectives of tasks share: a model with a head, of which the towers may be frozen."""

from typing import Any

import jax
from flax import nnx

from ...base.errors import UserError
from ...engine.keeping.transfer import shapes
from ...engine.step.state import trained_paths, without_frozen
from ...models.heads.classifier import Classifier
from ...models.layers.draws import RowKeys, row_keys
from ...zoo.adapt import AdaptOptions, adapt_options, adapted, trained_by
from ...zoo.build import abstract, build
from ...zoo.spec import ModelSpec
from ..examples.context import TaskContext
from .task import TowerOptions


class HeadObjective:
    """The part of an objective for `engine.loop.train` that does not depend on the loss.

    Attributes:
      spec: of the model.
      trainable: regexes over parameter paths.
      trained: paths of the trained parameters.
      trained_sides: towers of which parameters are trained.
      frozen: whether no parameter of the towers is trained.
      heads: regexes of the parameters that are trained besides those of towers.
    """

    heads: tuple[str, ...] = ("^head/",)

    def __init__(self, *, spec: ModelSpec, options: TowerOptions, context: TaskContext):
        """Describe the model; nothing is allocated until `init`.

        Args:
          spec: of the model, with its head.
          options: `config.task`.
          context: of the run.

        Raises:
          UserError: a regex of `config.task.trainable`, `config.optimizer.frozen` or `config.adapt` that matches no
            parameter, or sizes that do not fit.
        """
        adapt = adapt_options(context.config)
        self.spec, self._layers = adapted(spec, options=adapt), dict(context.layers)
        self.trainable: tuple[str, ...] = (*self.heads, *self._of_towers(options, adapt=adapt))
        params = shapes(self.abstract())
        frozen_by = tuple(context.config["optimizer"].get("frozen", ()))
        trained = without_frozen(trained_paths(self.trainable, params), frozen=frozen_by, params=params)
        self.trained = trained
        self.trained_sides = frozenset(path.split("/")[0] for path in trained) & set(spec.towers)
        self.frozen = not self.trained_sides

    def _of_towers(self, options: TowerOptions, *, adapt: AdaptOptions) -> tuple[str, ...]:
        """Return regexes of the parameters of towers that are trained."""
        if not adapt:
            whole = tuple(f"^{side}/" for side in self.spec.towers) if options.train_towers else ()
            return options.trainable or whole
        if options.train_towers:
            raise UserError(
                "config.task.train_towers=True trains all parameters of the towers, config.adapt a few; set the former "
                "to False, or config.adapt={}"
            )
        return (*trained_by(adapt, spec=self.spec), *options.trainable)

    def init(self, rngs: nnx.Rngs) -> Any:
        """Build the model with fresh parameters; those of the towers are filled in from the checkpoint afterwards."""
        return build(self.spec, rngs=rngs, **self._layers)

    def abstract(self) -> Any:
        """Return the model of shapes."""
        return abstract(self.spec, **self._layers)


def scores_of(model: Classifier, batch: dict[str, jax.Array], *, keys: RowKeys | None, frozen: bool) -> jax.Array:
    """Return a classifier's scores of a batch of clips, or of the tokens of a frozen tower computed before."""
    if "tokens" in batch:
        return model.score(batch["tokens"], keys=keys)
    return model(batch["video"], keys=keys, frozen=frozen)


def split_keys(rngs: nnx.Rngs | None, *, rows: int) -> tuple[jax.Array | None, RowKeys | None]:
    """Return the key of a step and those of its rows; None without random numbers."""
    if rngs is None:
        return None, None
    key = rngs()
    return jax.random.fold_in(key, rows), row_keys(key, rows=rows)
