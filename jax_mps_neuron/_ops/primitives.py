"""The two primitives, on the operands and results that `signature` describes.

``neuron_p``:          x, scalars, [bias], [slope] -> y
``neuron_gradient_p``: gradient, x, scalars, [bias], [slope] -> data, [bias gradient], [slope gradient]

Both take the parameters ``signature``, ``lowering`` and ``in_place``: whether the first result may take the
first operand's buffer. The kernels compute the values, `evaluation` supplies the tangents.
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

from .._compat.avals import spec_of, typed
from .._core.evaluation import evaluate
from .._core.signature import Operands, Signature, compute_dtype
from .._lowering import rules

__all__ = ["bind", "neuron_gradient_p", "neuron_p"]

neuron_p = Primitive("neuron")
neuron_p.multiple_results = True
neuron_gradient_p = Primitive("neuron_gradient")
neuron_gradient_p.multiple_results = True


def bind(signature: Signature, operands: Operands, *, lowering: str) -> list[Array]:
    """Binds the primitive of a signature.

    Args:
      signature: what the call computes.
      operands: the operands; an absent one is None.
      lowering: the resolved lowering.

    Returns:
      The results, in the order of `Signature.result_names`.
    """
    primitive = neuron_p if signature.forward else neuron_gradient_p
    return primitive.bind(
        *signature.ordered(operands), signature=signature, lowering=lowering, in_place=not signature.forward
    )


# Abstract evaluation


def _avals(*operands: Any, signature: Signature, **parameters: Any) -> list[ShapedArray]:
    """The avals of the results. On an explicit mesh they are sharded like x, else like any operand."""
    x = signature.named(operands).x
    full = signature.full_shape(operands)
    found = signature.operand_dimensions([operand.shape for operand in operands], full)
    axes: list[Any] = [None] * len(full)
    for operand, own in sorted(zip(operands, found, strict=True), key=lambda pair: pair[0] is not x):
        for d, axis in zip(own, spec_of(operand), strict=True):
            if d is not None and axes[d] is None and axis not in axes:
                axes[d] = axis
    arrays = [v for v in (signature.named(operands).gradient, x) if v is not None]
    first = typed(full, x.dtype, axes, operands).update(weak_type=all(v.weak_type for v in arrays))
    _, *sums = zip(signature.result_shapes(operands), signature.result_dimensions(len(full)), strict=True)
    return [
        first,
        *(typed(shape, compute_dtype(x), [axes[d] for d in own], operands) for shape, own in sums),
    ]


neuron_p.def_abstract_eval(_avals)
neuron_gradient_p.def_abstract_eval(_avals)


# Evaluation outside of jit


@cache
def _compiled(primitive: Primitive, signature: Signature, lowering: str) -> Any:
    def call(*operands):
        # Not in place: an eager operand belongs to the caller, so XLA would copy it first.
        return primitive.bind(*operands, signature=signature, lowering=lowering, in_place=False)

    # JAX's mark of a function that is a single primitive: jax_debug_nans does not look inside.
    call._apply_primitive = True  # type: ignore[attr-defined]
    call.__name__ = call.__qualname__ = primitive.name
    return jax.jit(call)


def _impl(primitive: Primitive, *operands: Array, signature: Signature, lowering: str, **_: Any) -> Any:
    with jax.disable_jit(False):  # a kernel stays one operation where jit is disabled for debugging
        return _compiled(primitive, signature, lowering)(*operands)


neuron_p.def_impl(partial(_impl, neuron_p))
neuron_gradient_p.def_impl(partial(_impl, neuron_gradient_p))


# Lowering

rules.register(neuron_p)
rules.register(neuron_gradient_p)


# Differentiation


def _jvp(primitive, primals, tangents, *, signature, **parameters):
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def of_moving(*values):
        operands = list(primals)
        for i, value in zip(moving, values, strict=True):
            operands[i] = value
        return evaluate(signature, *operands)

    _, out = jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])
    return primitive.bind(*primals, signature=signature, **parameters), out


ad.primitive_jvps[neuron_p] = partial(_jvp, neuron_p)
ad.primitive_jvps[neuron_gradient_p] = partial(_jvp, neuron_gradient_p)


# Transposition: the data gradient f'(z) * gradient is linear in the gradient, and its own transpose.


def _transpose(cotangents, gradient, *others, signature, **parameters):
    if not ad.is_undefined_primal(gradient) or any(map(ad.is_undefined_primal, others)):
        raise NotImplementedError("neuron_gradient is linear in its first operand only")
    result: Any
    if all(type(cotangent) is ad.Zero for cotangent in cotangents):  # JAX before 0.5 asks for these
        result = ad.Zero(gradient.aval)
    elif len(signature.result_names) > 1:
        instantiated = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
        transpose = jax.linear_transpose(lambda g: evaluate(signature, g, *others), gradient.aval)
        (result,) = transpose(instantiated)
    else:
        (result,) = neuron_gradient_p.bind(*cotangents, *others, signature=signature, **parameters)
        # A gradient shared along a batch axis gets the sum of its entries' cotangents.
        shared = [i for i, size in enumerate(gradient.aval.shape) if size != result.shape[i]]
        result = jnp.sum(result, shared, keepdims=True) if shared else result
    return [result] + [None] * len(others)


ad.primitive_transposes[neuron_gradient_p] = _transpose


# Batching: the mapped axis becomes one more batch axis.


def _batch(primitive, operands, axes, *, signature, **parameters):
    moved = [
        jnp.expand_dims(operand, 0) if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    signature = signature.replace(batch_axes=signature.batch_axes + 1)
    results = primitive.bind(*moved, signature=signature, **parameters)
    return results, [0] * len(results)


batching.primitive_batchers[neuron_p] = partial(_batch, neuron_p)
batching.primitive_batchers[neuron_gradient_p] = partial(_batch, neuron_gradient_p)


# Dead code elimination: unused sums are not computed.


def _drop_unused_sums(used: Sequence[bool], *rest: Any) -> Any:
    equation = rest[-1]  # (used, equation), and since JAX 0.12 (used, live inputs, equation)
    if not any(used):
        return [False] * len(equation.invars), None
    signature = equation.params["signature"]
    unused: dict[str, Any] = {
        n: False for n, u in zip(signature.result_names[1:], used[1:], strict=True) if not u
    }
    kept = [v for i, v in enumerate(equation.outvars) if i == 0 or used[i]]
    parameters = {**equation.params, "signature": signature.replace(**unused)}
    return [True] * len(equation.invars), equation.replace(outvars=kept, params=parameters)


pe.dce_rules[neuron_gradient_p] = _drop_unused_sums
