"""The two primitives.

``neuron_p``:          x, scalars, [bias], [slope] -> y
``neuron_gradient_p``: gradient, x, scalars, [bias], [slope] -> data, [bias gradient], [slope gradient]

===============  ====================  ==========================================================
gradient, x      [1|M, *rows, C]       of one dtype: float32, float16, bfloat16 or float64
scalars          [1|M, 4]              alpha, a, b, c, in the compute type: float32, or float64 for it
bias, slope      [1|M, C]              in the compute type; slope exactly for PReLU
y, data          [M, *rows, C]         in x's dtype
sums             [M, C]                in the compute type
===============  ====================  ==========================================================

M is a batch of matrices, as in an MPSMatrix: vmap puts its axis there, so a mapped call is still one
call. An operand shared by all matrices keeps a leading 1. The rows keep their rank, since flattening
them here would gather a sharded axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.interpreters import partial_eval as pe

from . import lowering, reference
from .descriptor import NeuronType
from .operands import compute_dtype

__all__ = ["neuron", "neuron_gradient", "neuron_gradient_p", "neuron_p"]

neuron_p = Primitive("neuron")
neuron_p.multiple_results = True
neuron_gradient_p = Primitive("neuron_gradient")
neuron_gradient_p.multiple_results = True


def neuron(
    x: Array,
    scalars: Array,
    bias: Array | None,
    slope: Array | None,
    *,
    kind: NeuronType,
    lowering: str,
) -> Array:
    """Binds `neuron_p`; bias and slope are None where absent."""
    (y,) = neuron_p.bind(x, scalars, *_present(bias, slope), kind=kind, lowering=lowering)
    return y


def neuron_gradient(
    gradient: Array,
    x: Array,
    scalars: Array,
    bias: Array | None,
    slope: Array | None,
    *,
    kind: NeuronType,
    bias_gradient: bool,
    slope_gradient: bool,
    lowering: str,
) -> tuple[Array, ...]:
    """Binds `neuron_gradient_p`; bias and slope are None where absent."""
    return tuple(
        neuron_gradient_p.bind(
            gradient,
            x,
            scalars,
            *_present(bias, slope),
            kind=kind,
            bias_gradient=bias_gradient,
            slope_gradient=slope_gradient,
            lowering=lowering,
        )
    )


def _present(*operands: Array | None) -> list[Array]:
    return [operand for operand in operands if operand is not None]


def _vectors(kind: NeuronType, operands: Sequence[Any]) -> tuple[Any, Any]:
    """(bias, slope) from the operands after the scalars."""
    operands = list(operands)
    slope = operands.pop() if kind is NeuronType.PRELU else None
    return (operands[0] if operands else None), slope


def _forward(x: Array, scalars: Array, *vectors: Array, kind: NeuronType, **_: Any) -> list[Array]:
    """`neuron_p` in jnp, on a primitive's operands."""
    y = reference.forward(x, scalars, *_vectors(kind, vectors), kind=kind)
    return [jnp.broadcast_to(y, (_matrices((x, scalars, *vectors)), *x.shape[1:]))]


def _backward(
    gradient: Array,
    x: Array,
    scalars: Array,
    *vectors: Array,
    kind: NeuronType,
    bias_gradient: bool,
    slope_gradient: bool,
    **_: Any,
) -> list[Array]:
    """`neuron_gradient_p` in jnp, on a primitive's operands."""
    results = reference.backward(
        gradient,
        x,
        scalars,
        *_vectors(kind, vectors),
        kind=kind,
        bias_gradient=bias_gradient,
        slope_gradient=slope_gradient,
    )
    matrices = _matrices((gradient, x, scalars, *vectors))
    return [jnp.broadcast_to(r, (matrices, *r.shape[1:])) for r in results]


# Abstract evaluation


def _matrices(operands: Sequence[Any]) -> Any:
    """M: what the leading axes of 1 or M broadcast to."""
    return jnp.broadcast_shapes(*(operand.shape[:1] for operand in operands))[0]


