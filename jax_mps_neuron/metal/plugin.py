"""Metal plugins: what each can do, and the registration of the custom calls on one that can run them.

A plugin runs them if somebody registers handlers that can work with its device memory and its stream. The
package has none for the plugins of today, which keep their streams to themselves or take no custom call of
others; `register_targets` is where who writes such handlers hands them in.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.extend.backend
import numpy as np

from .._compat import capsule_pointer, has_plugin, plugin_table
from ..descriptor import Neuron
from ..native import NEURON, NEURON_GRADIENT
from . import pjrt

__all__ = ["PLUGINS", "Plugin", "describe", "is_metal", "obstacle", "problem", "register_targets"]


class Plugin(NamedTuple):
    """A Metal plugin as published.

    Attributes:
      packages: the Python packages that bring it.
      refuses: why it runs no custom call of others, whoever registers one; empty if it may.
      callbacks: whether `jax.pure_callback` works under jit.
    """

    packages: tuple[str, ...]
    refuses: str
    callbacks: bool


# By the platform's name in JAX, as of 2026-11.
PLUGINS = {
    "METAL": Plugin(("jax-metal",), "legalizes no custom call of others", False),
    "mtl": Plugin(("jax-graft", "metal-pjrt-core"), "", True),
    "metal": Plugin(("metaljax",), "runs no custom call of others", True),
    "mps": Plugin(("jax-mps", "jax-metallib"), "runs a fixed set of custom calls, its own", False),
    "iree_metal": Plugin(("iree-pjrt-plugin-metal-iree-metal",), "runs no custom call of others", False),
}
_NAMES = {name.lower() for name in PLUGINS}

# Of each platform on which handlers were registered: why they are not in force, empty if they are.
_outcomes: dict[str, str] = {}
_untried: set[str] = set()


def is_metal(platform: str) -> bool:
    """Whether a platform is that of a Metal plugin."""
    return platform.lower() in _NAMES


def problem(platform: str) -> str:
    """Why the custom calls do not run on a platform; empty if they do."""
    if platform in _untried:
        _untried.remove(platform)
        if error := _compile_error(platform):
            _fail(platform, f"a program with them does not compile: {error}")
    if platform in _outcomes:
        return _outcomes[platform]
    if not is_metal(platform):
        return "no kernel is registered there"
    return obstacle(platform) or "no handlers of the neuron kernels are registered there"


def obstacle(platform: str) -> str:
    """What is known to keep a plugin from running the custom calls; empty if nothing is.

    A plugin that is here tells by its table. Else it is what is known of it.
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
    """The plugin of a Metal platform that is here, its version and what it can do, in a line."""
    known = PLUGINS.get(platform, Plugin((), "", False))
    packages = [f"{name} {version}" for name in known.packages if (version := _version(name))]
    parts = [" and ".join(packages) or "from a package that is not known"]
    table = plugin_table(platform)
    try:
        if table is not None:
            parts.append("PJRT C API {}.{}".format(*pjrt.version(table)))
    except pjrt.TableError:
        pass  # the obstacle tells
    parts.append(obstacle(platform) or "has the FFI extension, through which handlers are registered")
    parts.append("host callbacks work" if known.callbacks else "no host callbacks")
    return "; ".join(parts)


def register_targets(
    platform: str, handlers: Mapping[str, Any], *, ffi_platform: str | None = None
) -> None:
    """Registers handlers of the neuron kernels on a plugin. For authors of plugins and of handlers.

    From then on ``lowering="auto"`` takes the custom call on that platform; what was compiled before is
    forgotten. To be called in every process, once the plugin is registered with JAX, before anything
    runs: a program that was exported or cached is not lowered again.

    If the plugin cannot take the handlers, or does not compile a program with them, a warning says why and
    ``lowering="auto"`` stays inline.

    Args:
      platform: JAX's name of the plugin's platform.
      handlers: an XLA_FFI_Handler* for each of ``"jax_mps_neuron.neuron"`` and
        ``"jax_mps_neuron.neuron_gradient"``, as an address or as a capsule (``jax.ffi.pycapsule``), good
        until the process ends. The page on the Metal kernels says what they are given, under "A plugin that
        runs the kernels".
      ffi_platform: the name under which the plugin looks handlers up, where that is not `platform`.

    Raises:
      ValueError: JAX has no plugin of that platform, handlers are registered on it already, or they are
        not of these targets.
      TypeError: a handler is neither an address nor a capsule.
    """
    # A plugin may call this while JAX is starting its plugins, so they are started only if need be.
    if not has_plugin(platform):
        jax.extend.backend.backends()
    if platform == "cpu" or not has_plugin(platform):
        raise ValueError(f"platform is {platform!r}; it may be that of a plugin registered with JAX")
    if _outcomes.get(platform) == "":
        raise ValueError(f"platform is {platform!r}, where handlers are registered already")
    if set(handlers) != {NEURON, NEURON_GRADIENT}:
        raise ValueError(f"handlers has {sorted(handlers)}; it may have {[NEURON, NEURON_GRADIENT]}")
    addresses = {target: _address(target, handler) for target, handler in handlers.items()}
    try:
        table = plugin_table(platform)
        if table is None:
            raise pjrt.TableError(f"JAX {jax.__version__} does not tell where the plugin's table is")
        for target, address in addresses.items():
            pjrt.register_handler(table, target, address, ffi_platform or platform)
    except pjrt.TableError as error:
        _fail(platform, str(error))
        return
    _outcomes[platform] = ""
    # Tried when a program is first lowered: now JAX may still be starting the plugin.
    _untried.add(platform)
    jax.clear_caches()


def _fail(platform: str, reason: str) -> None:
    _outcomes[platform] = reason
    warnings.warn(
        f"the neuron kernels are not registered on {platform}, where 'auto' stays inline: {reason}",
        stacklevel=3,
    )


def _compile_error(platform: str) -> str:
    """Why a program with the custom calls does not compile there; empty if it does.

    XLA's own plugins answer that all is well also when they refuse a handler built for a newer FFI API.
    """
    from ..activation import neuron  # whose lowering asks this module

    def both_calls(x):
        return jax.value_and_grad(lambda x: neuron(x, Neuron.none(), lowering="custom_call").sum())(x)

    try:
        device = jax.sharding.SingleDeviceSharding(jax.devices(platform)[0])
        x = jax.ShapeDtypeStruct((1, 1), np.float32, sharding=device)
        jax.jit(both_calls).lower(x).compile()
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
    raise TypeError(f"handlers[{target!r}] is {handler!r}; it may be an address or a capsule")
