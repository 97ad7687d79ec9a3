"""Prints versions, the route of each platform and the reason for it, and runs a self-test."""

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

_TOLERANCE = 1e-5  # absolute below 1, relative above


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser."""
    parser.add_argument(
        "--verbose", action="store_true", help="also print the full error of what is not available"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the report. Returns 1 if the self-test fails, else 0."""
    print(f"python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {_version(name)}" for name in ("jax-mps-neuron", "jax", "jaxlib", "numpy")))
    print(f"\nnative library: {native.unavailable_reason() or _library()}")
    print(f"default lowering: {resolve(None)}\n")
    backend, reason = _backend()
    _print_routes(backend)
    _print_metal(arguments.verbose)
    if reason:
        print(f"\nself-test: not run, because JAX has no backend: {reason}")
        return 1
    print("\nself-test on the default backend, against jax_mps_neuron.reference:")
    try:
        failures = [line for neuron_type in NeuronType if (line := _self_test(neuron_type))]
    except (RuntimeError, ValueError) as error:
        print(f"  {error}")
        return 1
    print("\n".join(failures) if failures else f"  {len(NeuronType)} neuron types agree")
    return 1 if failures else 0


def _print_routes(backend: str) -> None:
    print("platform   route         reason")
    plugins = [name for name in PLUGINS if has_plugin(name)]
    for name in dict.fromkeys(filter(None, (backend, "cpu", "METAL", *plugins, "cuda", "tpu"))):
        taken, reason = route(name, resolve(None))
        print(f"{name:<10} {taken:<13} {reason}{' (the default backend)' if name == backend else ''}")
    for name in plugins:
        print(f"\n{name} plugin: {describe(name)}")


def _print_metal(verbose: bool) -> None:
    reason = metal_device.unavailable_reason()
    if not reason:
        print(f"\nMetal: {metal_device.default_device().name}")
        print(f"\nour kernels against Apple's, largest difference:\n{_comparison()}")
        return
    if verbose:
        print(f"\nMetal: {reason.removeprefix('Metal is ')}")
    elif platform.system() != "Darwin":
        print("\nMetal: not available (needs macOS)")
    else:
        print("\nMetal: not available (doctor --verbose prints the error)")


def _backend() -> tuple[str, str]:
    """The default backend, and why JAX has none."""
    try:
        return jax.default_backend(), ""
    except (RuntimeError, AssertionError) as error:
        return "", str(error) or "no platform that JAX_PLATFORMS names could be initialized"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _library() -> str:
    return f"{native.isa()} kernels; this CPU supports {', '.join(native.isas())}"


def _comparison() -> str:
    try:
        return compare.report(metal_device.default_device())
    except MetalError as error:
        return f"  not available: {error}"


def _self_test(neuron_type: NeuronType) -> str:
    """The failure of a type on the default backend; empty if it agrees with the reference."""
    channels = 37
    x, gradient = np.random.default_rng(0).standard_normal((2, 61, channels), np.float32)
    bias = np.linspace(-1, 1, channels, dtype=np.float32)
    n = neuron_for(neuron_type, channels)
    ours = neuron(x, n, bias), neuron_gradient(gradient, x, n, bias)
    expected = reference.neuron(x, n, bias), reference.neuron_gradient(gradient, x, n, bias)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        error = float(jnp.max(jnp.abs(a - b) / (1 + jnp.abs(b))))
        if not error < _TOLERANCE:
            return f"  {neuron_type.name.lower()}: differs by {error:.1e}"
    return ""
