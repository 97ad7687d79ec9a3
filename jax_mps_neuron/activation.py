"""`neuron`, the differentiable activation, and `neuron_gradient`, its gradient as a function."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from . import primitives, reference
from ._compat import resharded_like, vary_together
from .descriptor import FROM_Y, Neuron, NeuronType, parameters_of
from .lowering import resolve
from .operands import Operands, as_scalars, compute_dtype, prepare, prepare_gradient
from .reference import NeuronGradient

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
    """The activation y = f(alpha * x + bias).

    Its gradient is Apple's (MPSMatrixNeuronGradient), one custom call for x, bias and slopes together
    where a kernel can run. Gradients with respect to alpha, a, b and c, which Apple's kernel does not have,
    are computed only when asked for. In a float16 or bfloat16 x everything is computed in float32.

    Args:
      x: shape [..., channels], of any rank and size; float32, float16, bfloat16 or float64.
      neuron: the type f and its parameters. PReLU's slopes have shape [channels], every other
        parameter has shape [].
      bias: shape [channels], of any of these dtypes; None for no bias. x may then be a scalar.
      alpha: a real scalar.
      lowering: "auto", "custom_call", "inline" or "metal"; None for the default
        (`set_default_lowering`, which says what each is).
      residual: what is kept for the backward pass. "x" is exact over the whole range. "y", for NONE,
        LINEAR, SIGMOID, TANH and EXPONENTIAL, is what the next layer keeps anyway, so that a training step
        takes one array less of memory; f' is then as precise as y is, a sigmoid's and a tanh's to 6e-7 of
        its largest value in float32, and 0 where y was rounded to a bound of f. Gradients of alpha, a, b
        or c need x, and keep it.

    Returns:
      y, of x's shape and dtype.

    Raises:
      TypeError: x, bias or slopes are not of a floating dtype, a parameter is not real, or neuron is not
        a `Neuron`.
      ValueError: bias or slopes have another length than the channels, a PReLU has none, x is a scalar
        with a bias, a parameter is not a scalar, the lowering is unknown, or the residual is none of the
        type's.
    """
    lowering = resolve(lowering)
    kind, operands = prepare(x, neuron, bias, alpha)
    _check_residual(residual, kind)
    return _neuron(_Static(kind, lowering, residual == "y"), *vary_together(operands))


def neuron_gradient(
    gradient: ArrayLike,
    x: ArrayLike,
    neuron: Neuron,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 1.0,
    lowering: str | None = None,
) -> NeuronGradient:
    """The gradient of a neuron, as MPSMatrixNeuronGradient computes it.

    With z = alpha * x + bias: data = alpha f'(z) gradient, the bias gradient is the sum over rows of
    f'(z) gradient, and the slope gradient (PReLU) the sum over rows of gradient z where z < 0.

    Args:
      gradient: the incoming gradient, with respect to y; x's shape.
      x: as in `neuron`, and so the rest.
      neuron: the type f and its parameters.
      bias: shape [channels], or None.
      alpha: a real scalar.
      lowering: None for the default.

    Returns:
      Data in x's shape and dtype; the bias gradient [channels] in the bias's dtype, None without a bias;
      the slope gradient [channels] in the slopes' dtype, None unless the type is PRELU.

    Raises:
      TypeError: as `neuron`.
      ValueError: as `neuron`, and if gradient has another shape than x.
    """
    lowering = resolve(lowering)
    kind, gradient, operands = prepare_gradient(gradient, x, neuron, bias, alpha)
    results = primitives.neuron_gradient(
        gradient,
        operands.x,
        as_scalars(operands),
        operands.bias,
        operands.slope,
        kind=kind,
        bias_gradient=operands.bias is not None,
        slope_gradient=operands.slope is not None,
        lowering=lowering,
    )
    return reference.as_neuron_gradient(results, x, neuron, bias)


_KEEP_Y = (NeuronType.NONE, NeuronType.LINEAR, *FROM_Y)


def _check_residual(residual: Any, kind: NeuronType) -> None:
    choices = ("x", "y") if kind in _KEEP_Y else ("x",)
    if not (isinstance(residual, str) and residual in choices):
        types = ", ".join(k.name for k in _KEEP_Y)
        raise ValueError(f"residual is {residual!r} for {kind.name}; it may be 'x', or 'y' for {types}")


class _Static(NamedTuple):
    kind: NeuronType
    lowering: str
    keeps_y: bool


@jax.tree_util.register_static
class _Perturbed(tuple[bool, ...]):
    """Which of the operands are differentiated, on its way from the forward to the backward pass."""


def _wanted(perturbed: _Perturbed) -> dict[str, bool]:
    return dict(zip(Operands._fields, perturbed, strict=True))


def _wanted_scalars(static: _Static, perturbed: _Perturbed) -> list[str]:
    """Of alpha and what the type uses of a, b and c."""
    wanted = _wanted(perturbed)
    return [name for name in ("alpha", *parameters_of(static.kind)) if wanted[name]]


def _keeps_y(static: _Static, perturbed: _Perturbed) -> bool:
    """Whether y is kept in x's place."""
    return static.keeps_y and not _wanted_scalars(static, perturbed)


