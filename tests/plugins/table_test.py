"""The PJRT tables of plugins that are half there."""

from __future__ import annotations

import argparse
import ctypes
import warnings

import pytest

from jax_mps_neuron import metal
from jax_mps_neuron._core.signature import NEURON, NEURON_GRADIENT
from jax_mps_neuron._lowering.routes import route
from jax_mps_neuron._plugins import table as pjrt
from jax_mps_neuron._plugins import targets as plugin
from jax_mps_neuron._tools import doctor

HANDLERS = {NEURON: 11, NEURON_GRADIENT: 12}
LAYOUTS, FFI = 4, 5


class Table:
    """A plugin's table, as a plugin lays it out: words of 8 bytes.

    Args:
      version: of the PJRT C API.
      extensions: (type, size in bytes) of each.
      size: of the table.
      registers: whether the FFI extension has the function.
      error: what it answers; None for success.
    """

    def __init__(
        self, version=(0, 81), extensions=((LAYOUTS, 72), (FFI, 48)), size=984, registers=True, error=None
    ):
        self.registered, self.destroyed, self._error = [], [], (error or "").encode()
        self._register = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(self._on_register)
        self._message = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._on_message)
        self._destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._on_destroy)
        following, self._nodes = 0, []
        for type_, extension_size in reversed(extensions):
            register = self._address(self._register) if registers and extension_size >= 48 else 0
            node = (ctypes.c_uint64 * 6)(extension_size, type_, following, 0, 0, register)
            self._nodes.append(node)
            following = ctypes.addressof(node)
        major, minor = version
        functions = self._address(self._destroy), self._address(self._message)
        self._table = (ctypes.c_uint64 * 7)(size, following, 24, 0, major | minor << 32, *functions)
        self.address = ctypes.addressof(self._table)

    @staticmethod
    def _address(function):
        return ctypes.cast(function, ctypes.c_void_p).value

    def _on_register(self, arguments):
        size, target, target_size, handler, platform, platform_size = (ctypes.c_uint64 * 6).from_address(
            arguments
        )
        assert size == 52
        name, where = ctypes.string_at(target, target_size), ctypes.string_at(platform, platform_size)
        self.registered.append((name.decode(), handler, where.decode()))
        return 77 if self._error else None

    def _on_message(self, arguments):
        words = (ctypes.c_uint64 * 5).from_address(arguments)
        assert words[2] == 77
        words[3] = self._address(ctypes.c_char_p(self._error))
        words[4] = len(self._error)

    def _on_destroy(self, arguments):
        self.destroyed.append((ctypes.c_uint64 * 3).from_address(arguments)[2])


HALF_THERE = {
    "a table too small": (
        Table(size=32),
        "the plugin's PJRT table must have at least 56 bytes, got 32",
    ),
    "an old API": (
        Table(version=(0, 52)),
        "the plugin's PJRT C API must be version 0.53 or a later 0.x, got 0.52",
    ),
    "another major version": (
        Table(version=(1, 90)),
        "the plugin's PJRT C API must be version 0.53 or a later 0.x, got 1.90",
    ),
    "no extension": (Table(extensions=()), "the plugin has no FFI extension"),
    "other extensions": (Table(extensions=((LAYOUTS, 72), (6, 40))), "the plugin has no FFI extension"),
    "missing fields": (
        Table(extensions=((FFI, 40),)),
        "the plugin's FFI extension must have at least 48 bytes to register handlers, got 40",
    ),
    "no function": (
        Table(registers=False),
        "the plugin's FFI extension has no function that registers handlers",
    ),
    "an error": (
        Table(error="it is Sunday"),
        "the plugin refused the handler of jax_mps_neuron.neuron: it is Sunday",
    ),
}


@pytest.fixture
def use(monkeypatch):
    """Makes a table that of the METAL plugin."""

    def use(table):
        monkeypatch.setattr(plugin, "has_plugin", lambda platform: platform == "METAL")
        monkeypatch.setattr(plugin, "plugin_table", lambda platform: table.address)
        monkeypatch.setattr(plugin, "_outcomes", {})
        monkeypatch.setattr(plugin, "_untried", set())

    return use


@pytest.mark.parametrize("name", HALF_THERE)
def test_half_there(name, use):
    """One warning, the inline route, and the same words wherever one asks."""
    table, reason = HALF_THERE[name]
    use(table)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metal.register_targets("METAL", HANDLERS)
        taken, why = route("METAL")
    (warning,) = caught
    assert taken == "inline"
    assert why.startswith(reason)
    assert str(warning.message).endswith(why)
    assert warning.filename == __file__
    assert why in plugin.describe("METAL")
    assert plugin.refusal("METAL") == why


@pytest.mark.parametrize("name", [name for name in HALF_THERE if name != "an error"])
def test_what_is_missing_is_known_before_anybody_registers(name, use):
    table, reason = HALF_THERE[name]
    use(table)
    assert route("METAL")[1].startswith(reason)


@pytest.mark.parametrize("name", ["an old API", "missing fields", "an error"])
def test_doctor_has_the_same_line(name, use, monkeypatch, capsys):
    table, reason = HALF_THERE[name]
    use(table)
    monkeypatch.setattr(doctor, "has_plugin", lambda platform: platform == "METAL")
    monkeypatch.setattr(doctor, "_self_test", lambda kind: "")  # which compiles for long
    with pytest.warns(UserWarning, match="'auto' stays inline"):
        metal.register_targets("METAL", HANDLERS)
    assert doctor.run(argparse.Namespace(verbose=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    (taken,) = (line for line in lines if line.startswith("METAL  "))
    assert taken.split(maxsplit=2)[1:] == ["inline", plugin.unavailable_reason("METAL")]
    (found,) = (line for line in lines if line.startswith("METAL plugin: "))
    for line in (taken, found):
        assert reason in line


def test_an_error_is_destroyed():
    table = Table(error="no")
    with pytest.raises(pjrt.TableError, match="the plugin refused the handler of t: no"):
        pjrt.register_handler(table.address, "t", 1, "Host")
    assert table.destroyed == [77]


def test_registration(use, monkeypatch):
    """Both targets, under the platform's name or another; tried once before a program takes them."""
    tried = []
    monkeypatch.setattr(plugin, "_compile_error", lambda platform: tried.append(platform) or "")
    for name in (None, "Host"):
        table = Table()
        use(table)
        metal.register_targets("METAL", HANDLERS, ffi_platform=name)
        where = name or "METAL"
        assert table.registered == [(NEURON, 11, where), (NEURON_GRADIENT, 12, where)]
        for _ in range(2):
            assert route("METAL") == ("custom_call", "handlers of the neuron kernels are registered there")
    assert tried == ["METAL", "METAL"]


def test_a_capsule_is_a_handler(use, monkeypatch):
    from jax_mps_neuron._compat.ffi import ffi

    monkeypatch.setattr(plugin, "_compile_error", lambda platform: "")
    table = Table()
    use(table)
    function = ctypes.CFUNCTYPE(None)(lambda: None)
    metal.register_targets("METAL", {NEURON: ffi.pycapsule(function), NEURON_GRADIENT: 12})
    assert table.registered[0][1] == ctypes.cast(function, ctypes.c_void_p).value
