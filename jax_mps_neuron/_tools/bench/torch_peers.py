"""The PyTorch peers."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._core.descriptor import Neuron, NeuronType
from .modes import CHAINS, DX, FORWARD, Inputs
from .peers import TORCH, TORCH_COMPILE
from .timing import Program, cores

__all__ = ["floor", "installed", "programs"]


def installed() -> bool:
    """Whether PyTorch is installed and supports JAX's platform."""
    if importlib.util.find_spec("torch") is None:
        return False
    platform = jax.default_backend()
    return platform == "cpu" or (platform == "gpu" and _torch().cuda.is_available())


@cache
def _torch() -> Any:
    import torch

    torch.set_num_threads(cores())
    return torch


def _formulas() -> dict[NeuronType, Callable[..., Any]]:
    """PyTorch's function of each neuron type, or its formula: z, a, b, c -> f(z)."""
    torch = _torch()
    f = torch.nn.functional
    return {
        NeuronType.NONE: lambda z, a, b, c: z,
        NeuronType.RELU: lambda z, a, b, c: f.leaky_relu(z, a),
        NeuronType.LINEAR: lambda z, a, b, c: a * z + b,
        NeuronType.SIGMOID: lambda z, a, b, c: torch.sigmoid(z),
        NeuronType.HARD_SIGMOID: lambda z, a, b, c: f.hardsigmoid(z),
        NeuronType.TANH: lambda z, a, b, c: torch.tanh(z),
        NeuronType.ABSOLUTE: lambda z, a, b, c: torch.abs(z),
        NeuronType.SOFTPLUS: lambda z, a, b, c: f.softplus(z),
        NeuronType.SOFTSIGN: lambda z, a, b, c: f.softsign(z),
        NeuronType.ELU: lambda z, a, b, c: f.elu(z),
        NeuronType.PRELU: lambda z, a, b, c: torch.where(z >= 0, z, a * z),
        NeuronType.RELUN: lambda z, a, b, c: f.hardtanh(z, 0.0, 6.0),
        NeuronType.POWER: lambda z, a, b, c: torch.pow(a * z + b, c),
        NeuronType.EXPONENTIAL: lambda z, a, b, c: torch.exp(a * z + b),
        NeuronType.LOGARITHM: lambda z, a, b, c: torch.log(a * z + b),
        NeuronType.GELU: lambda z, a, b, c: f.gelu(z),
    }


def _backward_kernels() -> dict[NeuronType, Callable[..., Any]]:
    """PyTorch's own backward kernels, which work in place: (g, z, y, a) -> g."""
    aten = _torch().ops.aten
    return {
        NeuronType.NONE: lambda g, z, y, a: g,
        NeuronType.RELU: lambda g, z, y, a: aten.leaky_relu_backward.grad_input(
            g, z, a, False, grad_input=g
        ),
        NeuronType.SIGMOID: lambda g, z, y, a: aten.sigmoid_backward.grad_input(g, y, grad_input=g),
        NeuronType.HARD_SIGMOID: lambda g, z, y, a: aten.hardsigmoid_backward.grad_input(
            g, z, grad_input=g
        ),
        NeuronType.TANH: lambda g, z, y, a: aten.tanh_backward.grad_input(g, y, grad_input=g),
        NeuronType.SOFTPLUS: lambda g, z, y, a: aten.softplus_backward.grad_input(
            g, z, 1.0, 20.0, grad_input=g
        ),
        NeuronType.ELU: lambda g, z, y, a: aten.elu_backward.grad_input(
            g, 1.0, 1.0, 1.0, False, z, grad_input=g
        ),
        NeuronType.RELUN: lambda g, z, y, a: aten.hardtanh_backward.grad_input(
            g, z, 0.0, 6.0, grad_input=g
        ),
        NeuronType.GELU: lambda g, z, y, a: aten.gelu_backward.grad_input(g, z, grad_input=g),
    }


