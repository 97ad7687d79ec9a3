"""Prints versions, the route that each platform takes and why, and runs a self-test."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from .. import reference
from .._compat.plugins import has_plugin
from .._core.descriptor import NeuronType
from .._lowering import native
from .._lowering.routes import resolve, route
from .._metal import device as metal_device
from .._metal.bindings import MetalError
from .._ops.activation import neuron, neuron_gradient
from .._plugins.known import PLUGINS
from .._plugins.targets import describe
from . import compare
from .bench import neuron_for

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    print(f"python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {_version(name)}" for name in ("jax-mps-neuron", "jax", "jaxlib", "numpy")))
    print(f"\nnative library: {native.unavailable_reason() or _library()}")
    print(f"default lowering: {resolve(None)}\n")
    print("platform   route         why")
    backend, broken = _backend()
    plugins = [name for name in PLUGINS if has_plugin(name)]
    for name in dict.fromkeys(filter(None, (backend, "cpu", "METAL", *plugins, "cuda", "tpu"))):
        taken, why = route(name, resolve(None))
        print(f"{name:<10} {taken:<13} {why}{' (the default backend here)' if name == backend else ''}")
    for name in plugins:
        print(f"\n{name} plugin: {describe(name)}")
    without = metal_device.unavailable_reason()
    print(f"\nMetal: {without or metal_device.default_device().name}")
    if not without:
        print("\nour kernels beside Apple's own, largest difference:")
        print(_comparison())
    if broken:
        print(f"\nJAX has no backend to test on: {broken}")
        return 1
    print("\nself-test, against the jnp reference on the default backend:")
    try:
        wrong = [line for kind in NeuronType if (line := _self_test(kind))]
    except (RuntimeError, ValueError) as error:
        print(f"  {error}")
        return 1
    print("\n".join(wrong) if wrong else f"  {len(NeuronType)} neuron types agree")
    return 1 if wrong else 0


def _backend() -> tuple[str, str]:
    """The default backend, or what keeps JAX from having one."""
    try:
        return jax.default_backend(), ""
    except (RuntimeError, AssertionError) as error:
        return "", str(error) or "it could not start any that JAX_PLATFORMS names"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _library() -> str:
    return f"{native.isa()} kernels; this CPU has {', '.join(native.isas())}"


def _comparison() -> str:
    try:
        return compare.report(metal_device.default_device())
    except MetalError as error:
        return f"  none: {error}"


def _self_test(kind: NeuronType) -> str:
    """What is wrong with a type on this backend; empty if nothing is."""
    channels = 37
    x, gradient = np.random.default_rng(0).standard_normal((2, 61, channels), np.float32)
    bias = np.linspace(-1, 1, channels, dtype=np.float32)
    n = neuron_for(kind, channels)
    ours = neuron(x, n, bias), neuron_gradient(gradient, x, n, bias)
    theirs = reference.neuron(x, n, bias), reference.neuron_gradient(gradient, x, n, bias)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        error = float(jnp.max(jnp.abs(a - b) / (1 + jnp.abs(b))))
        if not error < 1e-5:
            return f"  {kind.name.lower()}: differs by {error:.1e}"
    return ""
