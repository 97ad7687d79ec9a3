"""Compiles the Metal source with nvcc and launches its kernels on an NVIDIA GPU, through CUDA's driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np

from support.metal_host import build

HERE = Path(__file__).parent

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def compile_kernels(text: str, folder: Path, name: str, arch: str = "sm_90") -> Path:
    """The cubin of an assembled Metal source."""
    unit, cubin = folder / f"{name}.metal", folder / f"{name}.cubin"
    unit.write_text(text)
    command = [NVCC, "-x", "cu", "-std=c++17", "-O3", f"-arch={arch}", "-cubin", f"-I{HERE}"]
    command += [str(unit), "-o", str(cubin)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr[:2000])
    return cubin


class Driver:
    """The few calls of CUDA's driver that a launch needs."""

    def __init__(self):
        self.lib = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        name = ctypes.create_string_buffer(100)
        self.call("cuDeviceGetName", name, 100, device)
        self.name = name.value.decode()

    def call(self, function: str, *arguments) -> None:
        status = getattr(self.lib, function)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self.lib.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError(f"{function}: {text.value.decode() if text.value else status}")

    def allocate(self, size: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer

    def upload(self, array: np.ndarray) -> ctypes.c_uint64:
        pointer = self.allocate(array.nbytes)
        self.call(
            "cuMemcpyHtoD_v2", pointer, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
        )
        return pointer

    def download(self, pointer: ctypes.c_uint64, array: np.ndarray) -> None:
        self.call(
            "cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), pointer, ctypes.c_size_t(array.nbytes)
        )

    def module(self, cubin: Path) -> ctypes.c_void_p:
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), cubin.read_bytes())
        return module

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def launch(self, function, pointers: list[int], grid, threads) -> None:
        buffers = (ctypes.c_uint64 * 9)(*pointers)
        parameters = (ctypes.c_void_p * 1)(ctypes.cast(buffers, ctypes.c_void_p))
        self.call(
            "cuLaunchKernel", function, *map(int, grid), *map(int, threads), 0, None, parameters, None
        )

    def synchronize(self) -> None:
        self.call("cuCtxSynchronize")


class Gpu(build.Host):
    """Launches the kernels of a cubin on copies of the host's buffers, their guard bytes included."""

    def __init__(self, driver: Driver, cubin: Path):
        self.driver, self.module = driver, driver.module(cubin)

    def launch(self, name, buffers, grid, threads, order) -> None:
        memory = [None if b is None else self.driver.upload(b.memory) for b in buffers]
        pointers = [0 if m is None else m.value + build.GUARD for m in memory]
        self.driver.launch(self.driver.function(self.module, name), pointers, grid, threads)
        self.driver.synchronize()
        for pointer, buffer in zip(memory, buffers, strict=True):
            if pointer is not None:
                self.driver.download(pointer, buffer.memory)
                self.driver.call("cuMemFree_v2", pointer)
        build.check_guards(buffers)
