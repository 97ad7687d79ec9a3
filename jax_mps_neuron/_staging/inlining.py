"""Inlines the calls that contain a jaxpr's neuron calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from .._metal.source import DTYPES
from .._ops.primitives import neuron_gradient_p, neuron_p

__all__ = ["Atom", "Inlined", "is_kernel_call", "needs_care", "new_variables"]

Atom = Var | Literal

# The primitives that run a jaxpr once, with the parameter that holds it. Some have two names in the
# supported versions of JAX. In a traced program, custom derivative rules have already been applied.
_CALLS = {
    "pjit": "jaxpr",
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


def is_kernel_call(equation: JaxprEqn) -> bool:
    """Whether the Metal kernels can run an equation, and its lowering allows it."""
    if equation.primitive not in (neuron_p, neuron_gradient_p) or equation.params["lowering"] == "inline":
        return False
    operands: list[Any] = [v.aval for v in equation.invars]
    return operands[0].dtype.name in DTYPES and all(operand.size for operand in operands)


def needs_care(equation: JaxprEqn) -> bool:
    """Whether an equation is or contains a neuron call that must not be compiled unchanged."""
    params, left = _compilable(equation)
    return is_kernel_call(equation) or left > 0 or params is not equation.params


def new_variables(avals: Sequence[Any]) -> list[Var]:
    """New variables of these avals, since a jaxpr may be inlined twice."""
    if not all(isinstance(aval, ShapedArray) for aval in avals):
        raise NotImplementedError("it has mutable references or tokens")
    return list(jax.make_jaxpr(lambda *_: ())(*avals).jaxpr.invars)


class Inlined:
    """The equations of jaxprs, with the calls that contain kernel calls inlined.

    Attributes:
      equations: the equations, in order, on new variables.
      constants: the values of the variables that the jaxprs closed over.
      left: the number of kernel calls that stay inside other equations.
    """

    def __init__(self) -> None:
        self.equations: list[JaxprEqn] = []
        self.constants: dict[Var, Any] = {}
        self.left = 0

    def add(self, closed: ClosedJaxpr, operands: Sequence[Atom]) -> list[Atom]:
        """Adds the equations of a jaxpr on its operands, and returns its outputs."""
        jaxpr = closed.jaxpr
        made = [*jaxpr.constvars, *(v for equation in jaxpr.eqns for v in equation.outvars)]
        new = new_variables([v.aval for v in made])
        self.constants |= zip(new, closed.consts, strict=False)
        renamed: dict[Var, Atom] = dict(zip(made, new, strict=True))
        renamed |= zip(jaxpr.invars, operands, strict=True)

        def rename(atoms: Sequence[Atom]) -> list[Any]:
            return [renamed[atom] if isinstance(atom, Var) else atom for atom in atoms]

        for equation in jaxpr.eqns:
            invars, call = rename(equation.invars), _call(equation)
            if call is None:
                params, left = _compilable(equation)
                self.left += left
                outvars = rename(equation.outvars)
                self.equations.append(equation.replace(invars=invars, outvars=outvars, params=params))
                continue
            if equation.params.get("differentiated") and np.any(equation.params["prevent_cse"]):
                # The barrier makes recomputation wait for the cotangents. Without it, XLA merges the second
                # computation with the first.
                avals = [v.aval for v in invars]
                barrier = jax.make_jaxpr(lambda *values: jax.lax.optimization_barrier(values))(*avals)
                invars = self.add(barrier, invars)
            renamed |= zip(equation.outvars, self.add(call, invars), strict=True)
        return rename(jaxpr.outvars)


def _call(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The jaxpr of an equation that is a call and contains a kernel call to cut at; otherwise None."""
    if equation.primitive.name not in _CALLS:
        return None
    jaxpr = equation.params[_CALLS[equation.primitive.name]]
    closed = jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])
    holds = any(is_kernel_call(inner) or _call(inner) is not None for inner in closed.jaxpr.eqns)
    return closed if holds else None


def _compilable(equation: JaxprEqn) -> tuple[dict[str, Any], int]:
    """Parameters with which every platform compiles an equation, and how many kernel calls it contains."""
    params = equation.params
    if equation.primitive in (neuron_p, neuron_gradient_p):
        if is_kernel_call(equation) or params["lowering"] == "inline":
            return params, 0
        return {**params, "lowering": "auto"}, 0
    left = 0

    def visit(value: Any) -> Any:
        nonlocal left
        if isinstance(value, (tuple, list)) and any(isinstance(v, (Jaxpr, ClosedJaxpr)) for v in value):
            each = [visit(v) for v in value]
            if all(a is b for a, b in zip(each, value, strict=True)):
                return value
            # Those of a linear solve are a named tuple.
            return value._make(each) if hasattr(value, "_make") else type(value)(each)
        if not isinstance(value, (Jaxpr, ClosedJaxpr)):
            return value
        inner = value if isinstance(value, Jaxpr) else value.jaxpr
        equations = []
        for e in inner.eqns:
            replaced, hidden = _compilable(e)
            if is_kernel_call(e):
                replaced, hidden = {**replaced, "lowering": "auto"}, 1
            left += hidden
            equations.append(e if replaced is e.params else e.replace(params=replaced))
        if all(a is b for a, b in zip(equations, inner.eqns, strict=True)):
            return value
        inner = inner.replace(eqns=equations)
        return inner if isinstance(value, Jaxpr) else ClosedJaxpr(inner, value.consts)

    visited = {name: visit(value) for name, value in params.items()}
    if all(visited[name] is value for name, value in params.items()):
        return params, left
    return visited, left
