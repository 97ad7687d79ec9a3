"""Cuts a jaxpr at its neuron calls, into stretches that XLA compiles and kernel calls between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var
from jax.interpreters import partial_eval as pe

from .._compat.programs import function_of
from .._ops.primitives import neuron_gradient_p
from .inlining import Atom, Inlined, is_kernel_call, needs_care, new_variables

__all__ = ["Program", "Stage", "cut"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Equations that run together: one compiled program, or kernel calls that wait for the same program.

    Attributes:
      is_kernel: whether the equations are kernel calls.
      equations: the equations, in the program's order.
      inputs: the variables that they read from the program's inputs and from earlier stages.
      outputs: the values that later stages and the caller read, by name.
      dead: the inputs without a later use.
      on_host: the inputs and outputs that only kernels read later.
    """

    is_kernel: bool
    equations: tuple[JaxprEqn, ...]
    inputs: tuple[Var, ...]
    outputs: dict[Hashable, Atom]
    dead: frozenset[Var]
    on_host: frozenset[Var]


@dataclasses.dataclass(frozen=True)
class Program:
    """A jaxpr in stages.

    Attributes:
      inputs: the jaxpr's input variables, by which stages read them.
      outputs: the names of the jaxpr's outputs, in order.
      constants: the arrays that the function closed over, by variable.
      operands: the constants, and the kernels' operands that depend on no input, by variable.
      stages: the stages, in order.
      left: the number of neuron calls inside loops, branches and other equations, which run inline.
    """

    inputs: tuple[Var, ...]
    outputs: tuple[Hashable, ...]
    constants: dict[Var, Any]
    operands: dict[Var, Any]
    stages: tuple[Stage, ...]
    left: int


def cut(closed: ClosedJaxpr) -> Program | None:
    """Cuts a jaxpr at the neuron calls that the Metal kernels can run.

    The calls that contain them (jit, checkpoint, custom derivatives) are inlined; a checkpoint keeps its
    barrier. All other equations keep their order, and so do their effects. Neuron calls inside scan, while,
    cond and other equations stay there, and get lowering "auto", which compiles everywhere.

    Args:
      closed: the jaxpr.

    Returns:
      The program; None if the jaxpr can be compiled unchanged.

    Raises:
      NotImplementedError: the jaxpr has mutable references, which one program cannot pass to the next.
    """
    if not any(map(needs_care, closed.jaxpr.eqns)):
        return None
    flat = Inlined()
    inputs = new_variables([v.aval for v in closed.jaxpr.invars])
    outputs = flat.add(closed, inputs)
    operands = flat.constants | _fold(flat.equations, flat.constants)
    equations = _live(flat.equations, operands, outputs)
    names, stages = _stages(equations, flat.constants, operands, outputs)
    return Program(tuple(inputs), names, flat.constants, operands, stages, flat.left)


def _reads(equation: JaxprEqn, operands: dict[Var, Any]) -> list[Var]:
    """The variables that an equation reads, without the known operands of a kernel call."""
    variables = [v for v in equation.invars if isinstance(v, Var)]
    return [v for v in variables if v not in operands] if is_kernel_call(equation) else variables


def _fold(equations: list[JaxprEqn], constants: dict[Var, Any]) -> dict[Var, np.ndarray]:
    """The values of kernel operands that depend on no input, such as the parameters of most neurons.

    They are computed once, here, rather than computed and fetched on every call.
    """
    known = set(constants)
    for equation in equations:
        inputs = (v for v in equation.invars if isinstance(v, Var))
        if not is_kernel_call(equation) and not equation.effects and known.issuperset(inputs):
            known.update(equation.outvars)
    calls = [equation for equation in equations if is_kernel_call(equation)]
    wanted = [v for call in calls for v in _reads(call, constants) if v in known]
    if not wanted:
        return {}
    computed = [e for e in equations if not e.effects and known.issuperset(e.outvars)]
    needed = _live(computed, constants, wanted)
    values = jax.jit(function_of(needed, (), wanted, constants))()
    return dict(zip(wanted, map(np.asarray, values), strict=True))