@neuron_p.def_abstract_eval
def _neuron_aval(x, scalars, *vectors, **_):
    return [ShapedArray((_matrices((x, scalars, *vectors)), *x.shape[1:]), x.dtype)]


@neuron_gradient_p.def_abstract_eval
def _neuron_gradient_aval(gradient, x, scalars, *vectors, bias_gradient, slope_gradient, **_):
    matrices = _matrices((gradient, x, scalars, *vectors))
    sums = ShapedArray((matrices, x.shape[-1]), compute_dtype(x))
    data = ShapedArray((matrices, *x.shape[1:]), x.dtype)
    return [data] + [sums] * (bias_gradient + slope_gradient)


# Evaluation outside of jit


@lru_cache(maxsize=None)
def _compiled(primitive: Primitive, **parameters: Any) -> Any:
    return jax.jit(partial(primitive.bind, **parameters))


for _primitive in (neuron_p, neuron_gradient_p):
    _primitive.def_impl(partial(lambda p, *args, **kw: _compiled(p, **kw)(*args), _primitive))


# Lowering

lowering.register(neuron_p, lowering.NEURON, _forward)
lowering.register(neuron_gradient_p, lowering.NEURON_GRADIENT, _backward)


# Differentiation: the kernels give the values, the reference the tangents.


def _jvp(primitive, function, primals, tangents, **parameters):
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def of_moving(*values):
        operands = list(primals)
        for i, value in zip(moving, values, strict=True):
            operands[i] = value
        return function(*operands, **parameters)

    _, out = jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])
    return primitive.bind(*primals, **parameters), out


ad.primitive_jvps[neuron_p] = partial(_jvp, neuron_p, _forward)
ad.primitive_jvps[neuron_gradient_p] = partial(_jvp, neuron_gradient_p, _backward)


# Batching: the mapped axis joins the matrices.


def _batch(primitive, operands, axes, **parameters):
    size = next(o.shape[d] for o, d in zip(operands, axes, strict=True) if d is not None)
    moved = [o if d is None else jnp.moveaxis(o, d, 0) for o, d in zip(operands, axes, strict=True)]
    # How many matrices an operand has in each batch element: 1 or the old M.
    counts = [o.shape[d is not None] for o, d in zip(moved, axes, strict=True)]
    old = jnp.broadcast_shapes(*((count,) for count in counts))[0]

    def merge(operand, axis, count):
        if axis is None:
            if count == 1:
                return operand  # shared by every matrix
            operand = operand[None]
        rest = operand.shape[2:]
        return jnp.broadcast_to(operand, (size, old, *rest)).reshape(size * old, *rest)

    merged = [merge(*triple) for triple in zip(moved, axes, counts, strict=True)]
    results = primitive.bind(*merged, **parameters)
    return [r.reshape(size, old, *r.shape[1:]) for r in results], [0] * len(results)


batching.primitive_batchers[neuron_p] = partial(_batch, neuron_p)
batching.primitive_batchers[neuron_gradient_p] = partial(_batch, neuron_gradient_p)


# Dead code: a sum that nobody reads is not computed.


def _dead_sums(used, *rest):
    # (used, equation), and since JAX 0.12 (used, live inputs, equation).
    equation = rest[-1]
    if not any(used):
        return [False] * len(equation.invars), None
    parameters = dict(equation.params)
    kept = [True]
    read = iter(used[1:])
    for sum_ in ("bias_gradient", "slope_gradient"):
        if parameters[sum_]:
            parameters[sum_] = next(read)
            kept.append(parameters[sum_])
    outputs = [v for v, keep in zip(equation.outvars, kept, strict=True) if keep]
    return [True] * len(equation.invars), equation.replace(outvars=outputs, params=parameters)


pe.dce_rules[neuron_gradient_p] = _dead_sums
