"""Fusion as a product of Gaussian experts, one per modality and a prior."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ..layers.dense import linear
from ..layers.draws import RowKeys
from .interface import Features, Fused, Fusion, Tokens, fused

LOG_VARIANCE = 8.0
"""Log variances of experts are bent into -8 ... 8 by `8 tanh(x / 8)`, so no expert has infinite weight."""


class ExpertsFusion(Fusion):
    """Product-of-experts variational fusion (MVAE, Wu & Goodman 2018, section 2.2).

    Modality m is a Gaussian expert q_m = N(mu_m, v_m), both linear in its projected vector; the prior is N(0, I). The
    posterior of a row is the product of the prior and of the experts that the row has, N(mu, v) with
    1/v = 1 + sum 1/v_m and mu = v sum mu_m / v_m. In training z = mu + sqrt(v) eps, otherwise z = mu. The fusion adds
    KL(N(mu, v) || N(0, I)) = 1/2 sum (mu^2 + v - log v - 1) in nats to the loss of each row (`losses["kl"]`). The
    contrastive loss stands for MVAE's reconstruction, as in the variational information bottleneck (Alemi et al. 2017).
    """

    def __init__(self, *, widths: Mapping[str, int], width: int, rngs: nnx.Rngs):
        """Build the experts; see `Fusion`."""
        super().__init__(widths=widths, width=width, rngs=rngs)
        self.mean = nnx.Dict({side: linear(width, width, dtype=jnp.float32, rngs=rngs) for side in widths})
        self.log_variance = nnx.Dict({side: linear(width, width, dtype=jnp.float32, rngs=rngs) for side in widths})

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; `keys` turns on the draw of z."""
        q, present = self.vectors(features)
        parts = list(enumerate(self.modalities))
        mean = jnp.stack([self.mean[side](q[:, i]) for i, side in parts], axis=1)  # [B,M,D]
        logs = jnp.stack([self.log_variance[side](q[:, i]) for i, side in parts], axis=1)
        logs = jnp.float32(LOG_VARIANCE) * jnp.tanh(logs / jnp.float32(LOG_VARIANCE))
        z, variance = product_of_experts(mean, log_variance=logs, present=present)
        kl = 0.5 * jnp.sum(jnp.square(z) + variance - jnp.log(variance) - 1, axis=-1)
        if keys is not None:
            noise = jax.vmap(lambda key: jax.random.normal(key, (self.width,), jnp.float32))(keys)
            z = z + jnp.sqrt(variance) * noise
        return fused(z, tokens=Tokens(mean, present), losses={"kl": kl})


def product_of_experts(
    mean: Float[Array, "B M D"], *, log_variance: Float[Array, "B M D"], present: Bool[Array, "B M"]
) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Multiply Gaussian densities and the prior N(0, I); return mean and variance of the normalised product, float32.

    Args:
      mean: of each expert.
      log_variance: of each expert.
      present: which experts a row has; a row without any gets the prior.
    """
    precision = jnp.where(present[..., None], jnp.exp(-log_variance), jnp.float32(0))
    variance = 1 / (1 + jnp.sum(precision, axis=1))
    return variance * jnp.sum(precision * mean, axis=1), variance
