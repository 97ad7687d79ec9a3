"""Registration of the custom calls' handlers on a Metal plugin.

A plugin runs the custom calls once someone registers handlers that work with its device memory and its
stream. Today's plugins keep their streams private or accept no third-party custom calls, so the package has
no such handlers. `register_targets` is the entry point for authors who write them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from typing import Any

import jax
import jax.extend.backend
import numpy as np

from .._compat.ffi import call_target
from .._compat.plugins import capsule_pointer, has_plugin, plugin_table
from .._core.descriptor import NeuronType
from .._core.signature import NEURON, NEURON_GRADIENT, Signature
from . import table as pjrt
from .known import PLUGINS, Plugin, is_metal

__all__ = ["describe", "refusal", "register_targets", "unavailable_reason"]

# The platforms with an attempt to register handlers: why it failed, or empty if it succeeded.
_outcomes: dict[str, str] = {}
# The platforms whose handlers no program has used yet.
_untried: set[str] = set()


def unavailable_reason(platform: str) -> str:
    """Why the custom calls do not run on a platform; empty if they do."""
    if platform in _untried:
        _untried.remove(platform)
        if error := _compile_error(platform):
            _fail(platform, f"a program with the custom calls does not compile: {error}")
    if platform in _outcomes:
        return _outcomes[platform]
    if not is_metal(platform):
        return "no kernel is registered there"
    return refusal(platform) or "no handlers of the neuron kernels are registered there"


def refusal(platform: str) -> str:
    """Why a plugin can never run the custom calls; empty if it may.

    Its table says so, or, where JAX does not give access to the table, what is known of the plugin.
    """
    if platform in _outcomes:
        return _outcomes[platform]
    table = plugin_table(platform)
    if table is None:
        known = PLUGINS.get(platform)
        return f"{known.packages[0]} {known.refuses}" if known and known.refuses else ""
    try:
        pjrt.check(table)
    except pjrt.TableError as error:
        return str(error)
    return ""


def describe(platform: str) -> str:
    """One line about an installed Metal plugin: its packages with their versions, and what it can do."""
    known = PLUGINS.get(platform, Plugin((), "", False))
    packages = [f"{name} {version}" for name in known.packages if (version := _version(name))]
    parts = [" and ".join(packages) or "from an unknown package"]
    table = plugin_table(platform)
    try:
        if table is not None:
            parts.append("PJRT C API {}.{}".format(*pjrt.version(table)))
    except pjrt.TableError:
        pass  # the refusal below reports it
    parts.append(refusal(platform) or "has the FFI extension, which registers handlers")
    parts.append("host callbacks work" if known.callbacks else "no host callbacks")
    return "; ".join(parts)


def register_targets(
    platform: str, handlers: Mapping[str, Any], *, ffi_platform: str | None = None
) -> None:
    """Registers handlers of the neuron kernels on a plugin, for authors of plugins and handlers.

    From then on, ``lowering="auto"`` takes the custom call on that platform. JAX's caches of compiled
    programs are cleared. Call this in every process, after JAX has registered the plugin and before a
    program runs: JAX does not lower an exported or cached program again.

    If the plugin refuses the handlers, or a program with them does not compile, a warning gives the reason
    and ``lowering="auto"`` stays inline.

    Args:
      platform: JAX's name for the plugin's platform.
      handlers: an XLA_FFI_Handler* for each of ``"jax_mps_neuron.neuron"`` and
        ``"jax_mps_neuron.neuron_gradient"``, as an address or a capsule (``jax.ffi.pycapsule``), valid
        until the process ends. The page on the Metal kernels describes their operands and attributes, under
        "A plugin that runs the kernels".
      ffi_platform: the platform name under which the plugin looks up handlers, if it is not `platform`.

    Raises:
      ValueError: JAX has no plugin for that platform, the platform already has handlers, or `handlers` has
        other keys.
      TypeError: a handler is neither an address nor a capsule.

    Example:
      >>> handlers = {"jax_mps_neuron.neuron": f, "jax_mps_neuron.neuron_gradient": g}
      >>> register_targets("mtl", handlers)
    """
    # A plugin may call this while JAX initializes its plugins. So this starts JAX only if the plugin is
    # missing.
    if not has_plugin(platform):
        jax.extend.backend.backends()
    if platform == "cpu" or not has_plugin(platform):
        raise ValueError(f"platform must be the platform of a plugin registered with JAX, got {platform!r}")
    if _outcomes.get(platform) == "":
        raise ValueError(f"platform must have no registered handlers yet, got {platform!r}")
    if set(handlers) != {NEURON, NEURON_GRADIENT}:
        raise ValueError(f"handlers must have the keys {[NEURON, NEURON_GRADIENT]}, got {sorted(handlers)}")
    addresses = {target: _address(target, handler) for target, handler in handlers.items()}
    try:
        table = plugin_table(platform)
        if table is None:
            raise pjrt.TableError(f"JAX {jax.__version__} does not give access to the plugin's PJRT table")
        for target, address in addresses.items():
            pjrt.register_handler(table, target, address, ffi_platform or platform)
    except pjrt.TableError as error:
        _fail(platform, str(error))
        return
    _outcomes[platform] = ""
    # The first lowering tries the handlers. At this point JAX may still be initializing the plugin.
    _untried.add(platform)
    jax.clear_caches()


def _fail(platform: str, reason: str) -> None:
    _outcomes[platform] = reason
    warnings.warn(
        f"the neuron kernels are not registered on {platform}, where 'auto' stays inline: {reason}",
        stacklevel=3,
    )


def _compile_error(platform: str) -> str:
    """Why a program with the two targets does not compile there; empty if it does.

    XLA's own plugins report success even when they refuse a handler built for a newer FFI API.
    """
    x, scalars = np.zeros((1, 1), np.float32), np.zeros(4, np.float32)
    try:
        device = jax.sharding.SingleDeviceSharding(jax.devices(platform)[0])
        for forward in (True, False):
            signature = Signature(NeuronType.NONE, forward=forward)
            arrays = [x, scalars] if forward else [x, x, scalars]
            call = partial(call_target, signature.target, [jax.ShapeDtypeStruct((1, 1), np.float32)])
            specs = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device) for a in arrays]
            jax.jit(partial(call, attributes=signature.attributes)).lower(*specs).compile()
    except RuntimeError as error:
        return str(error)
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _address(target: str, handler: Any) -> int:
    if isinstance(handler, int) and handler:
        return handler
    if type(handler).__name__ == "PyCapsule":
        return capsule_pointer(handler)
    raise TypeError(f"handlers[{target!r}] must be an address or a capsule, got {handler!r}")
