"""Strips of the CPU kernels in a program of their own: between guards, misaligned, for other processors.

On this machine's processor with all its instruction sets, on one that has SSE4.2 and nothing newer, and on
aarch64, by way of qemu. The accuracy sweeps of accuracy_test.py run on aarch64 here.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jax_mps_neuron import Neuron, NeuronType
from jax_mps_neuron._lowering import native
from support import apple, ulps, zoo
from support.arrays import DTYPES, assert_close
from support.bounds import DENSE, POINTS, WORSE, check_bounds, check_no_worse, fused_probe
from support.cpu_kernels import build

# Building the kernels once more takes as long as a fifth of all other tests.
pytestmark = pytest.mark.slow

TOOLCHAINS = {"host": build.HOST, "sse4": build.NEHALEM, "aarch64": build.AARCH64}


class Machine(NamedTuple):
    name: str
    kernels: dict[str, build.Kernels]  # by instruction set


@pytest.fixture(scope="session")
def machines(tmp_path_factory):
    """Builds for a machine by its name, once for all processes that share this test run."""
    ready: dict[str, Machine] = {}
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def machine(name: str) -> Machine:
        toolchain = TOOLCHAINS[name]
        if sys.platform != "linux" or (name == "sse4" and platform.machine() != "x86_64"):
            pytest.skip(f"{name} is run on Linux{' on x86-64' if name == 'sse4' else ''} alone")
        if problem := build.problem(toolchain):
            pytest.skip(problem)
        if name not in ready:
            folder = shared / f"kernels-{toolchain['compiler']}"
            with open(f"{folder}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (folder / "driver").exists():
                    build.build(folder, toolchain)
            sets = build.isas(folder, toolchain)
            ready[name] = Machine(name, {isa: build.Kernels(folder, toolchain, isa) for isa in sets})
        return ready[name]

    return machine


@pytest.fixture(params=TOOLCHAINS)
def machine(request, machines):
    return machines(request.param)


def test_instruction_sets(machine):
    found = list(machine.kernels)
    if machine.name == "host" and not native.unavailable_reason():
        assert found == native.isas()
    if machine.name == "sse4":
        assert found == ["baseline"]
    if machine.name == "aarch64":
        assert found == ["neon"]
    absent = build.Kernels.__new__(build.Kernels)
    absent.command = [*machine.kernels[found[0]].command[:-1], "sse9"]
    with pytest.raises(RuntimeError, match="this CPU has no such instruction set"):
        absent.run()
    if machine.name == "sse4":  # compiled in, and not for this processor
        absent.command[-1] = "avx2"
        with pytest.raises(RuntimeError, match="this CPU has no such instruction set"):
            absent.run()


# Rows, width, elements between rows that belong to nobody: shorter and longer than any vector, and odd.
SIZES = [
    (1, 1, 0),
    (3, 2, 1),
    (2, 7, 5),
    (5, 8, 0),
    (4, 15, 2),
    (9, 17, 0),
    (1, 63, 0),
    (6, 33, 31),
    (13, 129, 3),
]
# Where arrays lie: at the end of memory; at its begin; one, three and five elements later.
PLACES = [None, 0, 1, 3, 5]


@pytest.mark.parametrize("dtype", DTYPES)
def test_strips(machine, dtype):
    """Every type, size and place; with and without bias, sums, and the gradient's memory for the result."""
    random = np.random.default_rng(0)
    element = np.dtype(jnp.dtype(dtype))
    requests, expected = [], []
    for i, name in enumerate(zoo.NAMES):
        for j, (rows, width, gap) in enumerate(SIZES):
            neuron = zoo.neurons(width)[name]
            x, gradient = (random.standard_normal((2, rows, width)) * 2).astype(element)
            prelu = neuron.type is NeuronType.PRELU
            mode = (i + j) % 4  # forward; data gradient; with a bias; with sums
            with_bias = mode >= 2 or (mode == 0 and j % 2)
            bias = random.standard_normal(width).astype(np.float32) if with_bias else None
            slope = np.asarray(neuron.a, np.float32) if prelu else None
            place = PLACES[(2 * i + j) % len(PLACES)]
            # Sums and biases of 16-bit types are float32, and keep their own alignment.
            where = {"at_end": True} if place is None else {"offset": place * max(element.itemsize, 4)}
            request = build.Request(
                neuron,
                x,
                gradient if mode else None,
                bias,
                slope,
                alpha=1.25,
                sums=0.5 if mode == 3 else None,
                stride=width + gap,
                in_place=mode > 0 and j % 2 == 0,
                **where,
            )
            requests.append(request)
            gradients = apple.neuron_gradient(gradient, x, neuron, bias, 1.25)
            y = apple.neuron(x, neuron, bias, 1.25)
            sums = [gradients.bias, gradients.a] if prelu else [gradients.bias]
            expected.append([y if mode == 0 else gradients.data, *(0.5 + s for s in sums if mode == 3)])
    for kernels in machine.kernels.values():
        for request, result, wanted in zip(
            requests, build.answers(kernels, requests), expected, strict=True
        ):
            assert len(result) == len(wanted), request
            for actual, exact in zip(result, wanted, strict=True):
                assert_close(actual, exact, factor=4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strips_of_values(machine, dtype):
    """The types whose f' is computed of y."""
    random = np.random.default_rng(0)
    requests, expected = [], []
    neurons = zoo.neurons()
    for name in ("sigmoid", "tanh", "exponential", "exponential_base"):
        for j, (rows, width, gap) in enumerate(SIZES):
            x, gradient = random.standard_normal((2, rows, width)).astype(jnp.dtype(dtype))
            y = apple.neuron(x, neurons[name], None, 1.25).astype(x.dtype)
            with_sums = j % 2 == 0
            bias = np.full(width, 7.0, np.float32) if with_sums or j % 3 == 0 else None  # unused
            options = {"sums": 0.5 if with_sums else None, "in_place": j % 3 == 0, "stride": width + gap}
            requests.append(
                build.Request(neurons[name], y, gradient, bias, alpha=1.25, from_y=True, **options)
            )
            of = apple.neuron_gradient_of_value(gradient, y, neurons[name], 1.25)
            expected.append([of.data, *([0.5 + of.bias] if with_sums else [])])
    for kernels in machine.kernels.values():
        for result, wanted in zip(build.answers(kernels, requests), expected, strict=True):
            for actual, exact in zip(result, wanted, strict=True):
                assert_close(actual, exact, factor=4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers(machine, dtype):
    """Read and written as they are, x, gradient and result."""
    smallest = {"float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133, "float64": 2.0**-1074}[
        dtype
    ]
    x = (np.arange(-60, 60) * 2.0 * smallest).astype(jnp.dtype(dtype)).reshape(3, 40)
    half, ones = Neuron.linear(0.5, 0.0), np.ones_like(x)
    requests = [
        build.Request(Neuron.none(), x),
        build.Request(half, x),
        build.Request(half, ones, x),
        build.Request(Neuron.relu(0.5), -np.abs(x) - x.dtype.type(2 * smallest), x),
    ]
    for kernels in machine.kernels.values():
        results = [result[0].astype(np.float64) for result in build.answers(kernels, requests)]
        np.testing.assert_array_equal(results[0], x.astype(np.float64))
        for result in results[1:]:
            np.testing.assert_array_equal(result, 0.5 * x.astype(np.float64))
        assert np.count_nonzero(results[1]) == x.size - 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [2.75, -1.5, 5.0, 40.5])
def test_powers_do_not_depend_on_their_neighbours(machine, dtype, exponent):
    """Regular numbers and special ones, computed in different ways, mixed and apart; blocks and ends."""
    neuron = Neuron.power(1.0, 0.0, exponent)
    random = np.random.default_rng(0)
    x = np.exp(random.standard_normal((1, 613)) * 3).astype(jnp.dtype(dtype))
    special = np.array([0.0, -0.0, 1e-40, -1.5, np.inf, -np.inf, np.nan, -2.0, 1.0], x.dtype)
    mixed = x.copy()
    where = np.arange(5, 613, 13)[: 4 * len(special)]
    mixed[0, where] = np.tile(special, 4)
    alone = np.where(np.isin(np.arange(613), where), mixed, x.dtype.type(-1.0))
    ones = np.ones_like(x)
    for gradient in (None, ones):
        requests = [build.Request(neuron, v, gradient) for v in (x, mixed, alone)]
        requests += [
            build.Request(neuron, x[:, i : i + 1], None if gradient is None else ones[:, :1])
            for i in range(3)
        ]
        for kernels in machine.kernels.values():
            answers = [result[0].astype(np.float64) for result in build.answers(kernels, requests)]
            of_x, of_mixed, of_alone, *single = answers
            regular = np.ones(613, bool)
            regular[where] = False
            np.testing.assert_array_equal(of_mixed[0, regular], of_x[0, regular])
            np.testing.assert_array_equal(of_mixed[0, where], of_alone[0, where])
            np.testing.assert_array_equal(np.concatenate(single, 1), of_x[:, :3])
            with np.errstate(all="ignore"):
                exact = np.float64(special) ** (exponent if gradient is None else exponent - 1)
                exact = exact if gradient is None else exponent * exact
                expected = exact.astype(x.dtype).astype(np.float64)
            np.testing.assert_allclose(of_mixed[0, where[:9]], expected, 0.02)


@pytest.mark.parametrize("function", ["f", "f'"])
@pytest.mark.parametrize("dtype", ulps.DTYPES)
@pytest.mark.parametrize("name", ulps.NEURONS)
def test_errors_on_aarch64(machines, name, dtype, function):
    neuron, derivative = ulps.NEURONS[name], function == "f'"
    x = ulps.sweep(neuron, dtype, POINTS)
    true = ulps.truth(neuron, x, dtype, derivative=derivative)
    probe = fused_probe()
    for kernels in machines("aarch64").kernels.values():
        figures = ulps.figures(build.values(kernels, neuron, x, derivative=derivative), x, true, dtype)
        fused = bool(np.any(build.values(kernels, *probe, derivative=False) != 0))
        check_bounds(name, dtype, function, figures, inline=False, fused=fused)
        if DENSE and fused and (dtype != "float32" or (name, function) not in WORSE):
            plain = ulps.measure(neuron, dtype, ["plain"], POINTS, derivative=derivative)["plain"]
            check_no_worse(figures, plain)


def test_the_driver_finds_what_is_written_beside(machines, tmp_path):
    """The guards themselves: a kernel that writes one element more than it should."""
    folder = tmp_path / "driver"
    folder.mkdir()
    broken = folder / "broken.cc"
    broken.write_text(BROKEN)
    if problem := build.problem(build.HOST):
        pytest.skip(problem)
    command = ["c++", "-std=c++17", f"-I{build.ROOT}", str(build.HERE / "driver.cc"), str(broken)]
    subprocess.run([*command, "-o", str(folder / "driver")], check=True)
    kernels = build.Kernels(folder, build.HOST, "broken")
    x = np.ones((2, 5), np.float32)
    for kind, message in (
        (NeuronType.NONE, "beside the result"),
        (NeuronType.RELU, "into an operand"),
        (NeuronType.LINEAR, "ended with -11"),
    ):
        with pytest.raises((AssertionError, RuntimeError), match=message):
            build.answers(kernels, [build.Request(Neuron(kind), x, stride=6, at_end=True)])


BROKEN = """
#include <cstring>
#include "kernels/cpu/isa.h"
using namespace jax_mps_neuron;
static void past_the_end_of_a_row(const Strip& s) { static_cast<float*>(s.result)[s.width] = 1; }
static void into_x(const Strip& s) { static_cast<float*>(const_cast<void*>(s.x))[0] = 3; }
static void past_the_end(const Strip& s) { static_cast<float*>(s.result)[s.stride + s.width] = 1; }
static const Kernels broken[] = {
  {past_the_end_of_a_row, nullptr}, {into_x, nullptr}, {past_the_end, nullptr}};
const Kernels& jax_mps_neuron::kernels(Storage, int type) { return broken[type]; }
const char* jmn_isa(int i) { return i ? nullptr : "broken"; }
int jmn_use_isa(const char* name) { return std::strcmp(name, "broken"); }
"""
