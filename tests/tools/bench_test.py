"""The benchmark: what it times computes the right thing, and what it writes is whole."""

from __future__ import annotations

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_mps_neuron import Neuron, NeuronType
from jax_mps_neuron._lowering import native
from jax_mps_neuron._tools.bench import modes, neuron_for, peers, torch_peers, training
from jax_mps_neuron._tools.bench.floors import floors, is_floor
from jax_mps_neuron._tools.bench.report import bandwidth
from jax_mps_neuron._tools.bench.timing import Program, interleaved
from jax_mps_neuron._tools.cli import main
from jax_mps_neuron._tools.themes import THEMES
from support import apple
from support.arrays import assert_close

SHAPE = (16, 8)
T = NeuronType

# The parameters that torch and jax.nn have built in.
BUILT_IN = {
    T.HARD_SIGMOID: Neuron.hard_sigmoid(1 / 6, 0.5),
    T.TANH: Neuron.tanh(),
    T.RELUN: Neuron.relun(0.0, 6.0),
}


def check_times(cell):
    for times in cell["ms"].values():
        assert 0 < times["low"] <= times["median"] <= times["high"]
    medians = {name: times["median"] for name, times in cell["ms"].items()}
    assert set(cell["ratios"]) == {n for n in medians if n != cell["ours"] and not is_floor(n)}
    for name, ratio in cell["ratios"].items():
        assert ratio == pytest.approx(medians[name] / medians[cell["ours"]], rel=1e-4)
    if cell["mode"] != "step":
        assert medians[cell["floor"]] == min(m for name, m in medians.items() if is_floor(name))


@pytest.fixture
def bench(capsys, tmp_path):
    """Runs the command and returns its JSON and what it printed."""

    def run(*arguments):
        out = tmp_path / "bench.json"
        assert main(["bench", *arguments, "--json", str(out)]) == 0
        return json.loads(out.read_text()), capsys.readouterr().out

    return run


def test_all_types(bench):
    result, text = bench("--quick", "--modes", "dx+dbias", "--peers", "XLA")
    assert [cell["type"] for cell in result["records"]] == [t.name.lower() for t in T]
    for cell in result["records"]:
        check_times(cell)
        assert f"| {cell['type']} |" in text
        assert set(cell["ms"]) >= {result["ours"], "XLA", "x * g, XLA"}
    assert "### dx + dbias, float32, [64, 32]" in text
    assert "| geometric mean |" in text


@pytest.mark.slow
def test_all_modes_and_dtypes(bench, tmp_path):
    picture = tmp_path / "bench.png"
    dtypes = ["float32", "bfloat16"]
    options = ["--quick", "--repeats", "1", "--types", "prelu", "--plot", str(picture)]
    result, text = bench(
        *options, "--peers", "XLA", "inline", "jax.nn", "--dtypes", *dtypes, "--modes", *modes.MODES
    )
    found = [(c["dtype"], c["mode"]) for c in result["records"]]
    assert sorted(found) == sorted((d, m) for d in dtypes for m in modes.MODES)
    for cell in result["records"]:
        check_times(cell)
        assert {"XLA", "inline", "jax.nn"} <= set(cell["ms"])
        assert f"### {cell['mode']}, {cell['dtype']}, [64, 32]" in text
        if cell["mode"] == "step":
            assert set(cell["peak bytes"]) == set(cell["ms"])
            assert min(cell["peak bytes"].values()) > 0
    for name in ("cpu", "cores", "device", "isa", "jax", "date", "command", "repeats"):
        assert name in result
    assert picture.stat().st_size > 10000


def test_sweep(bench, capsys, tmp_path):
    result, text = bench("--sweep", "256B-4KiB", "--types", "relu", "--repeats", "1", "--peers", "XLA")
    assert [cell["shape"] for cell in result["records"]] == [[1, 64], [1, 256], [4, 256]]
    for cell in result["records"]:
        check_times(cell)
    assert "| 256 B |" in text
    assert "| 4 KiB |" in text
    written, picture = tmp_path / "bench.json", tmp_path / "sweep.svg"
    assert main(["bench", "--show", str(written), "--plot", str(picture)]) == 0
    assert capsys.readouterr().out == text
    assert "milliseconds per call" in picture.read_text()


