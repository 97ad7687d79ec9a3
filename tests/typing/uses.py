"""What the types of the public API allow and what they catch; read by mypy in `make types`, never run.

Each misuse bears the error that mypy must report there: where it reports none, the comment is unused,
which is an error of its own.
"""

from __future__ import annotations

from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron import nn

x = jnp.ones((3, 4))
gelu = jmn.Neuron.gelu()


def uses() -> None:
    assert_type(jmn.neuron(x, gelu), jax.Array)
    assert_type(
        jmn.neuron(np.ones((3, 4)), gelu, np.zeros(4), alpha=jnp.float32(2), lowering="inline"), jax.Array
    )
    gradient = jmn.neuron_gradient(x, x, jmn.Neuron.prelu(jnp.ones(4)), x[0], alpha=0.5)
    assert_type(gradient, jmn.NeuronGradient)
    assert_type(gradient.data, jax.Array)
    assert_type(gradient.bias, jax.Array | None)
    _, _, slopes = gradient
    assert_type(slopes, jax.Array | None)
    assert_type(jmn.Neuron(jmn.NeuronType.ELU, 0.5), jmn.Neuron)
    assert_type(gelu.type, jmn.NeuronType)
    assert_type(jmn.reference.neuron(x, gelu, alpha=2), jax.Array)
    assert_type(nn.relu(1.0), jax.Array)
    assert_type(nn.gelu(x, approximate=False), jax.Array)
    assert_type(nn.elu(x, alpha=x), jax.Array)
    assert_type(jmn.metal.source(jmn.metal.Kernel(jmn.NeuronType.GELU, "float32", True, False)), str)
    jmn.set_default_lowering("auto")


def misuses() -> None:
    jmn.neuron(x, "gelu")  # type: ignore[arg-type]
    jmn.neuron(x, jmn.NeuronType.GELU)  # type: ignore[arg-type]
    jmn.neuron(x, jmn.Neuron.gelu)  # type: ignore[arg-type]
    jmn.neuron([1.0, 2.0], gelu)  # type: ignore[arg-type]
    jmn.neuron(None, gelu)  # type: ignore[arg-type]
    jmn.neuron(x)  # type: ignore[call-arg]
    jmn.neuron(x, gelu, bias=[0.0])  # type: ignore[arg-type]
    jmn.neuron(x, gelu, None, 2.0)  # type: ignore[call-arg]
    jmn.neuron(x, gelu, alpha="2")  # type: ignore[arg-type]
    jmn.neuron(x, gelu, lowering=1)  # type: ignore[arg-type]
    jmn.neuron_gradient(x, gelu, x)  # type: ignore[arg-type]
    jmn.neuron_gradient(x, x, gelu).slopes  # type: ignore[attr-defined]
    jmn.Neuron("gelu")  # type: ignore[arg-type]
    jmn.Neuron.gelu(1.0)  # type: ignore[call-arg]
    jmn.Neuron.prelu()  # type: ignore[call-arg]
    jmn.Neuron.tanh(a="1")  # type: ignore[arg-type]
    jmn.Neuron.swish()  # type: ignore[attr-defined]
    gelu.a = 1.0  # type: ignore[misc]
    jmn.NeuronType.SWISH  # type: ignore[attr-defined]
    nn.relu("x")  # type: ignore[arg-type]
    nn.gelu(x, approximate="tanh")  # type: ignore[arg-type]
    nn.leaky_relu(x, negative_slope=None)  # type: ignore[arg-type]
    jmn.set_default_lowering(None)  # type: ignore[arg-type]
