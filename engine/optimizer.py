"""Optimizers and learning-rate schedules by name: section `optimizer` of a config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..configs.errors import UserError, unknown
from .sharding import compiled

Params = Any  # {parameter path: array}; Any, as optax's own types are looser


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A gradient transformation over {parameter path: array} and the learning rate that it uses at each step."""

    transform: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]

    def init(self, params: Params) -> Any:
        """Return the optimizer's first state."""
        return self.transform.init(params)

    def update(self, grads: Params, *, state: Any, params: Params) -> tuple[Params, Any]:
        """Return (new parameters, new state)."""
        # optax computes decay**count with a float and an int32: our strict promotion ends at its door
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, state = self.transform.update(grads, state, params)
            return optax.apply_updates(params, updates), state


def make_optimizer(
    *,
    steps: int,
    lr: float,
    name: str = "adamw",
    schedule: str = "cosine",
    warmup_steps: int = 0,
    end_lr_factor: float = 0.0,
    weight_decay: float = 0.0,
    no_decay: tuple[str, ...] = (),
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float = 0.0,
) -> Optimizer:
    """Build the optimizer.

    Args:
      steps: total steps (config.train.steps), where the schedule ends.
      lr: peak learning rate.
      name: "adamw" (Loshchilov & Hutter 2019), "lion" (Chen et al. 2023), "lamb" (You et al. 2020),
        "adafactor" (Shazeer & Stern 2018) or "sgd" (momentum b1).
      schedule: "cosine", "linear", "rsqrt" or "constant", each after a linear warm-up from 0.
      warmup_steps: length of the warm-up.
      end_lr_factor: the cosine and linear schedules end at lr * end_lr_factor.
      weight_decay: decoupled weight decay, multiplied by the learning rate; parameters of rank 0 and 1 (biases,
        norms, log_scale) are never decayed.
      no_decay: regexes; parameters in whose path one is found are not decayed either.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment (adamw, lamb).
      clip_norm: the gradient's global norm is clipped to it; 0 = no clipping.

    Raises:
      UserError: an unknown name or schedule, or a value out of its range.
    """
    if name not in _OPTIMIZERS:
        raise unknown("optimizer (config.optimizer.name)", name, _OPTIMIZERS)
    for field, value in {"lr": lr, "weight_decay": weight_decay, "clip_norm": clip_norm}.items():
        if value < 0:
            raise UserError(f"config.optimizer.{field} must not be negative, got {value}")
    rate = make_schedule(schedule, lr=lr, steps=steps, warmup_steps=warmup_steps, end_lr_factor=end_lr_factor)
    never = [compiled(pattern, field="config.optimizer.no_decay") for pattern in no_decay]

    def decayed(params: Params) -> dict[str, bool]:
        return {
            path: value.ndim > 1 and not any(pattern.search(path) for pattern in never)
            for path, value in params.items()
        }

    parts = [
        _OPTIMIZERS[name](b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask=decayed) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(rate),  # pyright: ignore[reportArgumentType]
    ]
    if name == "lamb":  # LAMB's trust ratio is taken of the update with its decay
        parts.insert(2, optax.scale_by_trust_ratio())
    if clip_norm:
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    return Optimizer(transform=optax.chain(*parts), schedule=rate)


def make_schedule(
    name: str, *, lr: float, steps: int, warmup_steps: int = 0, end_lr_factor: float = 0.0
) -> Callable[[jax.Array], jax.Array]:
    """Return learning rate as a function of the step (int32, from 0); float32.

    The warm-up is linear and gives lr * (step + 1) / warmup_steps, so that no step is spent at rate 0. "rsqrt" goes on
    as lr * sqrt(w / step) with w = max(warmup_steps, 1) (Vaswani et al. 2017, section 5.3).
    """
    if name not in _SCHEDULES:
        raise unknown("schedule (config.optimizer.schedule)", name, _SCHEDULES)
    if not 0 <= warmup_steps <= steps:
        raise UserError(
            f"config.optimizer.warmup_steps={warmup_steps} must lie between 0 and config.train.steps={steps}"
        )
    if not 0 <= end_lr_factor <= 1:
        raise UserError(f"config.optimizer.end_lr_factor must lie between 0 and 1, got {end_lr_factor}")
    shape = _SCHEDULES[name]

    def rate(step: jax.Array) -> jax.Array:
        done = step.astype(jnp.float32) - warmup_steps
        part = jnp.clip(done / max(steps - warmup_steps, 1), 0.0, 1.0)
        warm = jnp.minimum((step.astype(jnp.float32) + 1.0) / max(warmup_steps, 1), 1.0)
        return lr * warm * shape(done=done, part=part, warmup=float(max(warmup_steps, 1)), end=end_lr_factor)

    return rate


def _cosine(*, part: jax.Array, end: float, **_) -> jax.Array:
    return end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * part))


def _linear(*, part: jax.Array, end: float, **_) -> jax.Array:
    return 1.0 - (1.0 - end) * part


def _rsqrt(*, done: jax.Array, warmup: float, **_) -> jax.Array:
    return jnp.sqrt(warmup / jnp.maximum(done + warmup, warmup))


def _constant(*, part: jax.Array, **_) -> jax.Array:
    return jnp.ones_like(part)


_SCHEDULES = {"cosine": _cosine, "linear": _linear, "rsqrt": _rsqrt, "constant": _constant}

_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": lambda *, b1, b2, eps: optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    "lamb": lambda *, b1, b2, eps: optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    "lion": lambda *, b1, b2, eps: optax.scale_by_lion(b1=b1, b2=b2),
    "adafactor": lambda *, b1, b2, eps: optax.scale_by_factored_rms(),
    "sgd": lambda *, b1, b2, eps: optax.trace(decay=b1),
}