def _tensor(x: Any) -> Any:
    """A JAX array as a tensor, which on the CPU shares its memory."""
    torch = _torch()
    values = np.asarray(x)
    name = str(values.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tensor is read-only, and is only read
        tensor = torch.from_numpy(values.view(np.int16) if values.dtype.itemsize == 2 else values)
    tensor = tensor.view(getattr(torch, name))
    return tensor if jax.default_backend() == "cpu" else tensor.cuda()


def _wait(_: Any) -> None:
    if jax.default_backend() != "cpu":
        _torch().cuda.synchronize()


def _in_place(g: Any, call: Callable[[Any], Any], layers: int) -> Program:
    buffer = g.clone()

    def fresh():
        return buffer.copy_(g)

    return Program(fresh, call, _wait, layers)


def floor(mode: str, inputs: Inputs, xs: tuple[Any, ...]) -> Program:
    """torch.mul into existing memory; see `floors`."""
    torch = _torch()
    g, sources = _tensor(inputs.g), [_tensor(x) for x in xs]

    def call(target):
        for x in sources:
            torch.mul(x, x if mode == FORWARD else target, out=target)
        return target

    return _in_place(g, call, len(xs))


def programs(mode: str, n: Neuron, inputs: Inputs) -> dict[str, Program]:
    """The programs of a mode, eager and compiled.

    The eager backward pass is PyTorch's own kernel in place, on the residuals of a forward pass, followed
    by a sum over the rows for the bias gradient. Types without a kernel use autograd.
    """
    torch = _torch()
    torch.compiler.reset()  # dynamo limits the recompilations of one function
    g, bias = _tensor(inputs.g), _tensor(inputs.bias)
    xs = [_tensor(x) for x in (inputs.xs if mode in CHAINS else inputs.xs[:1])]
    a, b, c = (None if p is None or np.ndim(p) else np.asarray(p).item() for p in (n.a, n.b, n.c))
    if n.type is NeuronType.PRELU:
        a = _tensor(jnp.asarray(n.a, inputs.g.dtype))
    formula = _formulas()[n.type]

    def activation(x, bias):
        return formula(x if bias is None else x + bias, a, b, c)

    if mode == FORWARD:
        compiled = torch.compile(activation, dynamic=False)
        with torch.no_grad():
            return {
                TORCH: Program(lambda: None, lambda _: activation(xs[0], bias), _wait),
                TORCH_COMPILE: Program(lambda: None, lambda _: compiled(xs[0], bias), _wait),
            }
    bias = None if mode == DX else bias
    eager = _eager(n.type, activation, a, xs, bias)
    compiled = torch.compile(_gradients(activation), dynamic=False)

    def call(g):
        for x in xs:
            compiled(g, x, bias)
        return g

    return {TORCH: _in_place(g, eager, len(xs)), TORCH_COMPILE: _in_place(g, call, len(xs))}


def _gradients(activation: Callable[..., Any]) -> Callable[..., Any]:
    """The backward pass in place, as a function for torch.compile."""
    vjp = _torch().func.vjp

    def gradients(g, x, bias):
        if bias is None:
            g.copy_(vjp(lambda x: activation(x, None), x)[1](g)[0])
            return None
        dx, total = vjp(activation, x, bias)[1](g)
        g.copy_(dx)
        return total

    return gradients


def _eager(
    neuron_type: NeuronType, activation: Callable[..., Any], a: Any, xs: list[Any], bias: Any
) -> Any:
    """The eager backward pass of all layers in place: g -> g."""
    torch = _torch()
    kernel = _backward_kernels().get(neuron_type)
    if kernel is None:
        leaves = [x.clone().requires_grad_() for x in xs]
        biases = [] if bias is None else [bias.clone().requires_grad_()]
        outputs = [activation(x, *(biases or [None])) for x in leaves]

        def autograd(g):
            for x, y in zip(leaves, outputs, strict=True):
                g = torch.autograd.grad(y, (x, *biases), g, retain_graph=True)[0]
            return g

        return autograd

    kept = [(x if bias is None else x + bias, activation(x, bias)) for x in xs]
    total = None if bias is None else torch.empty_like(bias)

    def kernels(g):
        for z, y in kept:
            kernel(g, z, y, a)
            if total is not None:
                torch.sum(g.reshape(-1, *total.shape), 0, out=total)
        return g

    return kernels
