"""The two primitives.

``neuron_p``:          x, scalars, [bias], [slope] -> y
``neuron_gradient_p``: gradient, x, scalars, [bias], [slope] -> data, [bias gradient], [slope gradient]

===============  ====================  ==========================================================
gradient, x      [*M, *rows, C]        of one dtype: float32, float16, bfloat16 or float64; with from_y,
                                       y in place of x
scalars          [*M, 4]               alpha, a, b, c, in the compute type: float32, or float64 for it
bias, slope      [*M, C]               in the compute type; slope exactly for PReLU
y, data          [*M, *rows, C]        in x's dtype
sums             [*M, C]               in the compute type
===============  ====================  ==========================================================

The first `matrix_axes` axes, M, number matrices, as in an MPSMatrix. Each vmap adds one, so a mapped
call is still one call; an operand shared along one of them has size 1 there. Neither they nor the rows are
flattened: a reshape here would gather a sharded axis, and between two calls kept apart by an
optimization barrier XLA's CPU backend makes it a copy. x without channels ([*M]) is one element a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.interpreters import partial_eval as pe

from . import dimensions, lowering, reference
from ._compat import spec_of, typed
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
    operands = _present(x, scalars, bias, slope)
    (y,) = neuron_p.bind(*operands, kind=kind, lowering=lowering, matrix_axes=0)
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
    from_y: bool = False,
) -> tuple[Array, ...]:
    """Binds `neuron_gradient_p`; bias and slope are None where absent.

    from_y: x is y = f(alpha x + bias), of which f' is computed, for the types in `descriptor.FROM_Y`.
    """
    return tuple(
        neuron_gradient_p.bind(
            *_present(gradient, x, scalars, bias, slope),
            kind=kind,
            bias_gradient=bias_gradient,
            slope_gradient=slope_gradient,
            from_y=from_y,
            lowering=lowering,
            matrix_axes=0,
            in_place=True,
        )
    )


def _present(*operands: Array | None) -> list[Array]:
    return [operand for operand in operands if operand is not None]


def _vectors(kind: NeuronType, operands: Sequence[Any]) -> tuple[Any, Any]:
    """(bias, slope) from the operands after the scalars."""
    operands = list(operands)
    slope = operands.pop() if kind is NeuronType.PRELU else None
    return (operands[0] if operands else None), slope


def _forward(
    x: Array, scalars: Array, *vectors: Array, kind: NeuronType, matrix_axes: int, **_: Any
) -> list[Array]:
    """`neuron_p` in jnp, on the primitive's operands."""
    y = reference.forward(x, scalars, *_vectors(kind, vectors), kind=kind, matrix_axes=matrix_axes)
    matrices = _matrices((x, scalars, *vectors), matrix_axes)
    return [jnp.broadcast_to(y, (*matrices, *y.shape[matrix_axes:]))]


def _backward(
    gradient: Array,
    x: Array,
    scalars: Array,
    *vectors: Array,
    kind: NeuronType,
    bias_gradient: bool,
    slope_gradient: bool,
    from_y: bool = False,
    matrix_axes: int,
    for_gpu: bool = False,
    **_: Any,
) -> list[Array]:
    """`neuron_gradient_p` in jnp, on the primitive's operands; for_gpu as in `reference.backward`."""
    results = reference.backward(
        gradient,
        x,
        scalars,
        *_vectors(kind, vectors),
        kind=kind,
        bias_gradient=bias_gradient,
        slope_gradient=slope_gradient,
        from_y=from_y,
        matrix_axes=matrix_axes,
        for_gpu=for_gpu,
    )
    matrices = _matrices((gradient, x, scalars, *vectors), matrix_axes)
    return [jnp.broadcast_to(r, (*matrices, *r.shape[matrix_axes:])) for r in results]


# Abstract evaluation


def _matrices(operands: Sequence[Any], matrix_axes: int) -> tuple[Any, ...]:
    """M: what the leading axes of the operands broadcast to."""
    return jnp.broadcast_shapes(*(operand.shape[:matrix_axes] for operand in operands))


