"""Traced programs across JAX versions: the tracing state, jaxprs and arrays.

- No version has a public test for whether JAX is tracing, nor a public way to make a weakly typed array.
- `Array.committed` was private before 0.5.
- A jaxpr's debug info must fit its arguments and results before 0.5.1.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import mlir

__all__ = ["function_of", "is_committed", "is_staged", "weaken"]


# Outside of a trace, binding a primitive evaluates it. Inside, the result is a tracer.
_is_staged_p = Primitive("is_staged")
_is_staged_p.def_impl(lambda: False)
_is_staged_p.def_abstract_eval(lambda: ShapedArray((), np.dtype(bool)))
mlir.register_lowering(_is_staged_p, mlir.lower_fun(lambda: np.zeros((), bool), multiple_results=False))


def is_staged() -> bool:
    """Whether operations are being traced into a program, by jit, scan and the like."""
    return isinstance(_is_staged_p.bind(), jax.core.Tracer)


_weaken_p = Primitive("weaken")
_weaken_p.def_abstract_eval(lambda x: x.update(weak_type=True))
mlir.register_lowering(_weaken_p, lambda ctx, x: [x])


@jax.jit
def weaken(x: Any) -> Any:
    """A weakly typed copy of an array, which promotes like a Python number."""
    return _weaken_p.bind(x)


def is_committed(array: jax.Array) -> bool:
    """Whether an array is bound to its device."""
    return array.committed if hasattr(array, "committed") else array._committed  # before 0.5


def function_of(equations: Any, inputs: Any, outputs: Any, constants: dict[Any, Any]) -> Any:
    """A traceable function that evaluates equations.

    Args:
      equations: the equations, in order.
      inputs: the input variables.
      outputs: the output atoms.
      constants: the values of other variables that the equations may read.

    Returns:
      A function from the inputs' values to the list of the outputs' values.
    """
    equations = list(equations)
    atoms = [*(atom for equation in equations for atom in equation.invars), *outputs]
    closed = dict.fromkeys(v for v in atoms if not isinstance(v, Literal) and v in constants)
    for equation in equations:
        for v in equation.outvars:
            closed.pop(v, None)
    empty = jax.make_jaxpr(lambda: ())().jaxpr
    # Before 0.5.1 the debug info must have a name per argument and result. Later, replace drops it.
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
