"""A training step of a small network, and its peak memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..._core.descriptor import Neuron, NeuronType
from .peers import Activation
from .timing import Program

__all__ = ["peak_memory", "program", "step", "weights"]

BLOCKS = 2
_WIDTH = 16  # hidden channels of a block per input and output feature
_RATE = 1e-3


def weights(n: Neuron, channels: int, dtype: str) -> list[dict[str, Array]]:
    """The parameters of each block, which maps a few features to all channels and back."""
    random = np.random.default_rng(0)
    features = max(1, channels // _WIDTH)

    def normal(*shape):
        return jnp.asarray(random.standard_normal(shape, np.float32) / np.sqrt(np.float32(shape[0])), dtype)

    blocks = []
    for _ in range(BLOCKS):
        block = {
            "up": normal(features, channels),
            "bias": jnp.zeros(channels, dtype),
            "down": normal(channels, features),
        }
        if n.type is NeuronType.PRELU:
            block["slopes"] = jnp.asarray(n.a, dtype)
        blocks.append(block)
    return blocks


def _loss(activation: Activation, n: Neuron, blocks: Any, x: Array) -> Array:
    y = x
    for block in blocks:
        layer = Neuron.prelu(block["slopes"]) if "slopes" in block else n
        y = activation(y @ block["up"], layer, block["bias"]) @ block["down"]
    return jnp.square(y - x).mean(dtype=jnp.float32)


def step(activation: Activation, n: Neuron) -> Any:
    """A jitted step of gradient descent, (blocks, x) -> (blocks, loss), which donates the old blocks."""

    def descend(blocks, x):
        loss, gradients = jax.value_and_grad(lambda b: _loss(activation, n, b, x))(blocks)
        return jax.tree.map(lambda w, d: w - _RATE * d.astype(w.dtype), blocks, gradients), loss

    return jax.jit(descend, donate_argnums=0)


def peak_memory(compiled: Any) -> int:
    """The bytes of a compiled program's arguments, results and temporaries, by XLA's analysis."""
    m = compiled.memory_analysis()
    shared = m.alias_size_in_bytes
    return m.argument_size_in_bytes + m.output_size_in_bytes - shared + m.temp_size_in_bytes


def program(activation: Activation, n: Neuron, shape: tuple[int, ...], dtype: str) -> tuple[Program, int]:
    """The compiled step and its peak memory in bytes. `shape` is that of a hidden layer."""
    first = weights(n, shape[-1], dtype)
    rows, features = int(np.prod(shape[:-1])), first[0]["up"].shape[0]
    x = jnp.asarray(np.random.default_rng(1).standard_normal((rows, features), np.float32), dtype)
    compiled = step(activation, n).lower(first, x).compile()

    def fresh():
        return jax.tree.map(lambda w: w + 0, first), None

    timed = Program(fresh, lambda state: compiled(state[0], x), jax.block_until_ready)
    return timed, peak_memory(compiled)
