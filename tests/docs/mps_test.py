"""The tables of docs/mps.md against what Apple's headers declare, our classes, and our tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jax_mps_neuron as jmn

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "mps.md").read_text()

NEURON = """sourceNumberOfFeatureVectors sourceInputFeatureChannels alpha neuronType neuronParameterA
    neuronParameterB neuronParameterC setNeuronType:parameterA:parameterB:parameterC:"""
ORIGINS = "resultMatrixOrigin batchStart batchSize"

# What each header declares; that a class declares again what it inherits (initWithDevice:) is left out.
DECLARED = {
    "MPSMatrixNeuron": f"""{NEURON} setNeuronToPReLUWithParametersA:
        encodeToCommandBuffer:inputMatrix:biasVector:resultMatrix:""",
    "MPSMatrixNeuronGradient": f"""{NEURON} setNeuronToPReLUWithParametersA:
        encodeToCommandBuffer:gradientMatrix:inputMatrix:biasVector:resultGradientForDataMatrix:resultGradientForBiasVector:""",
    "MPSMatrixFullyConnected": f"""{NEURON} sourceOutputFeatureChannels
        encodeToCommandBuffer:inputMatrix:weightMatrix:biasVector:resultMatrix:""",
    "MPSMatrixFullyConnectedGradient": """sourceNumberOfFeatureVectors sourceInputFeatureChannels
        sourceOutputFeatureChannels alpha
        encodeGradientForDataToCommandBuffer:gradientMatrix:weightMatrix:resultGradientForDataMatrix:
        encodeGradientForWeightsAndBiasToCommandBuffer:gradientMatrix:inputMatrix:resultGradientForWeightMatrix:resultGradientForBiasVector:""",
    "MPSMatrixUnaryKernel": f"sourceMatrixOrigin {ORIGINS}",
    "MPSMatrixBinaryKernel": f"primarySourceMatrixOrigin secondarySourceMatrixOrigin {ORIGINS}",
    "MPSKernel": """initWithDevice: copyWithZone:device: initWithCoder: initWithCoder:device: label device
        options""",
    "NSObject, its protocols, and Swift's": """copyWithZone: encodeWithCoder: supportsSecureCoding
        isEqual: hash description debugDescription class superclass self isKindOfClass: isMemberOfClass:
        conformsToProtocol: respondsToSelector: performSelector: performSelector:withObject:
        performSelector:withObject:withObject: isProxy retain release autorelease retainCount zone
        Equatable Hashable CustomStringConvertible CustomDebugStringConvertible CVarArg""",
}

ROOTS = ["MPSKernel", "NSObject, its protocols, and Swift's"]
INHERITED = {
    jmn.MatrixNeuron: ["MPSMatrixNeuron", "MPSMatrixUnaryKernel", *ROOTS],
    jmn.MatrixNeuronGradient: ["MPSMatrixNeuronGradient", "MPSMatrixBinaryKernel", *ROOTS],
    jmn.MatrixFullyConnected: ["MPSMatrixFullyConnected", "MPSMatrixBinaryKernel", *ROOTS],
    jmn.MatrixFullyConnectedGradient: ["MPSMatrixFullyConnectedGradient", "MPSMatrixBinaryKernel", *ROOTS],
}
every_class = pytest.mark.parametrize("kind", INHERITED)


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table."""
    body = PAGE.split(f"\n### {section}\n")[1].split("\n### ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def twins(cell: str) -> list[str]:
    """The members that a cell names: those before any remark."""
    return [] if cell.startswith("none") else names(re.split(r"[;:]|, (?!`)", cell)[0])


@pytest.mark.parametrize("section", DECLARED)
def test_every_member_of_apples_is_in_the_table_once(section):
    listed = [name for row in rows(section) for name in names(row[0])]
    assert sorted(listed) == sorted(DECLARED[section].split())


@every_class
def test_every_twin_exists(kind):
    instance = kind()
    for section in INHERITED[kind]:
        for row in rows(section):
            assert twins(row[1]) or row[1].startswith("none: ")
            for name in twins(row[1]):
                assert hasattr(instance, name), (section, name)


@every_class
def test_every_member_of_ours_is_in_the_table(kind):
    listed = {name for section in INHERITED[kind] for row in rows(section) for name in twins(row[1])}
    members = {name for name in dir(kind()) if not name.startswith("_")}
    assert members == {name for name in listed if not name.startswith("_")}


@pytest.mark.parametrize("section", DECLARED)
def test_every_test_exists(section):
    for row in rows(section):
        if row[1].startswith("none"):
            assert len(row) < 3 or not row[2].strip(" |")
            continue
        (test,) = names(row[2])
        file, function = test.split("::")
        assert f"\ndef {function}(" in (TESTS / file).read_text(), test
