"""`jit`: a compiled function whose neuron calls run as Metal kernels, on any plugin."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var

from .._compat.programs import function_of, is_committed, is_staged, weaken
from .._metal import device as metal_device
from .cut import Program, Stage, cut
from .stages import Stages, stages_of

__all__ = ["jit"]

# The platforms on which JAX donates buffers. On others it warns and copies.
_DONATING = ("cpu", "cuda", "rocm", "tpu")

_SEVERAL_DEVICES = "it has arrays on several devices, so it runs as a plain jax.jit"


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Sequence[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Sequence[str] | None = None,
) -> Any:
    """`jax.jit` that runs neuron calls as Metal kernels, on any plugin.

    `jit` traces the function and cuts its program at the calls of `neuron` and `neuron_gradient`, those of
    `jax.grad` included. `jax.jit` compiles the stretches between them. Each stage of kernels waits for the
    device, fetches the kernels' operands to the host, and puts the results back. The cost is one round trip
    per stage, the copies if the plugin does not share the host's memory, and the fusion of an activation
    with its neighbours. Kernels that wait for the same stretch share a stage.

    Some calls stay inline, as XLA operations: calls with lowering "inline", in float64 or of an empty
    array, and calls inside scan, while or cond. A warning reports the latter, once per function. The
    function runs as a plain `jax.jit` if there is nothing to cut, under `jax.disable_jit`, and under
    another transformation (jit, vmap, grad). It also does so, with a warning, on arrays on several devices.

    Args:
      fun: the function; None to use `jit` with options as a decorator.
      static_argnums: as in `jax.jit`.
      static_argnames: as in `jax.jit`.
      donate_argnums: as in `jax.jit`. The last stretch that reads a donated array may reuse its memory for
        a result.
      donate_argnames: as in `jax.jit`.

    Returns:
      A function with the arguments, results and errors of ``jax.jit(fun)``. It also has
      ``stages(*args, **kwargs)``, which shows the cut without running anything, and ``clear_cache()``. Its
      ``trace``, ``lower`` and ``eval_shape`` are those of ``jax.jit(fun)``, before the cut. A call raises
      `MetalError` if a kernel cannot run.

    Example:
      >>> @jit
      ... def layer(x, weights):
      ...     return neuron(x @ weights, Neuron.gelu()).sum()
      >>> print(layer.stages(jnp.ones((8, 4)), jnp.ones((4, 4))))
      stage  kind    equations  kernels      results
      0      jit     1                       float32[8,4]
      1      kernel  1          neuron GELU  float32[8,4]
      2      jit     1                       float32[]
    """
    options: dict[str, Any] = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
    }
    if fun is None:
        return functools.partial(jit, **options)
    return _Staged(fun, options)


class _Staged:
    """A function under `jit`, with a plan for each program that JAX traced for it."""

    def __init__(self, fun: Callable[..., Any], options: dict[str, Any]):
        self._jitted = jax.jit(fun, **options)  # checks the options
        positions = _static_argnums(fun, **options)
        if positions != options["static_argnums"]:
            self._jitted = jax.jit(fun, **{**options, "static_argnums": positions})
        self._static = positions or ()
        functools.update_wrapper(self, fun)
        # jax.jit keeps one jaxpr per signature and setting, and drops it with its other caches.
        self._plans: WeakKeyDictionary[ClosedJaxpr, _Plan] = WeakKeyDictionary()
        self._warned: set[str] = set()
        jitted: Any = self._jitted
        self.trace, self.lower, self.eval_shape = jitted.trace, jitted.lower, jitted.eval_shape

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree_util.tree_leaves((args, kwargs)))
        if traced or is_staged() or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return self._jitted(*args, **kwargs)
        plan = self._plan(args, kwargs)
        for reason in plan.warnings:
            self._warn(plan, reason)
        if plan.program is None:
            return self._jitted(*args, **kwargs)
        leaves = plan.leaves(args, kwargs)
        committed = [x.sharding for x in leaves if isinstance(x, jax.Array) and is_committed(x)]
        if any(len(sharding.device_set) > 1 for sharding in committed):
            self._warn(plan, _SEVERAL_DEVICES)
            return self._jitted(*args, **kwargs)
        device = next(iter(committed[0].device_set)) if committed else None
        return plan.run(leaves, device)

    def stages(self, *args: Any, **kwargs: Any) -> Stages:
        """The stages of a call with these arguments, without running it; none for a plain `jax.jit`."""
        program = self._plan(args, kwargs).program
        return stages_of(program)

    def clear_cache(self) -> None:
        """Drops everything traced and compiled for this function."""
        self._plans.clear()
        self._jitted.clear_cache()  # type: ignore[attr-defined]

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Plan:
        traced = self._jitted.trace(*args, **kwargs)
        plan = self._plans.get(traced.jaxpr)
        if plan is None:
            plan = _Plan(traced, self._static, len(args))
            plan = self._plans.setdefault(traced.jaxpr, plan)
        return plan

    def _warn(self, plan: _Plan, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            warnings.warn(f"metal.jit({plan.name}): {reason}", stacklevel=3)


def _static_argnums(
    fun: Callable[..., Any],
    static_argnums: int | Sequence[int] | None,
    static_argnames: str | Sequence[str] | None,
    **_: Any,
) -> tuple[int, ...] | None:
    """The positions of the static arguments, by the newest `jax.jit`'s rules on every version.

    A negative position counts from the last parameter. Under ``*args`` it counts from the last argument, so
    it stays negative.
    """
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # a built-in function may have no signature
        parameters = []
    if static_argnums is None:
        if static_argnames is None:
            return None
        names = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames)
        return tuple(
            i for i, p in enumerate(parameters) if p.kind is p.POSITIONAL_OR_KEYWORD and p.name in names
        )
    given = static_argnums if isinstance(static_argnums, Iterable) else (static_argnums,)
    positions = tuple(map(operator.index, given))
    count = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if count and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return tuple(i % count if i < 0 else i for i in positions)
    return positions


class _Plan:
    """How one program runs: its stretches, each compiled on its first call, and its kernels."""

    def __init__(self, traced: Any, static: Sequence[int], count: int):
        positional, keywords = traced.args_info
        self.name = traced.fun_name
        self._positions = [i for i in range(count) if i not in static and i - count not in static]
        self._keywords = list(keywords)
        self._out_tree = jax.tree_util.tree_structure(traced.out_info)
        self.program: Program | None = None
        self.warnings: list[str] = []
        donated = [info.donated for info in jax.tree_util.tree_leaves((positional, keywords))]
        if len(donated) < len(traced.jaxpr.in_avals):
            return  # the function closes over tracers of another transformation, which JAX makes inputs
        constants = [c for c in traced.jaxpr.consts if isinstance(c, jax.Array)]
        if any(len(c.sharding.device_set) > 1 for c in constants):
            self.warnings.append(_SEVERAL_DEVICES)
            return
        try:
            program = cut(traced.jaxpr)
        except NotImplementedError as error:
            self.warnings.append(f"{error}, so it runs as a plain jax.jit")
            return
        if program is None:
            return
        if program.left:
            self.warnings.append("neuron calls inside scan, while, cond and similar operations run inline")
        self.program = program
        kept = {v for v, gives in zip(program.inputs, donated, strict=True) if not gives}
        self._stages: list[Callable[..., Any]] = []
        for i, stage in enumerate(program.stages):
            if stage.is_kernel:
                self._stages.append(functools.partial(_launch, stage, program.operands))
            else:
                function = _compiled(f"{traced.fun_name}_stage{i}", stage, program, kept)
                self._stages.append(functools.partial(_call, stage, function))
        self._read = {v for stage in program.stages for v in stage.inputs}

    def leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The leaves of the dynamic arguments, in the order of the program's inputs."""
        dynamic = ([args[i] for i in self._positions], {name: kwargs[name] for name in self._keywords})
        return jax.tree_util.tree_leaves(dynamic)

    def run(self, leaves: list[Any], device: jax.Device | None) -> Any:
        program = self.program
        assert program is not None
        values: dict[Any, Any] = {
            v: x for v, x in zip(program.inputs, leaves, strict=True) if v in self._read
        }
        for stage in self._stages:
            stage(values, device)
        return jax.tree_util.tree_unflatten(self._out_tree, [values[name] for name in program.outputs])


