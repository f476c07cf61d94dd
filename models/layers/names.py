"""Names for activations, for rematerialisation policies and the sharding table."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
from jax.ad_checkpoint import checkpoint_name

Resolver = Callable[[str, jax.Array], jax.Array]

_RESOLVER: contextvars.ContextVar[Resolver | None] = contextvars.ContextVar("activation_resolver", default=None)


def named(x: jax.Array, name: str) -> jax.Array:
    """Mark an activation.

    Args:
      x: any array.
      name: `activation/<tower>/<what>`; the last part is its name in rematerialisation policies.

    Returns:
      `x`, named for `jax.checkpoint` and, inside `placing`, placed on the mesh by the resolver.
    """
    resolver = _RESOLVER.get()
    placed = x if resolver is None else resolver(name, x)
    return checkpoint_name(placed, name.rsplit("/", 1)[-1])


@contextlib.contextmanager
def placing(resolver: Resolver) -> Iterator[None]:
    """Make `named` pass every activation through `resolver(name, x) -> x` inside this context, while tracing."""
    token = _RESOLVER.set(resolver)
    try:
        yield
    finally:
        _RESOLVER.reset(token)
