"""A module `Metal` with the selectors of PyObjC's that the package uses, whose GPU is the host.

A library's source is compiled by the host's compiler, unmodified, and a dispatch runs its threads as
../metal_host/ does. What Metal forbids, or leaves to the caller, is an AssertionError here: objects made
outside of an autorelease pool, an encoder that is not ended, fast math left on, constants over 4 kB,
no-copy memory that is no whole pages or is gone before the GPU reads it. A kernel gets its arguments by
the indices in its source. New memory is full of NaN, and nothing may be written beside it.

`faults` makes the next call of that name fail: {"newLibrary": "its log", "execution": "its error", ...}.
`counts` counts what the GPU was asked to do.
"""

import collections
import ctypes
import hashlib
import mmap
import os
import re
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np
import objc

from support.metal_host import build

# Their values in Metal's headers.
MTLResourceStorageModeShared = 0
MTLMathModeSafe = 0
MTLLanguageVersion2_4 = 0x20004
MTLLanguageVersion3_1 = 0x30001
MTLCommandBufferStatusCompleted = 4
MTLCommandBufferStatusError = 5
MTLSize = collections.namedtuple("MTLSize", "width height depth")

faults: dict[str, str] = {}
counts: collections.Counter = collections.Counter()
_launching = threading.Lock()
_libraries: dict[str, ctypes.CDLL] = {}


def MTLSizeMake(width, height, depth):  # noqa: N802
    return MTLSize(width, height, depth)


def MTLCreateSystemDefaultDevice():  # noqa: N802
    return None if faults.pop("device", None) else _Device()


class _Error:
    def __init__(self, text):
        self.text = text

    def localizedDescription(self):  # noqa: N802
        return self.text


class MTLCompileOptions:
    @classmethod
    def alloc(cls):
        return cls()

    def init(self):
        self.exact = self.version = None
        return self

    def respondsToSelector_(self, selector):  # noqa: N802
        return selector == "setMathMode:" and "before macOS 15" not in faults

    def setFastMathEnabled_(self, enabled):  # noqa: N802
        self.exact = not enabled

    def setMathMode_(self, mode):  # noqa: N802
        self.exact = mode == MTLMathModeSafe

    def setLanguageVersion_(self, version):  # noqa: N802
        self.version = version


class _Device:
    def name(self):
        return "a host that runs Metal source"

    def maxBufferLength(self):  # noqa: N802
        return 2**34

    def newCommandQueue(self):  # noqa: N802
        return None if faults.pop("newCommandQueue", None) else _Queue()

    def newLibraryWithSource_options_error_(self, source, options, error):  # noqa: N802
        assert error is None
        assert options.exact, "fast math is on"
        assert "bfloat" not in re.findall(r"^INSTANTIATE.*", source, re.M)[0] or (
            options.version == MTLLanguageVersion3_1
        )
        counts["libraries"] += 1
        if "newLibrary" in faults:
            return None, _Error(faults.pop("newLibrary"))
        try:
            return _Library(_compiled(source), source), None
        except RuntimeError as failure:
            log = re.sub(r"\S+\.metal:(?=\d+:)", "program_source:", str(failure))
            return None, _Error(f"program_source compilation failed: \n{log}")

    def newComputePipelineStateWithFunction_error_(self, function, error):  # noqa: N802
        assert error is None
        if "newPipeline" in faults:
            return None, _Error(faults.pop("newPipeline"))
        return _Pipeline(function), None

    def newBufferWithLength_options_(self, length, options):  # noqa: N802
        assert length > 0
        assert options == MTLResourceStorageModeShared
        if "newBuffer" in faults:
            left = int(faults.pop("newBuffer"))  # how many go well before
            if left == 0:
                return None
            faults["newBuffer"] = str(left - 1)
        return _Buffer(length)

    def newBufferWithBytes_length_options_(self, source, length, options):  # noqa: N802
        assert options == MTLResourceStorageModeShared
        counts["copies"] += 1
        buffer = _Buffer(length)
        buffer.bytes[:] = np.frombuffer(source, np.uint8, length)
        return buffer

    def newBufferWithBytesNoCopy_length_options_deallocator_(self, source, length, options, deallocator):  # noqa: N802
        assert options == MTLResourceStorageModeShared
        assert deallocator is None
        view = np.frombuffer(source, np.uint8, length)
        assert view.ctypes.data % mmap.PAGESIZE == 0
        assert length % mmap.PAGESIZE == 0
        if faults.pop("noCopy", None):
            return None
        return _Buffer(length, source)


