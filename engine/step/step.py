"""One optimizer step, compiled: `step(state, batch, stop) -> state, outputs`."""

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...losses.exchange import over_slices
from ...models.layers.devices import on_one_cpu
from ...models.layers.names import placing
from ..sharding.mesh import AXES, batch_sharding, device_dtype, slices_of
from ..sharding.placement import Activations
from .phases import phase_of
from .state import NOT_HALTED, StateBuilder, TrainState, split_model

Batch = dict[str, Any]
Outputs = dict[str, Any]


def make_gradients(
    *, builder: StateBuilder, phase: Hashable | None = None, place: Activations | None = None
) -> Callable[[TrainState, Batch], tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]]:
    """Build the pure function (state, batch) -> (loss, metrics, other variables after it, gradients by path).

    Args:
      builder: how a state becomes a model, and the objective that gives the loss.
      phase: for objectives with phases, the value of `objective.phase` that is passed to the loss.
      place: places the activations that the model names; None leaves them to the compiler.
    """
    options = {} if phase is None else {"phase": phase}

    def gradients(state: TrainState, batch: Batch):
        key = builder.step_key(state.step)

        def loss_of(params: dict[str, jax.Array]):
            model = builder.model(dataclasses.replace(state, params=params), key=key)
            with contextlib.nullcontext() if place is None else placing(place):
                loss, metrics = builder.objective.loss(model, batch, rngs=nnx.Rngs(key), **options)
            flat = split_model(model)
            return loss, (metrics, {path: flat[path] for path in state.others})

        (loss, (metrics, others)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return loss, metrics, others, grads

    return gradients


def make_step(
    *,
    builder: StateBuilder,
    phase: Hashable | None = None,
    place: Activations | None = None,
    skip_nonfinite: int = 0,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Outputs]]:
    """Build the pure step function.

    The outputs are {"metrics": float32 scalars (loss, lr, grad_norm and what the objective returns), "halted" and
    "skipped": int32 scalars as in TrainState, "stop": bool scalar, whether any process asked to stop}. Nothing waits
    for the host. A batch whose loss or gradient norm is not finite is skipped: parameters and optimizer stay as they
    were, and the step counts as done. Once there are more such batches than allowed, the step leaves the state as it
    was and sets `halted`, which freezes it. A step in which a process asks to stop changes nothing either: that process
    may have no batch to give.

    Args:
      builder: as in `make_gradients`.
      phase: as in `make_gradients`.
      place: as in `make_gradients`.
      skip_nonfinite: how many batches may be skipped over the whole run (config.train.skip_nonfinite).
    """
    gradients = make_gradients(builder=builder, phase=phase, place=place)
    optimizer = builder.optimizer

    def step(state: TrainState, batch: Batch, stop: jax.Array) -> tuple[TrainState, Outputs]:
        loss, metrics, others, grads = gradients(state, batch)
        norm = optax.tree.norm(grads)

        def moved() -> TrainState:
            how = {"params": state.params, "step": state.step}
            params, opt_state = optimizer.update(grads, state=state.opt_state, **how)
            ema = optimizer.average(state.ema, params=params, step=state.step) if state.ema else {}
            changed = {"params": params, "others": others, "opt_state": opt_state, "ema": ema}
            return dataclasses.replace(state, step=state.step + 1, **changed)

        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        stopping = jnp.any(stop)
        active = (state.halted == NOT_HALTED) & ~stopping
        skip = active & ~finite & (state.skipped < skip_nonfinite)
        state_after = _moved_if(finite & active, moved=moved, state=state)
        counters = {
            "step": state_after.step + skip.astype(jnp.int32),
            "skipped": state.skipped + skip.astype(jnp.int32),
            "halted": jnp.where(active & ~finite & ~skip, state.step, state.halted),
        }
        logged = {"loss": loss, **metrics, "lr": optimizer.schedule(state.step), "grad_norm": norm}
        outputs = {
            "metrics": {name: jnp.asarray(value, jnp.float32) for name, value in logged.items()},
            "halted": counters["halted"],
            "skipped": counters["skipped"],
            "stop": stopping,
        }
        return dataclasses.replace(state_after, **counters), outputs

    return step


def _moved_if(good: jax.Array, *, moved: Callable[[], TrainState], state: TrainState) -> TrainState:
    """Return `moved()` where `good` (bool scalar) holds, else `state`.

    On one CPU as a branch: with a selection the moments could not change in place, and were copied first. Elsewhere as
    a selection, which the compiler joins with the update, while a branch may have to wait for the host.
    """
    if on_one_cpu():
        return jax.lax.cond(good, moved, lambda: state)
    return jax.tree.map(lambda new, old: jnp.where(good, new, old), moved(), state)


def trace_step(
    batch: Batch,
    *,
    builder: StateBuilder,
    phase: Hashable | None = None,
    skip_nonfinite: int = 0,
    compiler_options: Mapping[str, Any] | None = None,
) -> jax.stages.Traced:
    """Trace the step for batches shaped like `batch` (arrays or ShapeDtypeStructs); the state is donated.

    Nothing runs and no device needs to exist: the mesh of `builder`, which is set meanwhile (the layers ask for it),
    may be made of topology descriptions.

    Args:
      batch: arrays or shapes.
      builder: see `make_step`.
      phase: of an objective with phases; None = that of step 0.
      skip_nonfinite: see `make_step`.
      compiler_options: of `start.collectives.compiler_options`, which the program is compiled with later.

    Raises:
      UserError: a rule of the sharding table for an activation that the model does not name, or that does not fit.
    """
    phase = phase_of(builder.objective, step=0) if phase is None else phase
    place = Activations(mesh=builder.mesh, rules=builder.rules)
    step = make_step(builder=builder, phase=phase, place=place, skip_nonfinite=skip_nonfinite)
    rows = batch_sharding(builder.mesh)
    jitted = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(builder.shardings, rows, _flag_sharding(builder.mesh)),
        out_shardings=(builder.shardings, builder.replicated),
        compiler_options=dict(compiler_options or {}) or None,
    )
    shapes = {
        key: jax.ShapeDtypeStruct(value.shape, device_dtype(value.dtype), sharding=rows) for key, value in batch.items()
    }
    with jax.set_mesh(builder.mesh), over_slices(slices_of(builder.mesh)):
        traced = jitted.trace(builder.abstract, shapes, abstract_flag(builder.mesh))
    place.check()
    return traced


def lower_step(batch: Batch, **options: Any) -> jax.stages.Lowered:
    """Lower what `trace_step`, which has the same arguments, traces."""
    return trace_step(batch, **options).lower()


def compile_step(batch: Batch, **options: Any) -> jax.stages.Compiled:
    """Compile what `lower_step` lowers; call it as `state, outputs = step(state, batch, stop)`."""
    return lower_step(batch, **options).compile()


def stop_flags(mesh: Mesh) -> dict[bool, jax.Array]:
    """Return this process's request to continue (False) or stop (True) as arrays that `step` joins over all processes.

    bool, one value per device: each process fills its own devices' part, so the request travels with the step and all
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