def _avals(operands: Sequence[Any], **parameters: Any) -> list[ShapedArray]:
    """Types of the results. On explicit axes of a mesh they are sharded as x is, or else as any operand."""
    x = operands[dimensions.arrays(parameters) - 1]
    matrix_axes = parameters["matrix_axes"]
    whole = (*_matrices(operands, matrix_axes), *x.shape[matrix_axes:])
    found = dimensions.of_operands([operand.shape for operand in operands], whole, parameters)
    axes: list[Any] = [None] * len(whole)
    for operand, own in sorted(zip(operands, found, strict=True), key=lambda pair: pair[0] is not x):
        for d, axis in zip(own, spec_of(operand), strict=True):
            if d is not None and axes[d] is None and axis not in axes:
                axes[d] = axis
    _, *of_sums = dimensions.of_results(len(whole), parameters)
    return [typed(whole, x.dtype, axes, operands)] + [
        typed([whole[d] for d in own], compute_dtype(x), [axes[d] for d in own], operands)
        for own in of_sums
    ]


@neuron_p.def_abstract_eval
def _neuron_aval(x, *operands, **parameters):
    (y,) = _avals((x, *operands), **parameters)
    return [y.update(weak_type=x.weak_type)]


@neuron_gradient_p.def_abstract_eval
def _neuron_gradient_aval(gradient, x, *operands, **parameters):
    data, *sums = _avals((gradient, x, *operands), **parameters)
    return [data.update(weak_type=gradient.weak_type and x.weak_type), *sums]


# Evaluation outside of jit


@cache
def _compiled(primitive: Primitive, **parameters: Any) -> Any:
    if "in_place" in parameters:
        parameters["in_place"] = False  # the gradient is an array of the caller's, and would be copied

    def evaluate(*operands):
        return primitive.bind(*operands, **parameters)

    # JAX's mark of a function that is one primitive, which jax_debug_nans need not take apart further.
    evaluate._apply_primitive = True  # type: ignore[attr-defined]
    evaluate.__name__ = evaluate.__qualname__ = primitive.name
    return jax.jit(evaluate)


def _evaluate(primitive: Primitive, *operands: Array, **parameters: Any) -> list[Array]:
    with jax.disable_jit(False):  # a kernel is one operation also where jit is disabled to look inside
        return _compiled(primitive, **parameters)(*operands)


neuron_p.def_impl(partial(_evaluate, neuron_p))
neuron_gradient_p.def_impl(partial(_evaluate, neuron_gradient_p))


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


# Transposition: the data gradient, f'(z) * gradient, is linear in the gradient, and its own transpose.


def _transpose(cotangents, gradient, x, scalars, *vectors, bias_gradient, slope_gradient, **parameters):
    others = (x, scalars, *vectors)
    if not ad.is_undefined_primal(gradient) or any(map(ad.is_undefined_primal, others)):
        raise NotImplementedError("neuron_gradient is linear in its first operand alone")
    parameters |= {"bias_gradient": bias_gradient, "slope_gradient": slope_gradient}
    result: Any
    if all(type(cotangent) is ad.Zero for cotangent in cotangents):  # asked for before 0.5
        result = ad.Zero(gradient.aval)
    elif bias_gradient or slope_gradient:
        instantiated = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
        transpose = jax.linear_transpose(lambda g: _backward(g, *others, **parameters), gradient.aval)
        (result,) = transpose(instantiated)
    else:
        (result,) = neuron_gradient_p.bind(*cotangents, *others, **parameters)
        # A gradient that matrices share has the sum of theirs.
        shared = [i for i, size in enumerate(gradient.aval.shape) if size != result.shape[i]]
        result = jnp.sum(result, shared, keepdims=True) if shared else result
    return [result] + [None] * len(others)


ad.primitive_transposes[neuron_gradient_p] = _transpose


# Batching: the mapped axis becomes one more axis of matrices.


def _batch(primitive, operands, axes, *, matrix_axes, **parameters):
    moved = [
        jnp.expand_dims(operand, 0) if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    results = primitive.bind(*moved, matrix_axes=matrix_axes + 1, **parameters)
    return results, [0] * len(results)


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