def _take(values: dict[Any, Any], stage: Stage) -> list[Any]:
    return [values.pop(v) if v in stage.dead else values[v] for v in stage.inputs]


def _compiled(name: str, stage: Stage, program: Program, kept: set[Var]) -> Callable[..., Any]:
    """The stretch as a jitted function. Inputs whose memory a result can reuse are donated."""
    avals: list[Any] = [atom.aval for atom in stage.outputs.values()]
    free = Counter((aval.shape, aval.dtype) for aval in avals)
    given = []
    donates = jax.default_backend() in _DONATING
    own = set(program.inputs) - kept
    for i in sorted(range(len(stage.inputs)), key=lambda i: stage.inputs[i] not in own):
        v: Any = stage.inputs[i]
        size = (v.aval.shape, v.aval.dtype)
        if v in stage.dead and free[size] and (v in own or (donates and v not in kept)):
            free[size] -= 1
            given.append(i)
    function = function_of(stage.equations, stage.inputs, list(stage.outputs.values()), program.constants)
    function.__name__ = name  # shown in profiles and errors
    return jax.jit(function, donate_argnums=given)


def _call(
    stage: Stage, function: Callable[..., Any], values: dict[Any, Any], device: jax.Device | None
) -> None:
    values.update(zip(stage.outputs, function(*_take(values, stage)), strict=True))


def _launch(
    stage: Stage, constants: dict[Any, Any], values: dict[Any, Any], device: jax.Device | None
) -> None:
    """Runs the kernels of a stage, with one wait for the device and one transfer back."""

    def on_host(atom: Any, value: Any) -> np.ndarray:
        return np.asarray(value, atom.aval.dtype)  # an argument may be a Python scalar, or wider

    fetched = jax.device_get(_take(values, stage))
    arrays: dict[Any, Any] = {v: on_host(v, x) for v, x in zip(stage.inputs, fetched, strict=True)}
    values.update((v, arrays[v]) for v in stage.inputs if v in stage.on_host)
    results: dict[Any, Any] = {}
    for equation in stage.equations:
        operands = []
        for atom in equation.invars:
            if isinstance(atom, Literal):
                operands.append(on_host(atom, atom.val))
            else:
                operands.append(arrays[atom] if atom in arrays else on_host(atom, constants[atom]))
        made = metal_device.execute(equation.params["signature"], operands)
        results.update((v, x) for v, x in zip(equation.outvars, made, strict=True) if v in stage.outputs)
    put = [v for v in results if v not in stage.on_host]
    back = jax.device_put([results[v] for v in put], device)
    results.update((v, weaken(x) if v.aval.weak_type else x) for v, x in zip(put, back, strict=True))
    values.update(results)
