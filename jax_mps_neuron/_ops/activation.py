"""`neuron`, the differentiable activation, and `neuron_gradient`, its gradient as a function.

Every call goes through one jitted function per static configuration, as `jax.nn`'s own functions do. An
eager call is then one dispatch. Where the caller traces, the function is inlined; the jaxpr of JAX 0.12
still shows it.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from .._compat.avals import resharded_like, vary_together
from .._core.arguments import (
    Arguments,
    as_operand,
    gather,
    operands_of,
    prepare,
    prepare_gradient,
    signature_of,
    used_scalars,
)
from .._core.descriptor import FROM_Y, Neuron, NeuronType
from .._core.evaluation import evaluate
from .._core.results import NeuronGradient, as_neuron_gradient
from .._core.signature import Signature, compute_dtype
from .._lowering.routes import resolve
from .dispatch import dispatch
from .primitives import bind

__all__ = ["neuron", "neuron_gradient"]


def neuron(
    x: ArrayLike,
    neuron: Neuron,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 1.0,
    lowering: str | None = None,
    residual: str = "x",
) -> Array:
    r"""The activation :math:`y = f(\alpha x + \mathrm{bias})`.

    Its gradient is Apple's (MPSMatrixNeuronGradient): one custom call for x, bias and slopes together,
    where a kernel can run. Gradients of alpha, a, b and c, which Apple's kernel does not have, are computed
    only on demand. float16 and bfloat16 inputs are computed in float32.

    Args:
      x: shape [..., channels], of any rank and size; float32, float16, bfloat16 or float64.
      neuron: the type f and its parameters. PReLU's slopes have shape [channels], or [] or [1] for one
        slope shared by all channels. Every other parameter is a scalar.
      bias: shape [channels], of any of these dtypes; None for no bias. Without a bias, x may be a scalar.
      alpha: a real scalar.
      lowering: "auto", "custom_call", "inline" or "metal"; None for the default. `set_default_lowering`
        describes them.
      residual: the array kept for the backward pass. "x" is exact over the whole range. "y" is
        supported by NONE, LINEAR, SIGMOID, TANH and EXPONENTIAL. The next layer keeps y anyway, so a
        training step needs one array less. f' is then as precise as y: within 6e-7 of its largest value for
        SIGMOID and TANH in float32, and 0 where y was rounded to a bound of f. Gradients of alpha, a, b or
        c need x, and keep it.

    Returns:
      y, of x's shape and dtype.

    Raises:
      TypeError: x, bias or slopes do not have a floating dtype, a parameter is not real, or neuron is not a
        `Neuron`.
      ValueError: bias or slopes do not match the channels, PReLU has no slopes, x is a scalar with a bias,
        a parameter is not a scalar, the lowering is unknown, or the neuron type does not support the
        residual.

    Example:
      >>> neuron(jnp.array([-1.0, 0.0, 2.0]), Neuron.relu(0.1))
      Array([-0.1,  0. ,  2. ], dtype=float32)
    """
    given = gather(x, neuron, bias, alpha)
    neuron_type = neuron.type
    static = _Static(neuron_type, resolve(lowering), _keeps_y(residual, neuron_type))
    y: Array = dispatch(_jitted(static), given)
    return y


def neuron_gradient(
    gradient: ArrayLike,
    x: ArrayLike,
    neuron: Neuron,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 1.0,
    lowering: str | None = None,
) -> NeuronGradient:
    r"""The gradient of a neuron, as MPSMatrixNeuronGradient computes it.

    With :math:`z = \alpha x + \mathrm{bias}`, data is :math:`\alpha f'(z) g`, and the bias gradient is the
    sum of :math:`f'(z) g` over the rows. PReLU's slope gradient is the sum of :math:`g z` over the rows
    where :math:`z < 0`.

    Args:
      gradient: the incoming gradient g, with respect to y; x's shape.
      x: as in `neuron`, like the other arguments.
      neuron: the type f and its parameters.
      bias: shape [channels], or None.
      alpha: a real scalar.
      lowering: None for the default.

    Returns:
      data in x's shape and dtype; the bias gradient [channels] in the bias's dtype, None without a bias;
      the slope gradient in the slopes' shape and dtype, None unless the type is PRELU.

    Raises:
      TypeError: as `neuron`.
      ValueError: as `neuron`, and if gradient and x differ in shape.

    Example:
      >>> neuron_gradient(jnp.ones(3), jnp.array([-1.0, 0.0, 2.0]), Neuron.relu(0.1)).data
      Array([0.1, 1. , 1. ], dtype=float32)
    """
    gradient = as_operand("gradient", gradient)
    given = gather(x, neuron, bias, alpha, gradient)
    jitted = _jitted_gradient(neuron.type, resolve(lowering))
    results: NeuronGradient = dispatch(jitted, given, gradient)
    return results


_KEEP_Y = (NeuronType.NONE, NeuronType.LINEAR, *FROM_Y)


def _keeps_y(residual: Any, neuron_type: NeuronType) -> bool:
    if residual == "x":
        return False
    if residual != "y":
        raise ValueError(f"residual must be 'x' or 'y', got {residual!r}")
    if neuron_type not in _KEEP_Y:
        types = ", ".join(t.name for t in _KEEP_Y)
        raise ValueError(
            f"this neuron type does not support residual 'y': {neuron_type.name}. "
            f"Use 'x', which every type supports; 'y' works with {types}."
        )
    return True


class _Static(NamedTuple):
    """The static configuration of `neuron`."""

    neuron_type: NeuronType
    lowering: str
    keeps_y: bool


@cache
def _jitted(static: _Static) -> Any:
    def neuron(given: Arguments) -> Array:
        arguments = prepare(static.neuron_type, given)
        y = _neuron(static, *vary_together(arguments))
        return y.reshape(jnp.shape(given.x)) if y.ndim != jnp.ndim(given.x) else y

    return jax.jit(neuron, inline=True)


@cache
def _jitted_gradient(neuron_type: NeuronType, lowering: str) -> Any:
    def neuron_gradient(given: Arguments, gradient: Any) -> NeuronGradient:
        g, arguments = prepare_gradient(neuron_type, gradient, given)
        signature = signature_of(neuron_type, arguments, forward=False)
        operands = operands_of(arguments, g.reshape(arguments.x.shape))
        results = bind(signature, operands, lowering=lowering)
        return as_neuron_gradient(results, given)

    return jax.jit(neuron_gradient, inline=True)


_Perturbed = tuple[bool, ...]  # which arguments are differentiated


def _as_residual(perturbed: _Perturbed) -> Array:
    """An array whose length encodes the flags, which take it from the forward to the backward pass.

    The flags must not be part of the residuals' tree. JAX traces the forward rule of an equation once per
    pattern of perturbed arguments, but unflattens the residuals of every pattern by the tree of the last
    trace. Shapes are part of each trace. Nothing reads the elements, so jit removes the array.
    """
    return jnp.zeros(1 + sum(flag << i for i, flag in enumerate(perturbed)), bool)


def _of_residual(flags: Array) -> _Perturbed:
    bits = flags.shape[0] - 1
    return tuple(bool(bits >> i & 1) for i in range(len(Arguments._fields)))


def _wanted(perturbed: _Perturbed) -> dict[str, bool]:
    return dict(zip(Arguments._fields, perturbed, strict=True))


def _wanted_scalars(static: _Static, perturbed: _Perturbed) -> list[str]:
    """The differentiated scalars, without those that the type does not use."""
    wanted = _wanted(perturbed)
    return [name for name in used_scalars(static.neuron_type) if wanted[name]]


def _reads_y(static: _Static, perturbed: _Perturbed) -> bool:
    """Whether the backward pass gets y in x's place."""
    return static.keeps_y and not _wanted_scalars(static, perturbed)


