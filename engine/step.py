"""One optimizer step, compiled: `step(state, batch, stop) -> state, outputs`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .mesh import AXES, batch_sharding, device_dtype
from .objective import Objective
from .optimizer import Optimizer
from .state import NOT_HALTED, Blueprint, TrainState, split_model

Batch = dict[str, Any]
Outputs = dict[str, Any]


def make_step(
    *, objective: Objective, optimizer: Optimizer, blueprint: Blueprint
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Outputs]]:
    """Build the pure step function.

    The outputs are {"metrics": float32 scalars (loss, lr, grad_norm and what the objective returns), "halted": int32
    scalar as in TrainState, "stop": bool scalar, whether any process asked to stop}. Nothing waits for the host: a step
    whose loss or gradient norm is not finite leaves the state as it was and sets `halted`, which freezes it.
    """

    def step(state: TrainState, batch: Batch, stop: jax.Array) -> tuple[TrainState, Outputs]:
        key = blueprint.step_key(state.step)

        def loss_of(params: dict[str, jax.Array]):
            model = blueprint.model(dataclasses.replace(state, params=params), key=key)
            loss, metrics = objective.loss(model, batch, rngs=nnx.Rngs(key))
            flat = split_model(model)
            return loss, (metrics, {path: flat[path] for path in state.others})

        (loss, (metrics, others)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        params, opt_state = optimizer.update(grads, state=state.opt_state, params=state.params)
        moved = TrainState(
            step=state.step + 1,
            params=params,
            others=others,
            opt_state=opt_state,
            halted=state.halted,
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        good = finite & (state.halted == NOT_HALTED)
        state_after = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state)
        halted = jnp.where(finite | (state.halted != NOT_HALTED), state.halted, state.step)
        logged = {"loss": loss, **metrics, "lr": optimizer.schedule(state.step), "grad_norm": norm}
        outputs = {
            "metrics": {name: jnp.asarray(value, jnp.float32) for name, value in logged.items()},
            "halted": halted,
            "stop": jnp.any(stop),
        }
        return dataclasses.replace(state_after, halted=halted), outputs

    return step


def trace_step(batch: Batch, *, objective: Objective, optimizer: Optimizer, blueprint: Blueprint) -> jax.stages.Traced:
    """Trace the step for batches shaped like `batch` (arrays or ShapeDtypeStructs); the state is donated.

    Nothing runs and no device needs to exist: the mesh of `blueprint` may be made of topology descriptions.
    """
    step = make_step(objective=objective, optimizer=optimizer, blueprint=blueprint)
    rows = batch_sharding(blueprint.mesh)
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(blueprint.shardings, rows, _flag_sharding(blueprint.mesh)),
        out_shardings=(blueprint.shardings, blueprint.replicated),
    )
    shapes = {
        key: jax.ShapeDtypeStruct(value.shape, device_dtype(value.dtype), sharding=rows) for key, value in batch.items()
    }
    return jitted.trace(blueprint.abstract, shapes, abstract_flag(blueprint.mesh))


def lower_step(batch: Batch, *, objective: Objective, optimizer: Optimizer, blueprint: Blueprint) -> jax.stages.Lowered:
    """Lower what `trace_step` traces."""
    return trace_step(batch, objective=objective, optimizer=optimizer, blueprint=blueprint).lower()


def compile_step(
    batch: Batch, *, objective: Objective, optimizer: Optimizer, blueprint: Blueprint
) -> jax.stages.Compiled:
    """Compile the step for batches shaped like `batch`; call it as `state, outputs = step(state, batch, stop)`."""
    return lower_step(batch, objective=objective, optimizer=optimizer, blueprint=blueprint).compile()


def stop_flags(mesh: Mesh) -> dict[bool, jax.Array]:
    """Return this process's wish to go on (False) or stop (True) as arrays that `step` joins over all processes.

    bool, one value per device: each process fills its own devices' part, so the wish travels with the step and all
    processes learn of it at the same step, without a collective of its own.
    """
    sharding = _flag_sharding(mesh)
    return {
        wanted: jax.make_array_from_callback(
            (mesh.size,), sharding, lambda index, wanted=wanted: np.full(mesh.size, wanted)[index]
        )
        for wanted in (False, True)
    }


def abstract_flag(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Return the shape of the arrays of `stop_flags`."""
    return jax.ShapeDtypeStruct((mesh.size,), jnp.bool_, sharding=_flag_sharding(mesh))


def _flag_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXES))
