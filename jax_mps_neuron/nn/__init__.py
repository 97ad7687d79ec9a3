"""`jax.nn` with a neuron's gradient: write ``from jax_mps_neuron import nn`` in place of ``from jax import
nn``.

Every public name of the installed `jax.nn` is here. The activations below are this package's. Each has the
signature, the defaults, the dtype rules (weak types too) and the edge values of its namesake, works in
forward and reverse mode, and in either mode is one neuron-gradient call where a kernel can run. At a kink
they take the derivative that `jax.nn` takes. Inputs that no neuron covers go to `jax.nn`: integers, complex
numbers, other dtypes than float32, float16, bfloat16 and float64, parameters that are not scalars (except
`leaky_relu`'s slope per channel), and the approximate `gelu`. Every other name is `jax.nn`'s own.

float16 and bfloat16 inputs are computed in float32 and rounded once. `jax_mps_neuron.neuron` adds a bias,
alpha, fused gradients of learned slopes, and the choice of a route.
"""

from typing import Any

import jax.nn

# "as" exports a name to type checkers, which cannot read the __all__ below.
from ._piecewise import elu as elu
from ._piecewise import hard_sigmoid as hard_sigmoid
from ._piecewise import identity as identity
from ._piecewise import leaky_relu as leaky_relu
from ._piecewise import relu as relu
from ._piecewise import relu6 as relu6
from ._piecewise import selu as selu
from ._smooth import gelu as gelu
from ._smooth import log_sigmoid as log_sigmoid
from ._smooth import sigmoid as sigmoid
from ._smooth import soft_sign as soft_sign
from ._smooth import softplus as softplus
from ._smooth import tanh as tanh

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
    return getattr(jax.nn, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in dir(jax.nn) if not name.startswith("_"))})
