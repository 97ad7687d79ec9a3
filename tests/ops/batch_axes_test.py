"""Operands shared along some of several batch axes: the custom call against plain jax.numpy."""

from __future__ import annotations

from itertools import product

import jax
import numpy as np
import pytest

from jax_mps_neuron import NeuronType
from jax_mps_neuron._core.evaluation import evaluate
from jax_mps_neuron._core.signature import Operands, Signature
from jax_mps_neuron._ops.primitives import bind
from support.arrays import assert_close, draw

BATCH, ROWS, CHANNELS = (2, 3), 4, 5
TAILS = Operands((ROWS, CHANNELS), (ROWS, CHANNELS), (4,), (CHANNELS,), (CHANNELS,))
# The operand has the axis, or size 1 along it.
PATTERNS = list(product((True, False), repeat=2))


def cases(signature):
    """Each operand shared along each choice of axes, the others along all, none, or small ones alone."""
    arrays = ("gradient", "x")
    for name in signature.operand_names:
        for pattern, others in product(PATTERNS, ((), signature.operand_names, arrays)):
            has = {n: (n in others, n in others) for n in signature.operand_names}
            own = has | {name: pattern}
            yield [
                draw(
                    i,
                    [s if has else 1 for s, has in zip(BATCH, own[n], strict=True)] + [*getattr(TAILS, n)],
                )
                for i, n in enumerate(signature.operand_names)
            ]


SIGNATURES = [
    Signature(NeuronType.PRELU, forward=True, batch_axes=2),
    Signature(NeuronType.PRELU, forward=True, bias=True, batch_axes=2),
    Signature(NeuronType.PRELU, batch_axes=2),
    Signature(NeuronType.GELU, bias=True, batch_axes=2),
    Signature(NeuronType.PRELU, bias=True, bias_gradient=True, slope_gradient=True, batch_axes=2),
    Signature(NeuronType.TANH, bias=True, from_y=True, bias_gradient=True, batch_axes=2),
]


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_shared_along_some_axes(signature, native_library):
    every = list(cases(signature))

    @jax.jit
    def both(every):
        return [
            (
                bind(signature, signature.named(operands), lowering="custom_call"),
                evaluate(signature, *operands),
            )
            for operands in every
        ]

    for actual, expected in both(every):
        for got, want in zip(actual, expected, strict=True):
            assert_close(got, np.float64(want), factor=8)
