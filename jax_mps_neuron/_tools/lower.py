"""Prints the StableHLO of a neuron's backward pass, for any platform, installed or not.

For a Metal platform, the Metal source of the kernel follows.
"""

from __future__ import annotations

import argparse
import sys

import jax
import jax.extend.backend
import jax.numpy as jnp

from .. import metal
from .._core.descriptor import Neuron, NeuronType
from .._lowering.routes import LOWERINGS, route
from .._ops.activation import neuron
from .._plugins.known import PLUGINS, is_metal
from .bench import neuron_for, shape_argument, type_argument

__all__ = ["add_arguments", "lowered_text", "run"]

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu", *PLUGINS)


def lowered_text(
    neuron_type: NeuronType, platform: str, shape: tuple[int, ...], dtype: str, bias: bool, lowering: str
) -> str:
    """The StableHLO of one layer's backward pass, (gradient, x, bias, slopes) -> their cotangents.

    Args:
      neuron_type: the type, with the parameters of the benchmark.
      platform: the platform to lower for.
      shape: the shape of x.
      dtype: the dtype of x, bias and the gradient.
      bias: whether the layer has a bias.
      lowering: one of `LOWERINGS`.
    """
    n = neuron_for(neuron_type, shape[-1])
    learned = neuron_type is NeuronType.PRELU

    def backward(gradient, x, bias, slopes):
        def forward(x, bias, slopes):
            layer = Neuron.prelu(slopes) if learned else n
            return neuron(x, layer, bias, lowering=lowering)

        return jax.vjp(forward, x, bias, slopes)[1](gradient)

    array = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    vector = jax.ShapeDtypeStruct(shape[-1:], jnp.dtype(dtype)) if bias else None
    # On the CPU device: a default device of the named platform would refuse a program that it cannot run.
    device = jax.devices("cpu")[0] if "cpu" in jax.extend.backend.backends() else None
    with jax.default_device(device):
        slopes = jnp.asarray(n.a) if learned else None
        traced = jax.jit(backward).trace(array, array, vector, slopes)
        return traced.lower(lowering_platforms=(platform,)).as_text()


def _platform_argument(text: str) -> str:
    known = tuple(dict.fromkeys((*_PLATFORMS, *jax.extend.backend.backends())))
    if text not in known:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(known)}, got {text!r}")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser."""
    parser.add_argument(
        "--platform",
        type=_platform_argument,
        default="cpu",
        help=f"one of {', '.join(_PLATFORMS)}, or the platform of an installed plugin (default: cpu)",
    )
    parser.add_argument(
        "--neuron",
        type=type_argument,
        default=NeuronType.GELU,
        metavar="TYPE",
        help="the neuron type, with the parameters of the benchmark (default: gelu)",
    )
    parser.add_argument(
        "--shape",
        type=shape_argument,
        default=(128, 64),
        metavar="ROWSxCHANNELS",
        help="the shape of x (default: 128x64)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="the dtype of x (default: %(default)s)",
    )
    parser.add_argument("--no-bias", action="store_true", help="leave out the bias and its gradient")
    parser.add_argument(
        "--lowering", choices=LOWERINGS, default="custom_call", help="the route (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the program. Returns the exit status."""
    neuron_type, platform, bias = arguments.neuron, arguments.platform, not arguments.no_bias
    try:
        text = lowered_text(
            neuron_type, platform, arguments.shape, arguments.dtype, bias, arguments.lowering
        )
    except (RuntimeError, ValueError) as error:  # such as "metal" without Metal or without callbacks
        print(error, file=sys.stderr)
        return 1
    taken, reason = route(platform)
    print(f"// {platform}, lowering={arguments.lowering}; auto is {taken} here: {reason}")
    sys.stdout.write(text)
    if is_metal(platform):
        learned = neuron_type is NeuronType.PRELU
        kernel = metal.Kernel(neuron_type, arguments.dtype, False, bias, bias, learned)
        print(f"\n// The Metal source of {kernel.name}")
        sys.stdout.write(metal.source(kernel))
    return 0
