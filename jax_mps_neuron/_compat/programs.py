"""Traced programs: tracing state, jaxprs and arrays."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import mlir

__all__ = ["function_of", "is_committed", "is_staged", "weaken"]


# No question about it is public in all versions, so an equation asks: outside of jit, it is evaluated.
_is_staged_p = Primitive("is_staged")
_is_staged_p.def_impl(lambda: False)
_is_staged_p.def_abstract_eval(lambda: ShapedArray((), np.dtype(bool)))
mlir.register_lowering(_is_staged_p, mlir.lower_fun(lambda: np.zeros((), bool), multiple_results=False))


def is_staged() -> bool:
    """Whether what is called now becomes part of a program: in a function that jit, scan, ... trace."""
    return isinstance(_is_staged_p.bind(), jax.core.Tracer)


# Nor is there a public way to a weakly typed array, as a Python number becomes.
_weaken_p = Primitive("weaken")
_weaken_p.def_abstract_eval(lambda x: x.update(weak_type=True))
mlir.register_lowering(_weaken_p, lambda ctx, x: [x])


@jax.jit
def weaken(x: Any) -> Any:
    """An array that promotes as the Python numbers of which it was computed do."""
    return _weaken_p.bind(x)


def is_committed(array: jax.Array) -> bool:
    """Whether an array is bound to its device."""
    return array.committed if hasattr(array, "committed") else array._committed  # before 0.5


def function_of(equations: Any, inputs: Any, outputs: Any, constants: dict[Any, Any]) -> Any:
    """A traceable function of equations: values of the input variables to a list of those of the outputs.

    `constants` holds values of variables that are neither inputs nor computed.
    """
    equations = list(equations)
    atoms = [*(atom for equation in equations for atom in equation.invars), *outputs]
    closed = dict.fromkeys(v for v in atoms if not isinstance(v, Literal) and v in constants)
    for equation in equations:
        for v in equation.outvars:
            closed.pop(v, None)
    empty = jax.make_jaxpr(lambda: ())().jaxpr
    # Before 0.5.1 the names of arguments and results must be as many; later, replace drops them.
    names = {"debug_info": None} if jax.__version_info__ < (0, 5, 1) else {}
    jaxpr = empty.replace(
        invars=[*closed, *inputs],
        outvars=list(outputs),
        eqns=equations,
        effects=frozenset().union(*(equation.effects for equation in equations)),
        **names,
    )
    evaluate = jaxpr_as_fun(ClosedJaxpr(jaxpr, []))
    values = [constants[v] for v in closed]
    return lambda *arguments: evaluate(*values, *arguments)
