"""The optimizer: section `optimizer` of a config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ...base.errors import UserError, unknown
from ..sharding.layers import layer_rank
from ..sharding.rules import compiled, no_match
from .rates import (
    Distances,
    Openings,
    Table,
    layer_distances,
    make_openings,
    make_table,
    opening_steps,
    rate_factors,
    scaled,
)
from .schedule import make_schedule
from .transforms import OPTIMIZERS, per_layer

Params = Any  # {parameter path: array}; Any, as optax's own types are looser

_MU_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A gradient transformation over {parameter path: array} and the learning rate that it uses at each step.

    Attributes:
      transform: the transformation, without the learning rate.
      schedule: step (int32) -> learning rate (float32), before the factors of single parameters.
      lr_scale: table of factors on the learning rate.
      layer_decay: layer-wise decay of the learning rate; 1 = off.
      distances: how many layers below the output each parameter lies; `for_model` sets it.
      frozen: regexes; parameters in whose path one is found are not trained.
      unfreeze: which parameters are trained from a later step on.
      ema_decay: decay of the moving average of the parameters; 0 = none.
    """

    transform: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    lr_scale: Table = ()
    layer_decay: float = 1.0
    distances: Distances = dataclasses.field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    unfreeze: Openings = ()
    ema_decay: float = 0.0

    def __post_init__(self):
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"config.optimizer.layer_decay must be above 0 and at most 1, got {self.layer_decay}")

    def for_model(self, model: nnx.Module) -> "Optimizer":
        """Return the optimizer with layer-wise rates that follow the order of layers that `model` declares."""
        ordered = self.layer_decay != 1 or any(every for _, _, every in self.unfreeze)
        return dataclasses.replace(self, distances=layer_distances(model)) if ordered else self

    def init(self, params: Params) -> Any:
        """Return the optimizer's first state.

        Raises:
          UserError: a table or a decay that means none of the parameters.
        """
        self._factors(params)  # mistakes are reported before any step
        self.opens(params)
        return self.transform.init(params)

    def update(self, grads: Params, *, state: Any, params: Params, step: jax.Array) -> tuple[Params, Any]:
        """Return (new parameters, new state) of the step number `step` (int32, from 0)."""
        # optax computes decay**count with a float and an int32, which our strict promotion forbids
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, state = self.transform.update(grads, state, params)
            rate = -self.schedule(step)
            updates = jax.tree.map(lambda update: rate.astype(update.dtype) * update, updates)
            if self.lr_scale or self.layer_decay != 1:
                updates = scaled(updates, factors=self._factors(params))
            if self.unfreeze:  # moments are kept before, so that they are right when a parameter opens
                opens = self.opens(params)
                updates = {path: jnp.where(step >= opens[path], x, jnp.zeros_like(x)) for path, x in updates.items()}
            return optax.apply_updates(params, updates), state

    def opens(self, params: Params) -> dict[str, Any]:
        """Return from which step on each parameter is trained, see `rates.opening_steps`."""
        return opening_steps(params, table=self.unfreeze, distances=self.distances)

    def _factors(self, params: Params) -> dict[str, Any]:
        return rate_factors(params, lr_scale=self.lr_scale, layer_decay=self.layer_decay, distances=self.distances)

    def average(self, ema: Params, *, params: Params, step: jax.Array) -> Params:
        """Return the moving average of the parameters after the step number `step` (int32, from 0).

        The decay is min(ema_decay, (1 + t) / (10 + t)) with t = step + 1, so that the first values are soon forgotten.
        """
        t = step.astype(jnp.float32) + 1.0
        decay = jnp.minimum(self.ema_decay, (1.0 + t) / (10.0 + t))
        return jax.tree.map(lambda old, new: old + (1.0 - decay).astype(old.dtype) * (new - old), ema, params)


