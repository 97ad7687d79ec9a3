"""The Metal kernels: one specialization each, and the source text that instantiates them."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from pathlib import Path

from .._core.descriptor import FROM_Y, NeuronType
from .._core.signature import Signature

__all__ = ["DTYPES", "SUM_NAME", "Kernel", "read", "source"]

# The element types by NumPy's name, with Metal's name.
DTYPES = {"float32": "float", "float16": "half", "bfloat16": "bfloat"}

_FLAGS = ("bias", "bias_gradient", "slope_gradient", "from_y")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One specialization of the kernels in ``neuron_gradient.metal``.

    `buffers` names its buffers in the order of their indices. A buffer that the specialization does not use
    stays unbound.

    Args:
      type: the neuron type.
      dtype: "float32", "float16" or "bfloat16" (Metal 3.1): the dtype of gradient, x, y and data. All other
        buffers are float32.
      forward: whether this is the forward kernel; otherwise it is the gradient kernel.
      bias: whether the kernel reads a bias.
      bias_gradient: whether the gradient kernel computes the bias gradient.
      slope_gradient: whether the gradient kernel computes the gradient of PReLU's slopes.
      from_y: whether the gradient kernel reads y in place of x. SIGMOID, TANH and EXPONENTIAL support it.

    Raises:
      ValueError: there is no such kernel.

    Example:
      >>> kernel = Kernel(NeuronType.GELU, "float16", bias=True, bias_gradient=True)
      >>> kernel.name
      'neuron_gradient_gelu_half_bias_bias_gradient'
      >>> kernel.buffers[:4]
      ('gradient', 'x', 'scalars', 'bias')
    """

    type: NeuronType
    dtype: str = "float32"
    forward: bool = False
    bias: bool = False
    bias_gradient: bool = False
    slope_gradient: bool = False
    from_y: bool = False

    @classmethod
    def of(cls, signature: Signature, dtype: str) -> Kernel:
        """The kernel that runs a call on an x of that dtype."""
        flags = {name: getattr(signature, name) for name in ("forward", *_FLAGS)}
        return cls(signature.neuron_type, dtype, **flags)

    def __post_init__(self) -> None:
        if not isinstance(self.type, NeuronType):
            raise ValueError(f"type must be a NeuronType, got {self.type!r}")
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {self.dtype!r}")
        for name in ("bias_gradient", "slope_gradient", "from_y"):
            if self.forward and getattr(self, name):
                raise ValueError(f"{name} must be False for a forward kernel, got True")
        if self.bias_gradient and not self.bias:
            raise ValueError("bias_gradient must be False without a bias, got True")
        if self.slope_gradient and self.type is not NeuronType.PRELU:
            raise ValueError(f"slope_gradient must be False for {self.type.name}, got True")
        if self.from_y and self.type not in FROM_Y:
            types = ", ".join(neuron_type.name for neuron_type in FROM_Y)
            raise ValueError(f"from_y must be False for {self.type.name}, got True. It works with {types}.")

    @property
    def by_column(self) -> bool:
        """Whether the kernel treats columns differently. If not, it takes the arrays as flat."""
        return self.bias or self.type is NeuronType.PRELU

    @property
    def buffers(self) -> tuple[str, ...]:
        """The names of the buffers in the order of their indices. "launch" is the constant buffer."""
        operands = ("x", "scalars", "bias", "slope")
        if self.forward:
            return *operands, "y", "launch"
        return "gradient", *operands, "data", "bias_gradient", "slope_gradient", "launch"

    @property
    def name(self) -> str:
        """The kernel's host name."""
        direction = "forward" if self.forward else "gradient"
        flags = [name for name in _FLAGS if getattr(self, name)]
        return "_".join(["neuron", direction, self.type.name.lower(), DTYPES[self.dtype], *flags])

    @property
    def instantiation(self) -> str:
        """The line of source that instantiates the kernel."""
        operation = "".join(part.capitalize() for part in self.type.name.split("_"))
        operation += "OfValue" if self.from_y else ""
        flags = [self.bias] if self.forward else [self.bias, self.bias_gradient, self.slope_gradient]
        arguments = [f"neuron::{operation}", DTYPES[self.dtype], *(str(flag).lower() for flag in flags)]
        function = f"neuron::{'forward' if self.forward else 'gradient'}<{', '.join(arguments)}>"
        return f"INSTANTIATE({len(self.buffers)}, {self.name}, {function})\n"


# The kernel that adds the partial sums. Its buffers are the partial sums, the sums and the constants.
SUM_NAME = "neuron_add_strips"
_SUM_INSTANTIATION = f"INSTANTIATE(3, {SUM_NAME}, neuron::add_strips<float>)\n"


def source(*kernels: Kernel) -> str:
    """The self-contained Metal source of kernels, and of the kernel that adds their partial sums.

    Compile it with fast math off: NaN, infinities and the comparisons at a kink need exact arithmetic.

    Args:
      *kernels: the kernels to instantiate.

    Returns:
      Metal 2.4 source, or Metal 3.1 if a kernel is of dtype "bfloat16".

    Raises:
      TypeError: an argument is not a `Kernel`.

    Example:
      >>> text = source(Kernel(NeuronType.GELU))
      >>> "neuron_gradient_gelu_float" in text
      True
    """
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel must be a jax_mps_neuron.metal.Kernel, got {kernel!r}")
    text = read("neuron_gradient.metal")
    for name in ("neuron_math.h", "neuron_four.h"):
        text = text.replace(f'#include "{name}"\n', read(name))
    lines = "".join(kernel.instantiation for kernel in dict.fromkeys(kernels))
    return text + "\n" + lines + _SUM_INSTANTIATION


@cache
def read(name: str) -> str:
    """The text of a file of the kernels.

    Raises:
      FileNotFoundError: the package was installed without its kernels.
    """
    # The kernels are in the package when it is installed, and next to it in a source tree.
    folders = [Path(folder) for folder in sys.modules["jax_mps_neuron"].__path__]
    for folder in [f / "kernels" for f in folders] + [f.parent / "kernels" for f in folders]:
        if (folder / name).exists():
            return (folder / name).read_text()
    raise FileNotFoundError(f"{name} is missing from the kernels of {[str(f) for f in folders]}")