def _activate(static: _Static, o: Arguments) -> Array:
    signature = signature_of(static.neuron_type, o, forward=True)
    (y,) = bind(signature, operands_of(o), lowering=static.lowering)
    return y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _neuron(static: _Static, *arguments: Any) -> Array:
    return _activate(static, Arguments(*arguments))


def _neuron_fwd(static: _Static, *arguments: Any) -> tuple[Array, Any]:
    values = Arguments(*[None if o is None else o.value for o in arguments])
    perturbed = tuple(o is not None and o.perturbed for o in arguments)
    # Not _neuron: forward over reverse puts tangents on this call, which a custom_vjp function refuses.
    y = _activate(static, values)
    return y, (values._replace(x=y) if _reads_y(static, perturbed) else values, _as_residual(perturbed))


def _neuron_bwd(static: _Static, residuals: Any, gradient: Array) -> tuple[Array | None, ...]:
    o, flags = residuals
    perturbed = _of_residual(flags)
    wanted = _wanted(perturbed)
    cotangents: dict[str, Array | None] = dict.fromkeys(Arguments._fields)
    if isinstance(gradient, SymbolicZero):
        return tuple(cotangents.values())
    if wanted["x"] or wanted["bias"] or wanted["slope"]:
        signature = Signature(
            static.neuron_type,
            bias=o.bias is not None,
            bias_gradient=wanted["bias"],
            slope_gradient=wanted["slope"],
            from_y=_reads_y(static, perturbed) and static.neuron_type in FROM_Y,
        )
        results = bind(signature, operands_of(o, gradient), lowering=static.lowering)
        made = dict(zip(signature.result_names, results, strict=True))
        cotangents["x"] = made["data"]
        cotangents["bias"] = made.get("bias_gradient")
        cotangents["slope"] = made.get("slope_gradient")
    if scalars := _wanted_scalars(static, perturbed):
        cotangents.update(_scalar_cotangents(static.neuron_type, o, scalars, gradient))
    return tuple(
        None if cotangent is None else resharded_like(cotangent, getattr(o, name))
        for name, cotangent in cotangents.items()
    )


_neuron.defvjp(_neuron_fwd, _neuron_bwd, symbolic_zeros=True)


def _scalar_cotangents(
    neuron_type: NeuronType, o: Arguments, names: list[str], gradient: Array
) -> dict[str, Array]:
    """Cotangents of the named scalars, in the compute dtype."""
    dtype = compute_dtype(o.x)
    signature = signature_of(neuron_type, o, forward=True)

    def forward(*scalars: Array) -> Array:
        at = o._replace(x=o.x.astype(dtype), **dict(zip(names, scalars, strict=True)))
        return evaluate(signature, *signature.ordered(operands_of(at)))[0]

    _, vjp = jax.vjp(forward, *(getattr(o, name) for name in names))
    return dict(zip(names, vjp(gradient.astype(dtype)), strict=True))
