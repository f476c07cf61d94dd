"""Random draws of the towers, row by row: each is a function of (seed, step, row) alone.

A row's key comes from the step's key and the row's number in the global batch. Dropout, stochastic depth and patch
dropout therefore draw the same whether a batch is encoded at once or in parts, on one device or on many.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

_PATCHES = 1_000_003  # for `fold`; no layer has this number, as layers count from 0

TRAINED = "trained"
"""Metadata of a parameter: False where it is frozen. Without it a parameter counts as trained."""

RowKeys = Key[Array, "B"]
"""One key for each row of a batch. In a tower's `keys: RowKeys | None`, None turns everything random off."""

_KEYS: contextvars.ContextVar[RowKeys | None] = contextvars.ContextVar("keys_of_a_branch", default=None)


@contextlib.contextmanager
def drawing(keys: RowKeys | None) -> Iterator[None]:
    """Give `drawn` these keys inside this context, while tracing: for layers that are called without keys."""
    token = _KEYS.set(keys)
    try:
        yield
    finally:
        _KEYS.reset(token)


def drawn(rows: int, *, number: int) -> RowKeys | None:
    """Return keys of the context `drawing` for `rows` rows, derived by `number`; None where nothing is random.

    `rows` may be a multiple of the rows of the context, whose parts then follow each other (frames of a clip); of
    fewer rows, which all rows of the batch share, nothing is random.
    """
    keys = fold(_KEYS.get(), number)
    if keys is None or rows < keys.shape[0]:
        return None
    return keys if rows == keys.shape[0] else fold_each(keys, rows // keys.shape[0])


def is_frozen(module: nnx.Module) -> bool:
    """Tell whether none of a module's parameters is trained; nothing random is drawn in such a tower (LiT)."""
    state = nnx.state(module, nnx.Param)
    params = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    return bool(params) and not any(param.get_metadata().get(TRAINED, True) for param in params)


def row_keys(key: Key[Array, ""], *, rows: int) -> RowKeys:
    """Return one key for each of `rows` rows of the global batch, from the step's key."""
    return numbered_keys(key, numbers=jnp.arange(rows))


def numbered_keys(key: Key[Array, ""], *, numbers: Int[Array, "B"]) -> RowKeys:
    """Return one key for each number: equal ones get equal keys, wherever they stand."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def fold(keys: RowKeys | None, number: int | Int[Array, ""]) -> RowKeys | None:
    """Derive other keys of the same rows by the number of their use (a tower, a layer, a branch)."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def folded(keys: RowKeys, number: int) -> RowKeys:
    """Return `fold(keys, number)` of keys that are there."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def fold_each(keys: RowKeys | None, times: int) -> RowKeys | None:
    """Derive `times` keys for each row, row-major: `[B] -> [B * times]`, for frames as rows of their own."""
    if keys is None:
        return None
    many = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(times)))(keys)
    return many.reshape(-1)  # [B,times] -> [B*times]


def dropout(x: Float[Array, "B *rest"], *, rate: float, keys: RowKeys | None) -> Float[Array, "B *rest"]:
    """Zero each value with probability `rate`, 0 <= rate < 1, and scale the others by 1 / (1 - rate), in float32.

    Srivastava et al. 2014.
    """
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    scaled = x.astype(jnp.float32) * jnp.float32(1 / (1 - rate))
    return jnp.where(keep, scaled, jnp.float32(0)).astype(x.dtype)


def drop_path(
    x: Float[Array, "B *rest"], *, rate: float | Float[Array, ""], keys: RowKeys | None
) -> Float[Array, "B *rest"]:
    """Zero each row with probability `rate`, 0 <= rate < 1, and scale the others by 1 / (1 - rate), in float32.

    Stochastic depth (Huang et al. 2016) where `x` is a residual branch.
    """
    if keys is None:
        return x
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep))(keys)  # [B]
    factor = (kept.astype(jnp.float32) / keep).reshape(-1, *(1,) * (x.ndim - 1))
    return (x.astype(jnp.float32) * factor).astype(x.dtype)


def kept_tokens(keys: RowKeys, *, tokens: int, rate: float) -> Int[Array, "B kept"]:
    """Draw the tokens of each row that patch dropout keeps (FLIP, Li et al. 2023, arXiv:2212.00794).

    Args:
      keys: one key per row.
      tokens: N.
      rate: share of the tokens to drop, 0 <= rate < 1; at least one token is kept.

    Returns:
      Indices `[B, max(1, round(N * (1 - rate)))]`, ascending, without repeats, uniform over all such choices.
    """
    kept = max(1, round(tokens * (1 - rate)))

    def draw(key: Key[Array, ""]) -> Int[Array, "kept"]:
        return jax.random.permutation(jax.random.fold_in(key, _PATCHES), tokens)[:kept]

    return jnp.sort(jax.vmap(draw)(keys), axis=1)
