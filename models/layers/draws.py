"""Random draws of the towers, row by row: what a clip draws depends on (seed, step, row) and on nothing else.

A row's key comes from the step's key and the row's number in the global batch. So dropout and patch dropout draw the
same whether the batch is encoded at once or in parts, on one device or on many.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

_PATCHES = 1_000_003  # a number for `fold` that no layer has: they count from 0

TRAINED = "trained"
"""Metadata of a parameter: False where it is frozen. Without it a parameter counts as trained."""

RowKeys = Key[Array, "B"]
"""One key for each row of a batch. Where a tower takes `RowKeys | None`, None turns dropout off."""


def is_frozen(module: nnx.Module) -> bool:
    """Tell whether none of a module's parameters is trained; nothing random is drawn in such a tower (LiT)."""
    state = nnx.state(module, nnx.Param)
    params = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    return bool(params) and not any(param.get_metadata().get(TRAINED, True) for param in params)


def row_keys(key: Key[Array, ""], *, rows: int) -> RowKeys:
    """Return one key for each of `rows` rows of the global batch, from the step's key."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(rows))


def fold(keys: RowKeys | None, number: int | Int[Array, ""]) -> RowKeys | None:
    """Return other keys of the same rows, by a number that says what they are for (a layer, a branch, a tower)."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def fold_each(keys: RowKeys | None, times: int) -> RowKeys | None:
    """Return `times` keys for each row, row-major: `[B] -> [B * times]`, for frames that are rows of their own."""
    if keys is None:
        return None
    many = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(times)))(keys)
    return many.reshape(-1)  # [B,times] -> [B*times]


def dropout(x: Float[Array, "B *rest"], *, rate: float, keys: RowKeys | None) -> Float[Array, "B *rest"]:
    """Zero each value with probability `rate`, 0 <= rate < 1, and scale the others by 1 / (1 - rate).

    Srivastava et al. 2014.
    """
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def kept_tokens(keys: RowKeys, *, tokens: int, rate: float) -> Int[Array, "B kept"]:
    """Draw which tokens of each row stay under patch dropout (FLIP, Li et al. 2023, arXiv:2212.00794).

    Args:
      keys: one key a row.
      tokens: N, how many there are.
      rate: share that is dropped, 0 <= rate < 1; at least one token stays.

    Returns:
      Indices `[B, max(1, round(N * (1 - rate)))]`, ascending, without repeats, uniform over all such choices.
    """
    kept = max(1, round(tokens * (1 - rate)))

    def draw(key: Key[Array, ""]) -> Int[Array, "kept"]:
        return jax.random.permutation(jax.random.fold_in(key, _PATCHES), tokens)[:kept]

    return jnp.sort(jax.vmap(draw)(keys), axis=1)