def _live(equations: list[JaxprEqn], operands: dict[Var, Any], outputs: Sequence[Atom]) -> list[JaxprEqn]:
    """The equations with a used result or an effect. Kernel calls lose their unused sums."""
    live = {v for v in outputs if isinstance(v, Var)}
    kept = []
    for equation in reversed(equations):
        used = [v in live for v in equation.outvars]
        if not any(used) and not equation.effects:
            continue
        if equation.primitive is neuron_gradient_p:
            equation = pe.dce_rules[neuron_gradient_p](used, equation)[1]  # type: ignore[assignment]
        live.update(_reads(equation, operands))
        kept.append(equation)
    return kept[::-1]


def _grouped(equations: list[JaxprEqn], operands: dict[Var, Any]) -> list[list[JaxprEqn]]:
    """Stretches and groups of kernel calls in alternation. Any of them may be empty.

    A kernel call joins the earliest group that its operands allow. All other equations keep their order,
    and run as late as that order allows: a value that is needed at the end of a step is computed there.
    """
    turns: list[tuple[list[JaxprEqn], list[JaxprEqn]]] = [([], [])]
    ready: dict[Var, int] = {}  # the first turn that can read a variable
    # Stages are separate programs anyway. A value that crosses a barrier on the way to another stage is the
    # barrier's operand, not a copy of it.
    barred: dict[Var, Atom] = {}
    for equation in equations:
        is_kernel = is_kernel_call(equation)
        read = _reads(equation, operands)
        turn = max((ready.get(v, 0) for v in read), default=0)
        if not is_kernel:
            turn = max(turn, len(turns) - 1)
        if turn == len(turns):
            turns.append(([], []))
        beyond = {v for v in read if v in barred and (is_kernel or ready[v] < turn)}
        if beyond:
            invars = [barred[v] if isinstance(v, Var) and v in beyond else v for v in equation.invars]
            equation = equation.replace(invars=invars)
        if equation.primitive.name == "optimization_barrier":
            through = (barred.get(v, v) if isinstance(v, Var) else v for v in equation.invars)
            barred |= zip(equation.outvars, through, strict=True)
        turns[turn][is_kernel].append(equation)
        ready.update((v, turn + is_kernel) for v in equation.outvars)
    return [group for pair in turns for group in pair]


def _stages(
    equations: list[JaxprEqn],
    constants: dict[Var, Any],
    operands: dict[Var, Any],
    outputs: list[Atom],
) -> tuple[tuple[Hashable, ...], tuple[Stage, ...]]:
    """The names of the outputs, and the stages."""
    computed = {v for equation in equations for v in equation.outvars}
    names: list[Hashable] = []
    passed: dict[Hashable, Atom] = {}
    for i, atom in enumerate(outputs):
        # An input, a literal or a repeated output becomes a separate array by passing through a stretch.
        if isinstance(atom, Var) and atom in computed:
            computed.remove(atom)
            names.append(atom)
        else:
            names.append(i)
            passed[i] = atom

    groups = [group for group in _grouped(equations, operands) if group]
    if passed and (not groups or is_kernel_call(groups[-1][0])):
        groups.append([])

    stages: list[Stage] = []
    live = {v for v in names if isinstance(v, Var)}
    on_device = set(live)
    for group in reversed(groups):
        is_kernel = bool(group) and is_kernel_call(group[0])
        made = [v for equation in group for v in equation.outvars]
        kept: dict[Hashable, Atom] = {v: v for v in made if v in live}
        read = [v for equation in group for v in _reads(equation, operands)]
        if not stages:
            kept |= passed
            read += [v for v in passed.values() if isinstance(v, Var)]
        bound = {*made, *constants}
        read = [v for v in dict.fromkeys(read) if v not in bound]
        on_host = frozenset(v for v in (*read, *made) if v in live and v not in on_device)
        stages.append(Stage(is_kernel, tuple(group), tuple(read), kept, frozenset(read) - live, on_host))
        live = (live - set(made)) | set(read)
        on_device = (on_device - set(made)) | (set() if is_kernel else set(read))
    return tuple(names), tuple(reversed(stages))
