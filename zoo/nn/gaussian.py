"""What a variational autoencoder believes of z: the posterior of each window, and the prior that samples come from.

`B` batch, `Z` latent size.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Posterior(NamedTuple):
    """q(z|x), a diagonal Gaussian. `mean`, `scale`: float32 [B, Z]."""

    mean: jax.Array
    scale: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws z = μ + σ ε, by the reparametrisation of Kingma & Welling (2014)."""
        return self.mean + self.scale * jax.random.normal(key, self.mean.shape)

    def kl(self) -> jax.Array:
        """KL(q(z|x) ‖ N(0, I)) in nats, [B]."""
        variance = self.scale**2
        return 0.5 * jnp.sum(self.mean**2 + variance - 1.0 - jnp.log(variance), axis=-1)


class Prior(nnx.Module):
    """The Gaussian that the z of all training music make together, in place of N(0, I): z = ε · factor + mean.

    With a small β they are far from N(0, I), whose draws then lie where no music does. Fitted when training has ended
    (Ghosh et al. 2020, arXiv:1903.12436, section 4), see `fit`; nothing else depends on it.
    """

    def __init__(self, latent: int) -> None:
        self.mean = nnx.Param(jnp.zeros(latent))
        self.factor = nnx.Param(jnp.eye(latent))

    def __call__(self, noise: jax.Array) -> jax.Array:
        """`noise` ~ N(0, I), [B, Z] → z, [B, Z]."""
        return noise @ self.factor[...] + self.mean[...]

    def fit(self, posteriors: Posterior) -> None:
        """Takes the mean and the covariance of z over all of `posteriors`, [n, Z], and over draws from each."""
        mean, scale = (np.asarray(part, np.float64) for part in posteriors)
        covariance = np.cov(mean, rowvar=False, bias=True) + np.diag(np.mean(scale**2, axis=0))
        self.mean[...] = jnp.asarray(mean.mean(axis=0), jnp.float32)
        self.factor[...] = jnp.asarray(np.linalg.cholesky(covariance).T, jnp.float32)
