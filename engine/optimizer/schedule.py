"""Learning-rate schedules by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...base.errors import UserError, unknown


def make_schedule(
    name: str,
    *,
    lr: float,
    steps: int,
    warmup_steps: int = 0,
    end_lr_factor: float = 0.0,
    decay_share: float = 0.2,
) -> Callable[[jax.Array], jax.Array]:
    """Return learning rate as a function of the step (int32, from 0); float32.

    The warm-up is linear and gives lr * (step + 1) / warmup_steps, so that no step is spent at rate 0. Then
    "cosine" and "linear" fall to lr * end_lr_factor at `steps`; "constant" stays; "rsqrt" continues as
    lr * sqrt(w / step) with w = max(warmup_steps, 1) (Vaswani et al. 2017, section 5.3); "wsd" (warm-up, stable, decay;
    Hu et al. 2024, MiniCPM) stays, and in its last `decay_share` of all steps falls to lr * end_lr_factor as
    1 - sqrt(t), t from 0 to 1 (Hägele et al. 2024, section 3).

    Raises:
      UserError: an unknown name, or a value out of its range.
    """
    if name not in _SCHEDULES:
        raise unknown("schedule (config.optimizer.schedule)", name, _SCHEDULES)
    if not 0 <= warmup_steps <= steps:
        raise UserError(
            f"config.optimizer.warmup_steps={warmup_steps} must lie between 0 and config.train.steps={steps}"
        )
    if not 0 <= end_lr_factor <= 1:
        raise UserError(f"config.optimizer.end_lr_factor must lie between 0 and 1, got {end_lr_factor}")
    decay = decay_share * steps
    if name == "wsd" and not 0 < decay <= steps - warmup_steps:
        raise UserError(
            f"config.optimizer.decay_share={decay_share} must be above 0, and its {decay:g} steps must fit into the "
            f"{steps - warmup_steps} after the warm-up"
        )
    shape = _SCHEDULES[name]

    def rate(step: jax.Array) -> jax.Array:
        now = step.astype(jnp.float32)
        done = now - warmup_steps
        part = jnp.clip(done / max(steps - warmup_steps, 1), 0.0, 1.0)
        warm = jnp.minimum((now + 1.0) / max(warmup_steps, 1), 1.0)
        decayed = jnp.clip((now - (steps - decay)) / max(decay, 1e-6), 0.0, 1.0)
        warmup = float(max(warmup_steps, 1))
        return lr * warm * shape(done=done, part=part, warmup=warmup, end=end_lr_factor, decayed=decayed)

    return rate


def _cosine(*, part: jax.Array, end: float, **_) -> jax.Array:
    return end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * part))


def _linear(*, part: jax.Array, end: float, **_) -> jax.Array:
    return 1.0 - (1.0 - end) * part


def _rsqrt(*, done: jax.Array, warmup: float, **_) -> jax.Array:
    return jnp.sqrt(warmup / jnp.maximum(done + warmup, warmup))


def _constant(*, part: jax.Array, **_) -> jax.Array:
    return jnp.ones_like(part)


def _wsd(*, decayed: jax.Array, end: float, **_) -> jax.Array:
    return end + (1.0 - end) * (1.0 - jnp.sqrt(decayed))


_SCHEDULES = {"cosine": _cosine, "linear": _linear, "rsqrt": _rsqrt, "constant": _constant, "wsd": _wsd}
