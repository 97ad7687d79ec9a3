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

# For each platform on which handlers were registered: why they are not in force, empty if they are.
_outcomes: dict[str, str] = {}
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
    """Why a plugin cannot run the custom calls, from its table or as published; empty if it may."""
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
    """One line about an installed Metal plugin: its packages, their versions, and what it can do."""
    known = PLUGINS.get(platform, Plugin((), "", False))
    packages = [f"{name} {version}" for name in known.packages if (version := _version(name))]
    parts = [" and ".join(packages) or "from an unknown package"]
    table = plugin_table(platform)
    try:
        if table is not None:
            parts.append("PJRT C API {}.{}".format(*pjrt.version(table)))
    except pjrt.TableError:
        pass  # the refusal below says so
    parts.append(refusal(platform) or "has the FFI extension, through which handlers are registered")
    parts.append("host callbacks work" if known.callbacks else "no host callbacks")
    return "; ".join(parts)


def register_targets(
    platform: str, handlers: Mapping[str, Any], *, ffi_platform: str | None = None
) -> None:
    """Registers handlers of the neuron kernels on a plugin, for authors of plugins and handlers.

    From then on ``lowering="auto"`` takes the custom call on that platform, and JAX forgets what it
    compiled before. Call this in every process, after the plugin is registered with JAX and before anything
    runs: an exported or cached program is not lowered again.

    If the plugin refuses the handlers, or does not compile a program with them, a warning says why and
    ``lowering="auto"`` stays inline.

    Args:
      platform: JAX's name of the plugin's platform.
      handlers: an XLA_FFI_Handler* for each of ``"jax_mps_neuron.neuron"`` and
        ``"jax_mps_neuron.neuron_gradient"``, as an address or a capsule (``jax.ffi.pycapsule``), valid
        until the process ends. The page on the Metal kernels describes their operands and attributes, under
        "A plugin that runs the kernels".
      ffi_platform: the platform name under which the plugin looks handlers up, if it is not `platform`.

    Raises:
      ValueError: JAX has no plugin of that platform, handlers are registered on it already, or the targets
        are not these two.
      TypeError: a handler is neither an address nor a capsule.

    Example:
      >>> handlers = {"jax_mps_neuron.neuron": f, "jax_mps_neuron.neuron_gradient": g}
      >>> register_targets("mtl", handlers)
    """
    # A plugin may call this while JAX starts its plugins, so JAX starts them only if the plugin is missing.
    if not has_plugin(platform):
        jax.extend.backend.backends()
    if platform == "cpu" or not has_plugin(platform):
        raise ValueError(f"platform must be that of a plugin registered with JAX, got {platform!r}")
    if _outcomes.get(platform) == "":
        raise ValueError(f"platform must have no registered handlers yet, got {platform!r}")
    if set(handlers) != {NEURON, NEURON_GRADIENT}:
        raise ValueError(f"handlers must have the keys {[NEURON, NEURON_GRADIENT]}, got {sorted(handlers)}")
    addresses = {target: _address(target, handler) for target, handler in handlers.items()}
    try:
        table = plugin_table(platform)
        if table is None:
            raise pjrt.TableError(f"JAX {jax.__version__} does not give access to the plugin's table")
        for target, address in addresses.items():
            pjrt.register_handler(table, target, address, ffi_platform or platform)
    except pjrt.TableError as error:
        _fail(platform, str(error))
        return
    _outcomes[platform] = ""
    # The first lowering tries them. Now, JAX may still be starting the plugin.
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
