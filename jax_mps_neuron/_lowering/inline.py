"""The inline route: a call as XLA operations, in forms that XLA compiles to fast kernels."""

from __future__ import annotations

from jax import Array, lax

from .._core.descriptor import NeuronType
from .._core.evaluation import evaluate, gradient_terms, results_of
from .._core.signature import Signature

__all__ = ["expand"]

# The types whose f' takes a GPU about as long as reading 16-bit arrays.
_COSTLY = frozenset(
    (
        NeuronType.SIGMOID,
        NeuronType.TANH,
        NeuronType.SOFTPLUS,
        NeuronType.ELU,
        NeuronType.POWER,
        NeuronType.EXPONENTIAL,
        NeuronType.GELU,
    )
)
# The types whose f' is the same everywhere.
_CONSTANT = frozenset((NeuronType.NONE, NeuronType.LINEAR))


def expand(signature: Signature, *operands: Array, for_gpu: bool) -> list[Array]:
    """The results of a call; for_gpu chooses the form from which XLA makes a fast GPU kernel."""
    if signature.forward or not for_gpu:
        return evaluate(signature, *operands)
    named = signature.named(operands)
    # With 16 bits an element, the same arithmetic has to fit in the time of half the bytes.
    coarse = named.x.dtype.itemsize == 2
    twice = len(signature.result_names) > 1 and (
        signature.neuron_type in _COSTLY if coarse else signature.neuron_type not in _CONSTANT
    )
    for_data = for_sums = gradient_terms(signature, named, coarse=coarse, gradient_first=twice and coarse)
    if twice:
        # XLA often writes what data and sums share to memory and reads it back. Computed twice, both become
        # one kernel, in which the GPU's compiler finds the common part. Cheap 16-bit types are one kernel
        # anyway, and some take more registers in this form.
        gradient, x = lax.optimization_barrier((named.gradient, named.x))
        apart = named._replace(gradient=gradient, x=x)
        for_sums = gradient_terms(signature, apart, coarse=coarse, gradient_first=coarse)
    return signature.broadcast(results_of(signature, named, for_data, for_sums), operands)