def _activate(static: _Static, o: Operands) -> Array:
    return primitives.neuron(
        o.x, as_scalars(o), o.bias, o.slope, kind=static.kind, lowering=static.lowering
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _neuron(static: _Static, *operands: Any) -> Array:
    return _activate(static, Operands(*operands))


def _neuron_fwd(static: _Static, *operands: Any) -> tuple[Array, Any]:
    values = Operands(*[None if o is None else o.value for o in operands])  # type: ignore[arg-type]
    perturbed = _Perturbed(o is not None and o.perturbed for o in operands)
    # Not _neuron: forward over reverse puts tangents on this, which a custom_vjp function refuses.
    y = _activate(static, values)
    return y, (values._replace(x=y) if _keeps_y(static, perturbed) else values, perturbed)


def _neuron_bwd(static: _Static, residuals: Any, gradient: Array) -> tuple[Array | None, ...]:
    o, perturbed = residuals
    wanted = _wanted(perturbed)
    cotangents: dict[str, Array | None] = dict.fromkeys(Operands._fields)
    if isinstance(gradient, SymbolicZero):
        return tuple(cotangents.values())
    if wanted["x"] or wanted["bias"] or wanted["slope"]:
        data, *sums = primitives.neuron_gradient(
            gradient,
            o.x,
            as_scalars(o),
            o.bias,
            o.slope,
            kind=static.kind,
            bias_gradient=wanted["bias"],
            slope_gradient=wanted["slope"],
            from_y=_keeps_y(static, perturbed) and static.kind in FROM_Y,
            lowering=static.lowering,
        )
        cotangents["x"] = data
        if wanted["bias"]:
            cotangents["bias"] = sums.pop(0)
        if wanted["slope"]:
            cotangents["slope"] = sums.pop(0)
    if scalars := _wanted_scalars(static, perturbed):
        cotangents.update(_scalar_cotangents(static.kind, o, scalars, gradient))
    return tuple(
        None if cotangent is None else resharded_like(cotangent, getattr(o, name))
        for name, cotangent in cotangents.items()
    )


_neuron.defvjp(_neuron_fwd, _neuron_bwd, symbolic_zeros=True)


def _scalar_cotangents(
    kind: NeuronType, o: Operands, names: list[str], gradient: Array
) -> dict[str, Array]:
    """Cotangents of the named scalars, from the reference in the compute type."""
    dtype = compute_dtype(o.x)

    def forward(*scalars: Array) -> Array:
        at = o._replace(x=o.x.astype(dtype), **dict(zip(names, scalars, strict=True)))
        return reference.forward(at.x, as_scalars(at), at.bias, at.slope, kind=kind)

    _, vjp = jax.vjp(forward, *(getattr(o, name) for name in names))
    return dict(zip(names, vjp(gradient.astype(dtype)), strict=True))
