"""The kernels compiled by Metal, each once."""

from __future__ import annotations

import re
import threading
from typing import Any

from .bindings import MetalError, bindings, words
from .source import SUM_NAME, Kernel, source

__all__ = ["Pipelines"]


class Pipelines:
    """The pipeline states of an `MTLDevice`. Threads may share them.

    Args:
      device: the `MTLDevice`.
      device_name: its name in error messages.
    """

    def __init__(self, device: Any, device_name: str):
        self._metal, _ = bindings()
        self._device, self._name = device, device_name
        self._compiled: dict[Kernel, dict[str, Any]] = {}
        self._compiling = threading.Lock()

    def of(self, kernel: Kernel) -> dict[str, Any]:
        """The pipeline states of a kernel and of the kernel that adds its partial sums, by host name.

        The caller holds an autorelease pool.

        Raises:
          MetalError: Metal does not compile the kernel. The message contains the compiler's log.
        """
        with self._compiling:
            if kernel not in self._compiled:
                self._compiled[kernel] = self._compile(kernel)
            return self._compiled[kernel]

    def _compile(self, kernel: Kernel) -> dict[str, Any]:
        text = source(kernel)
        library, error = self._device.newLibraryWithSource_options_error_(text, self._options(kernel), None)
        if library is None:
            raise MetalError(f"{kernel.name} does not compile on {self._name}:\n{_log(error, text)}")
        pipelines = {}
        for name in (kernel.name, SUM_NAME):
            function = library.newFunctionWithName_(name)
            if function is None:
                raise MetalError(f"the library of {kernel.name} has no function {name}")
            pipeline, error = self._device.newComputePipelineStateWithFunction_error_(function, None)
            if pipeline is None:
                raise MetalError(f"{self._name} makes no pipeline of {name}: {words(error)}")
            pipelines[name] = pipeline
        return pipelines

    def _options(self, kernel: Kernel) -> Any:
        metal = self._metal
        options = metal.MTLCompileOptions.alloc().init()
        # NaN, infinities and the comparisons at a kink need exact arithmetic. macOS 15 added math modes.
        if options.respondsToSelector_("setMathMode:"):
            options.setMathMode_(metal.MTLMathModeSafe)
        else:
            options.setFastMathEnabled_(False)
        bfloat = kernel.dtype == "bfloat16"
        version = metal.MTLLanguageVersion3_1 if bfloat else metal.MTLLanguageVersion2_4
        options.setLanguageVersion_(version)
        return options


def _log(error: Any, text: str) -> str:
    """The compiler's log, followed by the lines of source that it names."""
    log = words(error)
    lines = text.splitlines()
    named = dict.fromkeys(int(n) for n in re.findall(r"^program_source:(\d+):", log, re.MULTILINE))
    quoted = [f"{n:>5} | {lines[n - 1]}" for n in named if 0 < n <= len(lines)]
    return "\n".join([log.rstrip(), *quoted])
