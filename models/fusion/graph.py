"""Fusion by attention over a graph whose nodes are the modalities."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ..layers.dense import linear
from ..layers.draws import RowKeys
from .interface import Features, Fused, Fusion, Tokens, fused, mean_of_present, softmax_of_present


class GraphLayer(nnx.Module):
    """One layer of a graph attention network on the complete graph of the nodes that a row has.

    h_i' = elu(sum_j alpha_ij W h_j), alpha_ij = softmax_j(leaky_relu(a . [W h_i; W h_j])), K heads side by side
    (Veličković et al. 2018, equations 1 to 5); each node is a neighbour of itself.
    """

    def __init__(self, *, width: int, heads: int, rngs: nnx.Rngs):
        """Build the layer `[B,M,D] -> [B,M,D]`."""
        self.heads = heads
        self.weight = linear(width, width, dtype=jnp.float32, bias=False, rngs=rngs)
        shape = (2, heads, width // heads)  # of the node itself, of its neighbour
        self.attention = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), shape, jnp.float32))

    def __call__(self, nodes: Float[Array, "B M D"], *, present: Bool[Array, "B M"]) -> Float[Array, "B M D"]:
        """Let each node attend to the nodes that are there."""
        h = rearrange(self.weight(nodes), "b m (k d) -> b k m d", k=self.heads)
        own, other = (jnp.einsum("bkmd,kd->bkm", h, a) for a in self.attention[...])
        scores = jax.nn.leaky_relu(own[:, :, :, None] + other[:, :, None, :], 0.2)  # [B,K,M,M]
        seen = jnp.broadcast_to(present[:, None, None, :], scores.shape)
        y = jnp.einsum("bkij,bkjd->bkid", softmax_of_present(scores, present=seen), h)
        return jax.nn.elu(rearrange(y, "b k m d -> b m (k d)"))


class GraphFusion(Fusion):
    """Graph attention over modality nodes (GAT, Veličković et al. 2018).

    The projected vectors are the nodes; after `depth` layers (`GraphLayer`) z is the mean of the nodes that a row has.
    """

    def __init__(self, *, widths: Mapping[str, int], width: int, depth: int = 2, heads: int = 4, rngs: nnx.Rngs):
        """Build the layers.

        Args:
          widths: modality -> width D_m of its vector.
          width: the common width D.
          depth: layers.
          heads: attention heads K; they divide D.
          rngs: source of the initial values.

        Raises:
          UserError: sizes that do not divide, or no layer.
        """
        super().__init__(widths=widths, width=width, rngs=rngs)
        if heads < 1 or width % heads:
            raise UserError(
                f"config.model.fusion.width={width} must divide by config.model.fusion.heads={heads}; change one of "
                "them (width is config.model.embed_dim unless it is set)"
            )
        if depth < 1:
            raise UserError(f"config.model.fusion.depth must be at least 1, got {depth}")
        self.graph = nnx.List([GraphLayer(width=width, heads=heads, rngs=rngs) for _ in range(depth)])

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; nothing is random."""
        nodes, present = self.vectors(features)
        for layer in self.graph:
            nodes = layer(nodes, present=present)
        return fused(mean_of_present(nodes, present=present), tokens=Tokens(nodes, present))