def test_pictures_show_what_is_cut(bench, tmp_path):
    draw = pytest.importorskip("jax_mps_neuron._tools.bench.plots").draw
    result, _ = bench(
        "--quick", "--modes", "chain", "--types", "none", "relu", "--peers", "XLA", "--repeats", "1"
    )
    cell = result["records"][0]
    cell["ms"][cell["ours"]]["median"] = cell["ms"][cell["floor"]]["median"] / 3
    pictures = []
    for theme in THEMES:
        draw([result], tmp_path / f"bars-{theme}.svg", theme)
        pictures.append((tmp_path / f"bars-{theme}.svg").read_text())
        assert f"\N{RIGHTWARDS ARROW} {3 * bandwidth(cell, cell['floor']):.0f}" in pictures[-1]
        assert "relu" in pictures[-1]
    assert pictures[0] != pictures[1]


def test_nothing_has_no_bandwidth(bench):
    _, text = bench(
        "--quick", "--modes", "dx", "--types", "none", "relu", "--peers", "XLA", "--repeats", "1"
    )
    none, relu, mean = re.findall(r"^\| (?:none|relu|geometric mean) \|.*$", text, re.MULTILINE)
    assert none.endswith("| \N{EN DASH} | \N{EN DASH} |")
    assert relu.split("|")[-2] == mean.split("|")[-2]


def test_figures_that_are_none(capsys, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"records": [{}]}')
    for path, message in ((other, "has no such measurements"), (tmp_path / "none.json", "cannot read")):
        assert main(["bench", "--show", str(path)]) == 1
        assert message in capsys.readouterr().err


