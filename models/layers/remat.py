"""Rematerialisation: which activations of a layer are kept for the backward pass, and which are recomputed."""

from collections.abc import Callable
from typing import Any

import jax

from ...base.errors import UserError, unknown

_SAVED = jax.checkpoint_policies

POLICIES: dict[str, Any] = {
    "none": None,
    "dots": _SAVED.dots_saveable,
    "dots_no_batch": _SAVED.dots_with_no_batch_dims_saveable,
    "full": _SAVED.nothing_saveable,
}
"""Policies of `config.model.remat`, from most memory and least recomputation to least memory and most recomputation:

  none            everything is kept; nothing is recomputed
  dots            results of all matrix products are kept, attention scores included; the rest is recomputed
  dots_no_batch   results of products with weights are kept; attention scores and the rest are recomputed
  full            only the input of each layer is kept; each layer's forward pass runs twice (Chen et al. 2016)

`names:a,b` lies between `none` and `full`: only the activations with these names, of `NAMES`, are kept.
"""

NAMES = ("qkv", "attention", "hidden", "tokens")
"""Activations of a block that a `names:` policy may keep, see `models.layers.blocks`."""


def check_remat(name: str) -> None:
    """Raise UserError unless `name` is a policy; the message suggests the nearest one."""
    if name.startswith("names:"):
        for part in _names(name):
            if part not in NAMES:
                raise unknown("activation in config.model.remat", part, NAMES)
        if not _names(name):
            raise UserError(f"config.model.remat={name!r} names no activation; known: {', '.join(NAMES)}")
    elif name not in POLICIES:
        raise unknown("policy in config.model.remat", name, [*POLICIES, "names:..."])


def rematerialised(function: Callable[..., Any], *, policy: str, looped: bool) -> Callable[..., Any]:
    """Return `function`, a layer, under a policy of `POLICIES` or `names:a,b`.

    Args:
      function: the layer.
      policy: name of the policy.
      looped: whether layers run in a loop. If not, a barrier prevents the compiler from merging the recomputation with
        the first computation, which would keep everything; in a loop no barrier is needed. On a CPU only a loop saves
        memory: without one, its compiler recomputes as early as it likes.

    Raises:
      UserError: no such policy.
    """
    check_remat(policy)
    if policy == "none":
        return function
    saved = _SAVED.save_only_these_names(*_names(policy)) if policy.startswith("names:") else POLICIES[policy]
    return jax.checkpoint(function, policy=saved, prevent_cse=not looped)


def _names(policy: str) -> list[str]:
    return [part.strip() for part in policy.removeprefix("names:").split(",") if part.strip()]
