"""What the loop needs to know about the thing that it trains."""

from typing import Any, Protocol

import jax
from flax import nnx


class Objective(Protocol):
    """A model and its loss; the loop knows nothing else.

    An objective whose loss changes at known steps also has `phase(step: int) -> Hashable`, the phase of the step that
    follows `step` done ones. `loss` then takes `phase` as a further keyword, and is compiled once for each.
    """

    @property
    def trainable(self) -> tuple[str, ...]:
        """Regexes; a parameter is trained if one is found in its "/"-joined path (re.search). () = all are."""
        ...

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """Build the model. It is traced (once for shapes, once to compile), so it must read nothing but `rngs`.

        Weights that come from a file are filled in afterwards, by the `initialize` argument of `train`.
        """
        ...

    def loss(
        self, model: Any, batch: dict[str, jax.Array], *, rngs: nnx.Rngs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the mean loss of what `init` built over the GLOBAL batch (float32 scalar) and further scalars to log.

        `rngs` is derived from (seed, step): the same step draws the same numbers after a resume.
        """
        ...