class _Buffer:
    """Its bytes are pages of NaN between guards, unless they are another's, whom it does not keep alive."""

    def __init__(self, length, source=None):
        self.guards = ()
        if source is not None:
            self.owner = weakref.ref(source if source.base is None else _owner(source))
            memory = (ctypes.c_uint8 * length).from_address(source.ctypes.data)
            view = np.frombuffer(memory, np.uint8)
        else:
            self.owner = None
            inside = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
            pages = np.frombuffer(mmap.mmap(-1, inside + 2 * mmap.PAGESIZE), np.uint8)
            pages[:] = 0xA5
            self.guards = (pages[: mmap.PAGESIZE], pages[mmap.PAGESIZE + length :])
            view = pages[mmap.PAGESIZE : mmap.PAGESIZE + length]
            view[:] = 0xFF
        self.bytes = view

    def contents(self):
        return self

    def as_buffer(self, length):
        assert length <= self.bytes.nbytes
        return memoryview(self.bytes)[:length]


def _owner(array):
    """The array whose memory another is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class _Library:
    def __init__(self, library, source):
        self.library = library
        kernels = re.findall(r"^void (\w+)\((.*?)\) {", source, re.MULTILINE | re.DOTALL)
        self.indices = {
            name: [int(index) for index in re.findall(r"\[\[buffer\((\d+)\)\]\]", parameters)]
            for name, parameters in kernels
        }

    def newFunctionWithName_(self, name):  # noqa: N802
        if faults.pop("newFunction", None):
            return None
        (template,) = (template for template in self.indices if name.startswith(f"neuron_{template}"))
        return getattr(self.library, name), self.indices[template], self.library


class _Pipeline:
    def __init__(self, function):
        self.function, self.indices, self.library = function


class _Queue:
    def commandBuffer(self):  # noqa: N802
        assert getattr(objc.pools, "depth", 0), "an autoreleased object outside of a pool"
        return _CommandBuffer()


class _CommandBuffer:
    def __init__(self):
        self.encoders, self.state, self.failure = [], 0, None

    def computeCommandEncoder(self):  # noqa: N802
        assert all(e.ended for e in self.encoders)
        self.encoders.append(_Encoder())
        return self.encoders[-1]

    def commit(self):
        assert self.state == 0
        assert all(e.ended for e in self.encoders)
        self.state = 2

    def waitUntilCompleted(self):  # noqa: N802
        assert self.state == 2
        counts["command buffers"] += 1
        self.state = MTLCommandBufferStatusCompleted
        if "execution" in faults:
            self.state, self.failure = MTLCommandBufferStatusError, _Error(faults.pop("execution"))
            return
        for encoder in self.encoders:
            for run in encoder.work:
                run()

    def status(self):
        return self.state

    def error(self):
        return self.failure


class _Encoder:
    def __init__(self):
        self.work, self.bound, self.pipeline, self.ended = [], {}, None, False

    def setComputePipelineState_(self, pipeline):  # noqa: N802
        self.pipeline = pipeline

    def setBuffer_offset_atIndex_(self, buffer, offset, index):  # noqa: N802
        assert isinstance(buffer, _Buffer)
        assert offset == 0
        self.bound[index] = buffer

    def setBytes_length_atIndex_(self, data, length, index):  # noqa: N802
        assert length <= 4096
        assert len(data) >= length
        constants = _Buffer(length)
        constants.bytes[:] = np.frombuffer(data, np.uint8, length)
        self.bound[index] = constants

    def dispatchThreadgroups_threadsPerThreadgroup_(self, groups, threads):  # noqa: N802
        assert isinstance(groups, MTLSize)
        assert isinstance(threads, MTLSize)
        assert threads.width * threads.height * threads.depth <= 1024
        pipeline, bound = self.pipeline, dict(self.bound)
        self.work.append(lambda: _run(pipeline, bound, groups, threads))

    def endEncoding(self):  # noqa: N802
        self.ended = True

    def __del__(self):
        counts["encoders not ended"] += not self.ended  # which ends the process on a Mac


def _run(pipeline, bound, groups, threads):
    counts["dispatches"] += 1
    for index, buffer in bound.items():
        assert buffer.owner is None or buffer.owner() is not None, f"the memory of buffer {index} is gone"
    addresses = [bound[i].bytes.ctypes.data if i in bound else None for i in pipeline.indices]
    pointers = (ctypes.c_void_p * len(addresses))(*addresses)
    to_c = lambda size: (ctypes.c_uint32 * 3)(*size)  # noqa: E731
    with _launching:
        failed = pipeline.library.shim_launch(
            pipeline.function, pointers, to_c(groups), to_c(threads), ctypes.c_uint64(0)
        )
    assert not failed, "not all threads of a threadgroup reached a barrier"
    for index, buffer in bound.items():
        assert all((guard == 0xA5).all() for guard in buffer.guards), f"written beside buffer {index}"


def _compiled(source):
    """The library of a source, compiled once in a process; JMN_FAKE_METAL_CACHE keeps it for others."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    with _launching:
        if digest not in _libraries:
            # A loaded library needs its file no more.
            with tempfile.TemporaryDirectory(prefix="fake-metal-") as temporary:
                folder = Path(os.environ.get("JMN_FAKE_METAL_CACHE") or temporary)
                _libraries[digest] = build.compile_kernels(source, folder, "fake")
        return _libraries[digest]
