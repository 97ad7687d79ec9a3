"""bench --latency: what it times are equal functions, and it counts what is compiled."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_mps_neuron import nn
from jax_mps_neuron._tools.bench import compilation, latency
from jax_mps_neuron._tools.cli import main

PAIRS = {pair.name: pair for pair in latency.pairs((5, 4))}


@pytest.mark.parametrize("name", PAIRS)
def test_the_functions_of_a_pair_are_equal(name):
    pair = PAIRS[name]
    close = {"rtol": 1e-5, "atol": 1e-6}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), *results(pair, lambda f: f))
    if pair.differentiated:
        both = results(pair, lambda f: latency._gradient(pair, f))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), *both)


def results(pair, transform):
    return [jax.tree.leaves(transform(f)(*pair.inputs)) for f in (pair.ours, pair.theirs)]


def test_every_function_of_nn_is_timed():
    names = set(nn.__all__) - {"identity"}
    assert names == {name.split("(")[0].removeprefix("nn.") for name in PAIRS if name.startswith("nn.")}


def test_compilations_are_counted():
    def compiled(*arrays):
        before = compilation.compilations()
        function = jax.jit(lambda x: x * 3 + 1)
        jax.block_until_ready([function(array) for array in arrays])
        return compilation.compilations() - before

    ones, more = (jax.block_until_ready(jnp.ones(n)) for n in (3, 5))
    assert compiled(ones) == compiled(ones, ones) == 1
    assert compiled(ones, more, ones) == 2


def test_a_learned_neuron_compiles_once():
    learned = compilation.learned()
    assert learned["steps"] == 4
    assert {name: counts["ours"] for name, counts in learned["compilations"].items()} == {
        "elu": 1,
        "tanh": 1,
    }


def test_the_command(capsys, monkeypatch, tmp_path):
    few = [PAIRS["nn.relu(x)"], PAIRS["neuron_gradient(g, x, Neuron.gelu(), bias)"]]
    monkeypatch.setattr(latency, "pairs", lambda: few)
    file = tmp_path / "latency.json"
    assert main(["bench", "--latency", "--quick", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    result = json.loads(file.read_text())
    for key in ("cpu", "jax", "date", "command"):
        assert result[key]
    found = result["latency"]
    for call in found["calls"]:
        assert f"| `{call['name']}` | `{call['peer']}` |" in text
        for figures in filter(None, (call["us"], call["grad us"])):
            assert min(figures.values()) > 0
    assert [call["grad us"] is None for call in found["calls"]] == [False, True]
    for name, figures in found["network"]["activations"].items():
        assert f"| `{name}` |" in text
        assert min(figures[key] for key in ("trace", "lower", "compile", "temporary bytes")) > 0
    assert main(["bench", "--show", str(file)]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("other", [["--types", "gelu"], ["--modes", "dx"], ["--shapes", "8x8"]])
def test_latency_chooses_its_own_cases(other, capsys):
    assert main(["bench", "--latency", *other]) == 2
    assert f"--latency must not be combined with {other[0]}" in capsys.readouterr().err
