"""Bounds of errors in ULP, and the checks against them and against the plain formula."""

from __future__ import annotations

import os

import numpy as np

from jax_mps_neuron import Neuron
from support import ulps

DENSE = bool(os.environ.get("JAX_MPS_NEURON_DENSE"))
POINTS = 1_000_000 if DENSE else 20_000

# The greatest errors in ULP: f and f' of the CPU kernels, then f and f' inline, in float32. An argument
# such as b*z is rounded before exp sees it, which alone makes 64 ULP at the ends of the range.
FLOAT32 = {
    "none": (0, 0, 0, 0),
    "relu": (0, 0, 0, 0),
    "leaky_relu": (0, 0, 0, 0),
    "linear": (0.5, 0, 0.5, 0),
    "linear_default": (0, 0, 0, 0),
    "sigmoid": (2.75, 5, 2.75, 5),
    "hard_sigmoid": (0.5, 0, 0.5, 0),
    "hard_sigmoid_default": (0.5, 0, 0.5, 0),
    "tanh": (3.5, 68, 6, 68),
    "tanh_default": (2.75, 5, 6, 5),
    "absolute": (0, 0, 0, 0),
    "softplus": (66, 66, 66, 66),
    "softplus_default": (3.25, 2.75, 3.25, 2.75),
    "softsign": (1.5, 3.5, 1.5, 3.5),
    "elu": (1.5, 1.65, 1.75, 1.75),
    "elu_default": (1, 1, 1.5, 1.1),
    "prelu": (0.5, 0, 0.5, 0),
    "relun": (0, 0, 0, 0),
    "relun_default": (0, 0, 0, 0),
    "power": (3.25, 3, 3.25, 3),
    "power_default": (0, 0, 0, 0),
    "square": (2, 0.5, 2, 0.5),
    "sqrt": (0.505, 0.6, 0.505, 0.505),
    "reciprocal": (0.505, 0.6, 0.505, 0.505),
    "exponential": (70, 4.3e6, 70, 4.3e6),  # a e^u is infinite already where e^u is
    "exponential_default": (1, 1, 5.5, 5.5),
    "exponential_base": (85, 8.4e6, 85, 8.4e6),
    "logarithm": (1.25, 1.55, 1.25, 1.55),
    "logarithm_default": (0.8, 0.505, 1.25, 0.505),
    "logarithm_base": (2.25, 2.55, 2.5, 2.55),
    "gelu": (67, 70, 67, 70),
}
# Of float16 and bfloat16: rounded from a float32 that is better than this by far.
HALF = 0.505
HALF_EXCEPTIONS = {
    ("exponential", "bfloat16"): 2.7,
    ("exponential_base", "bfloat16"): 65,
}  # f' alone; see above

# Without fused multiply-adds a*x + b is rounded twice.
WITHOUT_FMA = {"linear": 1.0, "hard_sigmoid_default": 0.75}

# What is, in float32, somewhat less accurate than the plain formula in the mean, by a few hundredths of an
# ULP: the logistic function and logarithms of other bases in the kernels.
WORSE = {
    ("sigmoid", "f"),
    ("logarithm_base", "f"),
}


def fused_probe() -> tuple[Neuron, np.ndarray]:
    """A neuron and x for which f(x) is 0 if a*x + b is rounded twice."""
    a = np.float32(1 + 2.0**-12)
    return Neuron.linear(a, -a * a), np.full((1, ulps.CHANNELS), a)


def check_bounds(name: str, dtype: str, function: str, figures: ulps.Figures, *, inline: bool, fused: bool):
    """Asserts that errors are within the bounds above."""
    bound = FLOAT32[name][("f", "f'").index(function) + 2 * inline]
    if dtype != "float32":
        bound = HALF_EXCEPTIONS.get((name, dtype), HALF) if function == "f'" else HALF
    elif function == "f" and not fused:
        bound = WITHOUT_FMA.get(name, bound)
    assert figures.wrong == 0, figures
    assert figures.max <= bound, figures
    # The kernels keep subnormal numbers; some are rounded twice, to more digits than they have first.
    assert inline or figures.below <= max(bound, HALF + bound / 2), figures


def check_no_worse(figures: ulps.Figures, plain: ulps.Figures) -> None:
    """Asserts that errors are not larger than those of the plain formula.

    A result within one ULP is one of the two numbers beside the truth. And from one sweep to another, the
    maxima of one formula differ by 5% in a million numbers, the means by less than 1%.
    """
    assert figures.max <= max((1.05 if DENSE else 1.2) * plain.max, 1.0), (figures, plain)
    assert figures.mean <= (1.01 if DENSE else 1.05) * plain.mean + 0.002, (figures, plain)
