"""Prints what the backward pass of a neuron lowers to, for a platform that need not be here.

For a Metal platform, the Metal source of its kernel follows.
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


def lowered_text(
    kind: NeuronType, platform: str, shape: tuple[int, ...], dtype: str, bias: bool, lowering: str
) -> str:
    """The StableHLO of one layer's backward pass: (gradient, x, bias) -> dx, dbias, PReLU's dslopes."""
    n = neuron_for(kind, shape[-1])
    learned = kind is NeuronType.PRELU

    def backward(gradient, x, bias, slopes):
        def forward(x, bias, slopes):
            layer = Neuron.prelu(slopes) if learned else n
            return neuron(x, layer, bias, lowering=lowering)

        return jax.vjp(forward, x, bias, slopes)[1](gradient)

    array = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    vector = jax.ShapeDtypeStruct(shape[-1:], jnp.dtype(dtype)) if bias else None
    # From the CPU for elsewhere: for its own device, a program that cannot run there is refused.
    device = jax.devices("cpu")[0] if "cpu" in jax.extend.backend.backends() else None
    with jax.default_device(device):
        slopes = jnp.asarray(n.a) if learned else None
        traced = jax.jit(backward).trace(array, array, vector, slopes)
        return traced.lower(lowering_platforms=(platform,)).as_text()


_PLATFORMS = ("cpu", "cuda", "rocm", "tpu", *PLUGINS)


def _platform_argument(text: str) -> str:
    known = tuple(dict.fromkeys((*_PLATFORMS, *jax.extend.backend.backends())))
    if text not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is no platform; it may be {', '.join(known)}")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--platform",
        type=_platform_argument,
        default="cpu",
        help=f"of {', '.join(_PLATFORMS)}, or a plugin's that is here (default: cpu)",
    )
    parser.add_argument(
        "--neuron",
        type=type_argument,
        default=NeuronType.GELU,
        metavar="TYPE",
        help="with the parameters of the benchmark (default: gelu)",
    )
    parser.add_argument("--shape", type=shape_argument, default=(128, 64), metavar="ROWSxCHANNELS")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--no-bias", action="store_true")
    parser.add_argument(
        "--lowering",
        choices=LOWERINGS,
        default="custom_call",
        help="which form to print (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        text = lowered_text(
            arguments.neuron,
            arguments.platform,
            arguments.shape,
            arguments.dtype,
            not arguments.no_bias,
            arguments.lowering,
        )
    except (RuntimeError, ValueError) as error:  # "metal" without Metal, or without callbacks
        print(error, file=sys.stderr)
        return 1
    taken, why = route(arguments.platform)
    print(f"// {arguments.platform}, lowering={arguments.lowering}; auto is {taken} here: {why}")
    sys.stdout.write(text)
    if is_metal(arguments.platform):
        kind, bias = arguments.neuron, not arguments.no_bias
        kernel = metal.Kernel(kind, arguments.dtype, False, bias, bias, kind is NeuronType.PRELU)
        print(f"\n// The Metal source of {kernel.name}")
        sys.stdout.write(metal.source(kernel))
    return 0
