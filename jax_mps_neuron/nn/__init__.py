"""`jax.nn` with a neuron's gradient: ``from jax_mps_neuron import nn`` in place of ``from jax import nn``.

Every public name of the installed `jax.nn` is here. The activations below are this package's. Each has the
signature, the defaults, the dtype rules (weak types too) and the edge values of its namesake, works in
forward and reverse mode, and in either mode is one neuron-gradient call where a kernel can run. At a kink
they take the derivative that `jax.nn` takes. Inputs that no neuron covers go to `jax.nn`: integers, complex
numbers, other dtypes than float32, float16, bfloat16 and float64, parameters that are not scalars (except
`leaky_relu`'s slope per channel), and the approximate `gelu`. Every other name is `jax.nn`'s own. A star
import brings only the activations.

float16 and bfloat16 inputs are computed in float32 and rounded once. `jax_mps_neuron.neuron` adds a bias,
alpha, fused gradients of learned slopes, and the choice of a route.
"""

from typing import Any

import jax.nn

from ._piecewise import elu, hard_sigmoid, identity, leaky_relu, relu, relu6, selu
from ._smooth import gelu, log_sigmoid, sigmoid, soft_sign, softplus, tanh

__all__ = [
    "elu",
    "gelu",
    "hard_sigmoid",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "soft_sign",
    "softplus",
    "tanh",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(jax.nn, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in dir(jax.nn) if not name.startswith("_"))})
