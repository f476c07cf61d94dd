"""The state of a run, and the bridge between it and an NNX model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...base.errors import UserError
from ...models.layers.draws import TRAINED
from ..optimizer.optimizer import Optimizer
from ..sharding.placement import place_optimizer
from ..sharding.rules import REPLICATED, Rules, compiled, no_match, param_shardings
from .counts import Count, count_openings, count_parameters
from .objective import Objective

NOT_HALTED = -1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
      step: int32 scalar, steps done, those that skipped a batch included; also the number of the next global batch.
      params: "/"-joined path -> trained parameter.
      others: path -> frozen parameter or other variable (batch statistics).
      opt_state: state of the optimizer; exists for `params` only.
      ema: path -> moving average of a trained parameter; {} without `config.optimizer.ema_decay`.
      skipped: int32 scalar, global batches skipped over the whole run because their loss or gradient was not finite.
      halted: int32 scalar, the number of the first such batch that could not be skipped; NOT_HALTED (-1) before that.
        From then on the state is frozen. Not part of a checkpoint.
    """

    step: Any
    params: dict[str, Any]
    others: dict[str, Any]
    opt_state: Any
    skipped: Any
    halted: Any
    ema: dict[str, Any] = dataclasses.field(default_factory=dict)


class StateBuilder:
    """Builds the state of a run, and the model from a state; holds shapes but no arrays.

    Attributes:
      objective: what is trained for.
      optimizer: how.
      abstract: a TrainState of ShapeDtypeStructs with shardings.
      trained: paths of the trained parameters, in order.
      frozen: paths of the parameters that are not trained, in order.
      rules: the sharding table.
    """

    def __init__(self, *, objective: Objective, optimizer: Optimizer, mesh: Mesh, seed: int, rules: Rules = REPLICATED):
        """Trace `objective.init` for shapes; place parameters and the optimizer's moments by `rules`.

        Raises:
          UserError: a regex of `objective.trainable`, of `config.optimizer.frozen` or of `rules` that matches no
            parameter.
        """
        self.objective, self._mesh, self._seed, self.rules = objective, mesh, seed, rules
        self._split_model = jax.jit(lambda: nnx.split(objective.init(nnx.Rngs(seed))))  # one trace serves `init` too
        model = nnx.merge(*jax.eval_shape(self._split_model))
        self.optimizer = optimizer.for_model(model)
        flat = dict(nnx.to_flat_state(nnx.state(model)))
        self._keys = {join(path): path for path in flat}
        self._rngs = {path: variable for path, variable in flat.items() if isinstance(variable, nnx.RngState)}
        params = {join(path): leaf(v) for path, v in flat.items() if isinstance(v, nnx.Param)}
        rest = {join(path): leaf(v) for path, v in flat.items() if not isinstance(v, (nnx.Param, nnx.RngState))}
        self.trained = without_frozen(
            trained_paths(objective.trainable, params), frozen=optimizer.frozen, params=params
        )
        self._params = tuple(params)
        self.frozen = tuple(path for path in params if path not in set(self.trained))
        for path in self.frozen:
            flat[self._keys[path]].set_metadata(TRAINED, False)
        self._graphdef = nnx.graphdef(model)
        places = param_shardings(params, mesh=mesh, rules=rules)
        self.abstract = self._abstract_state(params, rest=rest, places=places)

    @property
    def counts(self) -> list[Count]:
        """How many parameters of each part of the model are trained, frozen, and added by an adaptation."""
        state = self.abstract.params | self.abstract.others
        return count_parameters({path: state[path] for path in self._params}, trained=self.trained)

    @property
    def openings(self) -> dict[tuple[int, str], int]:
        """How many parameters of each part are trained from which step on; {} if all are from the start."""
        trained = self.abstract.params
        return count_openings(trained, opens=self.optimizer.opens(trained)) if self.optimizer.unfreeze else {}

    @property
    def mesh(self) -> Mesh:
        """The device mesh of the run."""
        return self._mesh

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of a value that every device holds."""
        return NamedSharding(self._mesh, PartitionSpec())

    @property
    def shardings(self) -> TrainState:
        """A TrainState of NamedShardings."""
        return jax.tree.map(lambda x: x.sharding, self.abstract)

    def init(self, *, initialize: Callable[[nnx.Module], None] | None = None) -> TrainState:
        """Build the state of step 0 on its devices; `initialize(model)` may then fill parameters in place."""
        make = jax.jit(self._fresh, out_shardings=self.shardings)
        state = make()
        if initialize is None:
            return state
        model = self.model(state)
        initialize(model)
        flat = split_model(model)
        params = {path: flat[path] for path in state.params}
        others = {path: flat[path] for path in state.others}
        filled = dataclasses.replace(state, params=params, others=others, ema=self._first_average(params))
        # The parameters may have come as NumPy arrays or with another placement; the moments depend on shapes only.
        return jax.tree.map(jax.device_put, filled, self.shardings)

    def model(self, state: TrainState, *, key: jax.Array | None = None) -> nnx.Module:
        """Return the model with the state's arrays; `key` reseeds random streams that the model itself holds."""
        key = jax.random.key(self._seed) if key is None else key
        flat: dict[tuple, Any] = {self._keys[path]: value for path, value in (state.params | state.others).items()}
        for i, (path, variable) in enumerate(self._rngs.items()):
            fresh = jax.random.fold_in(key, i) if isinstance(variable, nnx.RngKey) else jnp.uint32(0)
            flat[path] = jnp.broadcast_to(fresh, variable.get_value().shape)
        return nnx.merge(self._graphdef, nnx.from_flat_state(flat))

    def averaged(self, state: TrainState) -> nnx.Module:
        """Return the model to evaluate and to hand out: with the moving averages of the parameters where there are."""
        return self.model(dataclasses.replace(state, params=state.params | state.ema))

    def step_key(self, step: jax.Array) -> jax.Array:
        """Return the random key of a step: a function of (seed, step), so that a resumed run draws the same."""
        return jax.random.fold_in(jax.random.key(self._seed), step)

    def _fresh(self) -> TrainState:
        flat = split_model(nnx.merge(*self._split_model()))
        params = {path: flat[path] for path in self.abstract.params}
        others = {path: flat[path] for path in self.abstract.others}
        return TrainState(
            step=jnp.int32(0),
            params=params,
            others=others,
            opt_state=self.optimizer.init(params),
            skipped=jnp.int32(0),
            halted=jnp.int32(NOT_HALTED),
            ema=self._first_average(params),
        )

    def _first_average(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters themselves, as arrays of their own: the step is given both to reuse."""
        return jax.tree.map(lambda x: jnp.array(x, copy=True), params) if self.optimizer.ema_decay else {}

    def _abstract_state(self, params: dict, *, rest: dict, places: dict[str, NamedSharding]) -> TrainState:
        trained = {path: placed(params[path], places[path]) for path in self.trained}
        frozen = {path: placed(value, places[path]) for path, value in params.items() if path not in trained}
        others = frozen | {path: placed(value, self.replicated) for path, value in rest.items()}
        scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=self.replicated)
        return TrainState(
            step=scalar,
            params=trained,
            others=others,
            opt_state=self._abstract_opt_state(trained),
            skipped=scalar,
            halted=scalar,
            ema=dict(trained) if self.optimizer.ema_decay else {},
        )

    def _abstract_opt_state(self, trained: dict[str, jax.ShapeDtypeStruct]) -> Any:
        state = jax.eval_shape(self.optimizer.init, trained)
        places = place_optimizer(state, trained=trained, mesh=self._mesh, rules=self.rules)
        return jax.tree_util.tree_map_with_path(
            lambda path, value: placed(value, places[jax.tree_util.keystr(path)]), state
        )


def trained_paths(trainable: tuple[str, ...], params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parameter paths in which one of the regexes is found; () = all.

    Raises:
      UserError: a regex that matches nothing; it lists the parameter paths.
    """
    if not trainable:
        return tuple(params)
    chosen = set()
    for pattern in trainable:
        regex = compiled(pattern, field="trainable")
        found = {path for path in params if regex.search(path)}
        if not found:
            raise no_match(pattern, params, what="trainable regex", field="the list of trained parameters")
        chosen |= found
    return tuple(path for path in params if path in chosen)


def without_frozen(trained: tuple[str, ...], *, frozen: tuple[str, ...], params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the trained paths in which no regex of `config.optimizer.frozen` is found.

    Raises:
      UserError: a regex that matches no parameter at all, or nothing is left to train.
    """
    field = "config.optimizer.frozen"
    regexes = [compiled(pattern, field=field) for pattern in frozen]
    for regex in regexes:
        if not any(regex.search(path) for path in params):
            raise no_match(regex.pattern, params, what="regex", field=field)
    left = tuple(path for path in trained if not any(regex.search(path) for regex in regexes))
    if not left:
        raise UserError(f"{field}={frozen!r} leaves no parameter to train")
    return left


def split_model(model: nnx.Module) -> dict[str, jax.Array]:
    """Return {"/"-joined path: array} of all variables of a model except its random streams."""
    flat = nnx.to_flat_state(nnx.state(model))
    return {join(path): leaf(v) for path, v in flat if not isinstance(v, nnx.RngState)}


def join(path: tuple) -> str:
    """Return a parameter path as one string: ("layers", 0, "kernel") -> "layers/0/kernel"."""
    return "/".join(map(str, path))


def leaf(variable: Any) -> Any:
    """Return the array (or ShapeDtypeStruct) of an NNX variable."""
    return variable.get_value() if isinstance(variable, nnx.Variable) else variable


def placed(value: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of `value` with a sharding."""
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
