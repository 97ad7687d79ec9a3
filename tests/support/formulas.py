"""f as one writes it in JAX without this package, which autodiff differentiates."""

from __future__ import annotations

import jax.numpy as jnp

from jax_mps_neuron import NeuronType
from jax_mps_neuron._tools.bench import PLAIN


def plain(neuron_type: NeuronType, z, a=0.0, b=0.0, c=0.0, *, base_e=True):
    """f(z), of exponentials and logarithms to the base e or c."""
    if not base_e and neuron_type is NeuronType.EXPONENTIAL:
        return jnp.power(c, a * z + b)
    if not base_e and neuron_type is NeuronType.LOGARITHM:
        return jnp.log(a * z + b) / jnp.log(c)
    return PLAIN[neuron_type](z, a, b, c)