def make_optimizer(
    *,
    steps: int,
    lr: float,
    name: str = "adamw",
    schedule: str = "cosine",
    warmup_steps: int = 0,
    end_lr_factor: float = 0.0,
    decay_share: float = 0.2,
    weight_decay: float = 0.0,
    no_decay: tuple[str, ...] = (),
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    muon_beta: float = 0.95,
    mu_dtype: str = "float32",
    clip_norm: float = 0.0,
    lr_scale: tuple[tuple[str, float], ...] = (),
    layer_decay: float = 1.0,
    frozen: tuple[str, ...] = (),
    unfreeze: tuple[tuple[Any, ...], ...] = (),
    ema_decay: float = 0.0,
) -> Optimizer:
    """Build the optimizer. Where layers are stacked, each layer counts by itself: norms, factors, matrices, ranks.

    Args:
      steps: total steps (config.train.steps), where the schedule ends.
      lr: peak learning rate.
      name: a name of `transforms.OPTIMIZERS`, which describes them.
      schedule: a name of `schedule.make_schedule`, also for `warmup_steps`, `end_lr_factor` and `decay_share`.
      weight_decay: decoupled weight decay, multiplied by the learning rate; parameters whose rank in one layer is 0
        or 1 (biases, norms, log_scale) are never decayed.
      no_decay: regexes; parameters in whose path one is found are not decayed either.
      b1: decay of the first moment.
      b2: decay of the second moment (adafactor: its upper bound).
      eps: added to the root of the second moment (adamw, lamb).
      muon_beta: momentum of muon.
      mu_dtype: "float32" or "bfloat16", of the first moment.
      clip_norm: the gradient's global norm is clipped to it; 0 = no clipping.
      lr_scale: ordered table of (regex, factor on the learning rate), first match wins: `(("^text/", 0.1),)`.
      layer_decay: layer-wise decay of the learning rate, see `rates.rate_factors`; 1 = off.
      frozen: regexes; parameters in whose path one is found have neither gradient nor state (LiT, Zhai et al. 2022).
      unfreeze: ordered table of rows (regex, step) or (regex, step, n): parameters in whose path the regex is found are
        trained from that step on; with n their tower's layers open one after another, n steps apart, the last first.
      ema_decay: decay of a moving average of the parameters, which is evaluated and returned; 0 = none.

    Raises:
      UserError: an unknown name or schedule, or a value out of its range.
    """
    _check_names(name=name, mu_dtype=mu_dtype)
    _check_amounts(lr=lr, weight_decay=weight_decay, clip_norm=clip_norm)
    _check_decays(b1=b1, b2=b2, muon_beta=muon_beta, ema_decay=ema_decay)
    ends = {"end_lr_factor": end_lr_factor, "decay_share": decay_share}
    rate = make_schedule(schedule, lr=lr, steps=steps, warmup_steps=warmup_steps, **ends)
    moments = {"b1": b1, "b2": b2, "eps": eps, "muon_beta": muon_beta, "mu_dtype": _MU_DTYPES[mu_dtype]}
    return Optimizer(
        transform=_chain(name, clip_norm=clip_norm, weight_decay=weight_decay, no_decay=no_decay, **moments),
        schedule=rate,
        lr_scale=make_table(lr_scale, field="config.optimizer.lr_scale"),
        layer_decay=layer_decay,
        frozen=tuple(frozen),
        unfreeze=make_openings(unfreeze, steps=steps, field="config.optimizer.unfreeze"),
        ema_decay=ema_decay,
    )


def _chain(
    name: str, *, clip_norm: float, weight_decay: float, no_decay: tuple[str, ...], **moments: Any
) -> optax.GradientTransformation:
    """Return all that acts on gradients, but for the learning rate.

    The state has the same form with and without clipping and decay, so that a run can go back to a checkpoint and
    continue with other values.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        OPTIMIZERS[name](**moments),
        optax.add_decayed_weights(weight_decay, mask=_decayed(no_decay)) if weight_decay else optax.identity(),
        per_layer(optax.scale_by_trust_ratio()) if name == "lamb" else optax.identity(),  # of the update with its decay
    )


def _check_names(*, name: str, mu_dtype: str) -> None:
    """Raise UserError for an unknown optimizer or dtype."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer (config.optimizer.name)", name, OPTIMIZERS)
    if mu_dtype not in _MU_DTYPES:
        raise unknown("dtype (config.optimizer.mu_dtype)", mu_dtype, _MU_DTYPES)


def _check_amounts(**fields: float) -> None:
    """Raise UserError for a negative value."""
    for field, value in fields.items():
        if value < 0:
            raise UserError(f"config.optimizer.{field} must not be negative, got {value}")


def _check_decays(**fields: float) -> None:
    """Raise UserError for a value outside of [0, 1)."""
    for field, value in fields.items():
        if not 0 <= value < 1:
            raise UserError(f"config.optimizer.{field} must be at least 0 and below 1, got {value}")


def _decayed(no_decay: tuple[str, ...]) -> Callable[[Params], dict[str, bool]]:
    """Return the mask of weight decay: matrices, unless a regex of `no_decay` is found in their path."""
    never = [compiled(pattern, field="config.optimizer.no_decay") for pattern in no_decay]

    def mask(params: Params) -> dict[str, bool]:
        for regex in never:
            if not any(regex.search(path) for path in params):
                raise no_match(
                    regex.pattern, params, what="regex", field="config.optimizer.no_decay", of="trained parameter"
                )
        return {
            path: layer_rank(path, value) > 1 and not any(regex.search(path) for regex in never)
            for path, value in params.items()
        }

    return mask
