"""A closed set of texts as a tree of their tokens, for generation that may write nothing else."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..base.errors import UserError


@jax.tree_util.register_pytree_node_class
class Prefixes:
    """A tree (trie) in two tables of static shape; node 0 is the root, where a text begins.

    Attributes:
      tokens: int32 `[nodes,M]`, the tokens that may follow a node; -1 fills up the row.
      children: int32 `[nodes,M]`, the node after each of them.
    """

    def __init__(self, tokens: Array, children: Array):
        """Hold the tables; `of` makes them."""
        self.tokens, self.children = tokens, children

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], *, eos_id: int) -> "Prefixes":
        """Build the tree.

        Args:
          texts: token ids without the end token; doubles count once, one may begin another.
          eos_id: the end token, which follows each.

        Raises:
          UserError: no texts, or an empty one.
        """
        if not texts or min(map(len, texts)) == 0:
            raise UserError(f"generation among given texts needs texts of at least one token, got {len(texts)} texts")
        following: list[dict[int, int]] = [{}]
        for text in texts:
            node = 0
            for token in (*text, eos_id):
                if token not in following[node]:
                    following[node][int(token)] = len(following)
                    following.append({})
                node = following[node][int(token)]
        shape = len(following), max(map(len, following))
        tokens, children = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
        for node, edges in enumerate(following):
            tokens[node, : len(edges)] = list(edges)
            children[node, : len(edges)] = list(edges.values())
        return cls(jnp.asarray(tokens), jnp.asarray(children))

    def allowed(self, node: Int[Array, "B"], *, vocab_size: int) -> Bool[Array, "B V"]:
        """Tell which tokens may follow each node; none after the end of a text."""
        tokens = self.tokens[node]  # [B,M]
        rows = jnp.arange(node.shape[0])[:, None]
        found = jnp.zeros((node.shape[0], vocab_size + 1), bool)  # one more place for the tokens that fill up
        return found.at[rows, jnp.where(tokens < 0, vocab_size, tokens)].set(True)[:, :vocab_size]

    def follow(self, node: Int[Array, "B"], *, token: Int[Array, "B"]) -> Int[Array, "B"]:
        """Return the node after each token; a node stays where the token does not follow it."""
        fits = self.tokens[node] == token[:, None]  # [B,M]
        return jnp.where(fits.any(axis=1), jnp.where(fits, self.children[node], 0).sum(axis=1, dtype=jnp.int32), node)

    def tree_flatten(self) -> tuple[tuple[Array, Array], None]:
        """Return the tables, for JAX."""
        return (self.tokens, self.children), None

    @classmethod
    def tree_unflatten(cls, _: None, tables: tuple[Array, Array]) -> "Prefixes":
        """Build from the tables, for JAX."""
        return cls(*tables)