REFUSED = {
    "--sweep must not be combined with --shapes or --modes": ["--sweep", "--shapes", "8x8"],
    "--plot needs a mode other than 'step'": ["--modes", "step", "--plot", "step.svg"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_options_that_do_not_go_together(message, capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *REFUSED[message]]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_peer_that_is_not_here(capsys, monkeypatch):
    monkeypatch.setattr(torch_peers, "installed", lambda: False)
    assert main(["bench", "--peers", "torch", "custom_call"]) == 2
    assert "--peers torch needs PyTorch" in capsys.readouterr().err


def gradient_of_layers(neuron, inputs, count):
    """The gradient after the backward passes of that many layers, in float64."""
    g = np.asarray(inputs.g, np.float64)
    for x in inputs.xs[:count]:
        g = apple.neuron_gradient(g, x, neuron, inputs.bias).data
    return g


def peers_of(kind):
    return [(kind, name) for name in peers.activations(kind, "cpu")]


@pytest.mark.parametrize(("kind", "name"), [p for kind in T for p in peers_of(kind) if p[1] != "inline"])
def test_programs_compute_the_gradient(kind, name):
    mode = modes.DX_DBIAS if kind is T.GELU else modes.CHAIN
    inputs = modes.Inputs.draw(SHAPE, "float32", layers=2)
    n = BUILT_IN.get(kind, neuron_for(kind, SHAPE[-1]))
    if name == peers.JAX_NN and kind is T.RELU:
        n = Neuron.relu()
    program = modes.program(mode, peers.activations(kind, "cpu")[name], n, inputs)
    layers = 2 if mode == modes.CHAIN else 1
    assert program.layers == layers
    assert_close(program.call(program.fresh()), gradient_of_layers(n, inputs, layers), factor=8)


@pytest.mark.skipif(not torch_peers.installed(), reason="PyTorch is not installed")
@pytest.mark.parametrize("kind", list(T))
def test_torch_computes_the_gradient(kind):
    inputs = modes.Inputs.draw(SHAPE, "float32", layers=2)
    n = BUILT_IN.get(kind, neuron_for(kind, SHAPE[-1]))
    for mode, layers in ((modes.DX_DBIAS, 1), (modes.CHAIN, 2)):
        program = torch_peers.programs(mode, n, inputs)[peers.TORCH]
        assert_close(program.call(program.fresh()).numpy(), gradient_of_layers(n, inputs, layers), factor=8)


def chain_of(name, kind, dtype="float32"):
    inputs = modes.Inputs.draw((256, 64), dtype)
    chain = modes.chain(peers.activations(kind, "cpu")[name], neuron_for(kind, 64))
    return chain, (jnp.asarray(True), *inputs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [T.NONE, T.LINEAR, T.RELU, T.GELU])
@pytest.mark.parametrize("name", [peers.CUSTOM_CALL, peers.INLINE, peers.XLA])
def test_layers_of_a_chain_stay_apart(name, kind, dtype):
    if name == peers.CUSTOM_CALL and native.unavailable_reason():
        pytest.skip(f"no custom call: {native.unavailable_reason()}")
    chain, arguments = chain_of(name, kind, dtype)
    if not hasattr(chain, "lower"):
        pytest.skip("in this version of JAX each layer is a program of its own")
    compiled = chain.lower(*arguments).compile()
    text = compiled.as_text()
    assert len(re.findall(r" conditional\(", text)) == len(arguments[2])
    if name != peers.CUSTOM_CALL:
        # Each sum is a loop over its own layer's gradient: the branches are computations of their own.
        assert len(re.findall(r" reduce\(", text)) >= len(arguments[2])
        return
    assert len(re.findall(r"custom_call_target=\"jax_mps_neuron.neuron_gradient\"", text)) == 8
    shape = r"(f32|bf16)\[256,64\]\S* copy\("
    taken = [body for body in text.split("\n\n") if "neuron_gradient" in body]
    assert len(taken) == 8
    assert not any(re.search(shape, body) for body in taken)
    assert compiled.memory_analysis().temp_size_in_bytes < arguments[1].nbytes


def test_the_branches_of_a_chain_are_what_keeps_it_apart():
    """Else the test above could not fail: without them eight layers of no activation are one sum."""
    inputs = modes.Inputs.draw((256, 64), "float32")
    activation = peers.activations(T.NONE, "cpu")[peers.XLA]

    def merged(g, xs, bias):
        sums = []
        for x in xs:
            g, total = jax.vjp(lambda x, b: activation(x, Neuron.none(), b), x, bias)[1](g)
            sums.append(total)
        return g, sums

    text = jax.jit(merged).lower(*inputs).compile().as_text()
    assert len(re.findall(r" reduce\(", text)) < 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", [modes.FORWARD, modes.DX, modes.CHAIN])
def test_floors_multiply(mode, dtype):
    inputs = modes.Inputs.draw((1024, 1024), dtype, layers=2)  # large enough for several threads
    programs = floors(mode, inputs)
    assert all(map(is_floor, programs))
    program = programs["x * g, XLA"]
    state = program.call(program.fresh())
    factors = inputs.xs if mode == modes.CHAIN else inputs.xs[:1]
    expected = np.asarray(inputs.g if mode != modes.FORWARD else inputs.xs[0], np.float64)
    for x in factors:
        expected = expected * np.asarray(x, np.float64)
    assert_close(state, expected, factor=4)


def test_peers_take_turns():
    order = []
    programs = {
        name: Program(lambda: 0, lambda state, name=name: order.append(name) or state + 1, lambda _: None)
        for name in "abc"
    }
    times = interleaved(programs, repeats=3, calls=1)
    assert set(times) == set("abc")
    runs = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    # Compiling and estimating, each by itself; then three turns, each from the next peer on.
    assert "".join(runs) == "abc" + "abc" + "bca" + "cab"


def test_step_descends():
    n = Neuron.gelu()
    for activation in peers.activations(T.GELU, "cpu").values():
        program, peak = training.program(activation, n, (64, 32), "float32")
        state = program.fresh()
        losses = []
        for _ in range(3):
            state = program.call(state)
            losses.append(float(state[1]))
        assert losses[0] > losses[1] > losses[2]
        assert peak > 64 * 32 * 4
