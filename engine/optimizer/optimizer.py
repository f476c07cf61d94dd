"""The optimizer: section `optimizer` of a config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...base.errors import UserError, unknown
from ..sharding.layers import layer_rank
from ..sharding.rules import compiled, no_match
from .rates import make_table, scale_by_rates
from .schedule import make_schedule
from .transforms import OPTIMIZERS, per_layer

Params = Any  # {parameter path: array}; Any, as optax's own types are looser

_MU_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A gradient transformation over {parameter path: array} and the learning rate that it uses at each step.

    Attributes:
      transform: the transformation.
      schedule: step (int32) -> learning rate (float32), before the factors of single parameters.
      frozen: regexes; parameters in whose path one is found are not trained.
      ema_decay: decay of the moving average of the parameters; 0 = none.
    """

    transform: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    frozen: tuple[str, ...] = ()
    ema_decay: float = 0.0

    def init(self, params: Params) -> Any:
        """Return the optimizer's first state."""
        return self.transform.init(params)

    def update(self, grads: Params, *, state: Any, params: Params) -> tuple[Params, Any]:
        """Return (new parameters, new state)."""
        # optax computes decay**count with a float and an int32: our strict promotion ends at its door
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, state = self.transform.update(grads, state, params)
            return optax.apply_updates(params, updates), state

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
    lr_scale: tuple[Any, ...] = (),
    layer_decay: float = 1.0,
    frozen: tuple[str, ...] = (),
    ema_decay: float = 0.0,
) -> Optimizer:
    """Build the optimizer. Where layers are stacked, each layer counts by itself: norms, factors, matrices, ranks.

    Args:
      steps: total steps (config.train.steps), where the schedule ends.
      lr: peak learning rate.
      name: "adamw" (Loshchilov & Hutter 2019), "lion" (Chen et al. 2023), "lamb" (You et al. 2020), "adafactor"
        (Shazeer & Stern 2018, without its scaling by the parameter and with momentum b1, as Zhai et al. 2022; b1=0
        saves the first moment), "muon" (Jordan et al. 2024, scaled as Liu et al. 2025) for the kernels of stacked
        layers and adamw for all else, or "sgd" (momentum b1).
      schedule: "cosine", "linear", "rsqrt", "constant" or "wsd", each after a linear warm-up from 0.
      warmup_steps: length of the warm-up.
      end_lr_factor: the cosine, linear and wsd schedules end at lr * end_lr_factor.
      decay_share: share of all steps in which wsd falls.
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
      frozen: regexes; parameters in whose path one is found have no gradient and no state (LiT, Zhai et al. 2022:
        `("^video/",)`).
      ema_decay: decay of a moving average of the parameters, which is evaluated and returned; 0 = none.

    Raises:
      UserError: an unknown name or schedule, or a value out of its range.
    """
    _check_values(
        name=name,
        mu_dtype=mu_dtype,
        amounts={"lr": lr, "weight_decay": weight_decay, "clip_norm": clip_norm},
        decays={"b1": b1, "b2": b2, "muon_beta": muon_beta, "ema_decay": ema_decay},
        layer_decay=layer_decay,
    )
    rate = make_schedule(
        schedule, lr=lr, steps=steps, warmup_steps=warmup_steps, end_lr_factor=end_lr_factor, decay_share=decay_share
    )
    dtype = _MU_DTYPES[mu_dtype]
    factors = make_table(lr_scale, field="config.optimizer.lr_scale")
    parts = [
        optax.clip_by_global_norm(clip_norm) if clip_norm else None,
        OPTIMIZERS[name](b1=b1, b2=b2, eps=eps, muon_beta=muon_beta, mu_dtype=dtype),
        optax.add_decayed_weights(weight_decay, mask=_decayed(no_decay)) if weight_decay else optax.identity(),
        per_layer(optax.scale_by_trust_ratio()) if name == "lamb" else None,  # of the update with its decay
        scale_by_rates(lr_scale=factors, layer_decay=layer_decay) if factors or layer_decay != 1 else None,
        optax.scale_by_learning_rate(rate),  # pyright: ignore[reportArgumentType]
    ]
    transform = optax.chain(*[part for part in parts if part is not None])
    return Optimizer(transform=transform, schedule=rate, frozen=tuple(frozen), ema_decay=ema_decay)


def _check_values(
    *, name: str, mu_dtype: str, amounts: dict[str, float], decays: dict[str, float], layer_decay: float
) -> None:
    """Raise UserError for an unknown name or a value out of its range; `amounts` and `decays` are by field."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer (config.optimizer.name)", name, OPTIMIZERS)
    if mu_dtype not in _MU_DTYPES:
        raise unknown("dtype (config.optimizer.mu_dtype)", mu_dtype, _MU_DTYPES)
    for field, value in amounts.items():
        if value < 0:
            raise UserError(f"config.optimizer.{field} must not be negative, got {value}")
    for field, value in decays.items():
        if not 0 <= value < 1:
            raise UserError(f"config.optimizer.{field} must be at least 0 and below 1, got {value}")
    if not 0 < layer_decay <= 1:
        raise UserError(f"config.optimizer.layer_decay must be above 0 and at most 1, got {layer_decay}")


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
