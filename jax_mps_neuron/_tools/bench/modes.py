"""The modes, and their programs in JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..._core.descriptor import Neuron
from .peers import Activation
from .timing import CALLS, Program

__all__ = [
    "BARRIERS",
    "CHAIN",
    "CHAINS",
    "DX",
    "DX_DBIAS",
    "FORWARD",
    "MODES",
    "STEP",
    "USUAL",
    "Inputs",
    "chain",
    "moved_bytes",
    "program",
]

FORWARD, DX, DX_DBIAS, CHAIN, STEP = USUAL = ("forward", "dx", "dx + dbias", "chain", "step")
# The chain with optimization barriers on every platform; measured on request only.
BARRIERS = "chain of barriers"
CHAINS = (CHAIN, BARRIERS)
MODES = (*USUAL, BARRIERS)


class Inputs(NamedTuple):
    """The arrays of one shape and dtype.

    Attributes:
      g: the incoming gradient, [*rows, channels].
      xs: the input of each layer, shaped like g.
      bias: the bias of all layers, [channels].
    """

    g: Array
    xs: tuple[Array, ...]
    bias: Array

    @classmethod
    def draw(cls, shape: tuple[int, ...], dtype: str, layers: int = CALLS) -> Inputs:
        """Normal random numbers; the bias is a tenth as large."""
        random = np.random.default_rng(0)

        def normal(shape, scale=1.0):
            values = random.standard_normal(shape, np.float32) * np.float32(scale)
            return jax.block_until_ready(jnp.asarray(values, dtype))

        return cls(normal(shape), tuple(normal(shape) for _ in range(layers)), normal(shape[-1:], 0.1))


def moved_bytes(mode: str, shape: tuple[int, ...], dtype: str) -> int:
    """The bytes that a call must read and write."""
    item = jnp.dtype(dtype).itemsize
    size, channels = int(np.prod(shape)) * item, shape[-1] * item
    vectors = {FORWARD: channels, DX: 0}.get(mode, 2 * channels)
    return (2 if mode == FORWARD else 3) * size + vectors


def program(mode: str, activation: Activation, n: Neuron, inputs: Inputs) -> Program:
    """The program of every mode except a training step, which is `training.program`."""
    g, xs, bias = inputs
    if mode == FORWARD:
        forward = jax.jit(lambda x, bias: activation(x, n, bias))
        return Program(lambda: bias, lambda _: forward(xs[0], bias), jax.block_until_ready)
    if mode in CHAINS:
        run = chain(activation, n) if mode == CHAIN else jax.jit(_barriers(activation, n), donate_argnums=1)
        yes = jnp.asarray(True)
        return in_place(g, lambda g: run(yes, g, xs, bias)[0], layers=len(xs))
    # The gradient is donated: a training step does not read it again.
    if mode == DX:
        dx = jax.jit(lambda g, x: jax.vjp(lambda x: activation(x, n, None), x)[1](g)[0], donate_argnums=0)
        return in_place(g, lambda g: dx(g, xs[0]))
    both = jax.jit(lambda g, x, bias: _gradients(activation, n, g, x, bias), donate_argnums=0)
    return in_place(g, lambda g: both(g, xs[0], bias)[0])


def in_place(g: Array, call: Callable[[Array], Array], layers: int = 1) -> Program:
    """A program whose calls overwrite a copy of g."""
    return Program(lambda: _copy(g), call, jax.block_until_ready, layers)


@jax.jit
def _copy(g: Array) -> Array:
    return g + 0


def _gradients(activation: Activation, n: Neuron, g: Array, x: Array, bias: Array) -> tuple[Array, Array]:
    return jax.vjp(lambda x, bias: activation(x, n, bias), x, bias)[1](g)


def chain(activation: Activation, n: Neuron) -> Callable[..., tuple[Array, list[Array]]]:
    """The backward passes of one layer per x: (True, g, xs, bias) -> (dx, bias gradients).

    In a network, matrix products separate the layers. Here, something free must keep XLA from fusing them
    into one loop. An optimization barrier does so, except on the CPU, where XLA removes barriers before it
    fuses (on jax 0.10.2, the sums of eight layers without an activation become one sum). On the CPU each
    layer is therefore a branch of its own conditional, taken at run time. The other branch returns the
    gradient and reads x; otherwise XLA would merge the conditionals of layers that leave the gradient
    unchanged. Before jax 0.10, XLA runs a branch on one thread, so there each layer is its own program.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(_barriers(activation, n), donate_argnums=1)
    if jax.__version_info__ < (0, 10):
        return _apart(activation, n)
    return jax.jit(_branches(activation, n), donate_argnums=1)


def _branches(activation: Activation, n: Neuron) -> Callable[..., Any]:
    def layers(taken: Array, g: Array, xs: Sequence[Array], bias: Array) -> tuple[Array, list[Array]]:
        sums = []
        for x in xs:
            g, total = lax.cond(
                taken,
                lambda g, x, bias: tuple(_gradients(activation, n, g, x, bias)),
                lambda g, x, bias: (g, x.reshape(-1, *bias.shape)[0]),
                *(g, x, bias),
            )
            sums.append(total)
        return g, sums

    return layers


def _barriers(activation: Activation, n: Neuron) -> Callable[..., Any]:
    def layers(taken: Array, g: Array, xs: Sequence[Array], bias: Array) -> tuple[Array, list[Array]]:
        sums = []
        for x in xs:
            g, total = lax.optimization_barrier(tuple(_gradients(activation, n, g, x, bias)))
            sums.append(total)
        return g, sums

    return layers


def _apart(activation: Activation, n: Neuron) -> Callable[..., Any]:
    layer = jax.jit(lambda g, x, bias: _gradients(activation, n, g, x, bias), donate_argnums=0)

    def layers(taken: Array, g: Array, xs: Sequence[Array], bias: Array) -> tuple[Array, list[Array]]:
        sums = []
        for x in xs:
            g, total = layer(g, x, bias)
            sums.append(total)
        return g, sums

    return layers
