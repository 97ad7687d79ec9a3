"""NeuronType and Neuron."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_mps_neuron import Neuron, NeuronType

APPLE = [
    ("NONE", ()),
    ("RELU", (0,)),
    ("LINEAR", (1, 0)),
    ("SIGMOID", ()),
    ("HARD_SIGMOID", (0.2, 0.5)),
    ("TANH", (1, 1)),
    ("ABSOLUTE", ()),
    ("SOFTPLUS", (1, 1)),
    ("SOFTSIGN", ()),
    ("ELU", (1,)),
    ("PRELU", None),
    ("RELUN", (1, 6)),
    ("POWER", (1, 0, 1)),
    ("EXPONENTIAL", (1, 0, -1)),
    ("LOGARITHM", (1, 0, -1)),
    ("GELU", ()),
]


@pytest.mark.parametrize("raw", range(16))
def test_raw_values_names_and_defaults_are_apples(raw):
    name, defaults = APPLE[raw]
    assert NeuronType(raw).name == name
    constructor = getattr(Neuron, name.lower())
    if defaults is None:
        with pytest.raises(TypeError):
            constructor()
        return
    neuron = constructor()
    assert neuron.type is NeuronType(raw)
    assert (neuron.a, neuron.b, neuron.c)[: len(defaults)] == defaults
    assert neuron == Neuron(raw) == Neuron(NeuronType[name])
    if defaults:
        changed = constructor(*(d + 0.5 for d in defaults))
        assert (changed.a, changed.b, changed.c)[: len(defaults)] == tuple(d + 0.5 for d in defaults)


def test_is_a_pytree_with_a_static_type():
    neuron = Neuron.tanh(1.7, 0.6)
    leaves, tree = jax.tree.flatten(neuron)
    assert leaves == [1.7, 0.6]
    assert jax.tree.unflatten(tree, leaves) == neuron
    assert jax.tree.map(lambda p: 2 * p, neuron) == Neuron.tanh(3.4, 1.2)
    assert tree != jax.tree.structure(Neuron.linear(1.7, 0.6))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(neuron)[0]]
    assert paths == [".a", ".b"]
    assert jax.tree.unflatten(tree, [None] * 2).a is None  # any leaf goes into a tree


def test_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Neuron.gelu().a = 1.0
    assert dataclasses.replace(Neuron.elu(2.0), a=3.0) == Neuron.elu(3.0)


def test_equality_hash_copy_and_pickle_go_by_value():
    neuron = Neuron.prelu(np.float32([0.25, 0.5]))
    twin = Neuron.prelu(jnp.array([0.25, 0.5]))
    assert neuron == twin
    assert hash(neuron) == hash(twin)
    assert neuron != Neuron.prelu(np.float32([0.25, 0.75]))
    assert neuron != Neuron.prelu(jnp.bfloat16([0.25, 0.5]))  # its slope gradient is bfloat16
    assert Neuron.elu(0.5) == Neuron.elu(np.float32(0.5))
    assert hash(Neuron.elu(0.5)) == hash(Neuron.elu(jnp.float32(0.5)))
    assert Neuron.relu(1.0) != Neuron.elu(1.0)
    assert Neuron.gelu() != "gelu"
    for twin in (copy.copy(neuron), copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert twin == neuron


def test_a_static_argument_of_jit():
    traces = []

    def f(x, neuron):
        traces.append(neuron)
        return x * neuron.a

    jitted = jax.jit(f, static_argnums=1)
    assert jitted(2.0, Neuron.elu(0.5)) == jitted(2.0, Neuron.elu(np.float32(0.5))) == 1.0
    assert len(traces) == 1


def test_repr_shows_the_parameters_that_the_type_has():
    assert repr(Neuron.tanh(1.7)) == "Neuron(TANH, a=1.7, b=1.0)"
    assert repr(Neuron.gelu()) == "Neuron(GELU)"


def test_unknown_type():
    with pytest.raises(
        ValueError, match=r"^type must be a NeuronType \(NONE \(0\), .*GELU \(15\)\), got 16"
    ):
        Neuron(16)
    with pytest.raises(ValueError, match=r"^type must be a NeuronType .*, got 'gelu'"):
        Neuron("gelu")


def test_traced_parameters_have_no_equality():
    """JAX's own errors, not one about NumPy's arrays."""

    @jax.jit
    def compare(a):
        neuron = Neuron.elu(a)
        assert neuron == neuron
        with pytest.raises(jax.errors.TracerBoolConversionError):
            assert neuron == Neuron.elu(1.0)
        return a

    compare(2.0)
