"""The polynomials of `special.py` and of `neuron_math.h`: the same float32 coefficients on both sides."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from jax_mps_neuron._core import special

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
HEADER = ROOT / "kernels" / "neuron_math.h"

# Functions of the header whose body is Horner's scheme, and the coefficients in Python.
POLYNOMIALS = {"log1p_unit": "_LOG1P", "normal_tail": "_NORMAL_TAIL"}

_NUMBER = r"([+-]?) ?(\d+(?:\.\d*)?(?:e[+-]?\d+)?)f"


def body(text: str, function: str) -> str:
    (found,) = re.findall(rf"NEURON_INLINE T {function}\(.*?\) \{{(.*?)\n\}}", text, re.DOTALL)
    return found


def horner(text: str) -> list[np.float32]:
    """The coefficients of `T p = c0; p = p * x + c1; ...`, highest power first."""
    found = re.findall(rf"p = (?:p \* \w+ )?{_NUMBER};", text)
    assert len(found) == text.count(" p = ")
    return [np.float32(sign + digits) for sign, digits in found]


def constants(text: str) -> list[str]:
    """The other numbers of a body."""
    rest = re.sub(rf"p = (?:p \* \w+ )?{_NUMBER};", "", text)
    return sorted({digits for _, digits in re.findall(_NUMBER, rest)})


@pytest.fixture(scope="module")
def header():
    if not HEADER.exists():
        pytest.skip("the kernels' sources are not beside the tests")
    return HEADER.read_text()


@pytest.mark.parametrize("function", POLYNOMIALS)
def test_coefficients_are_equal(function, header):
    ours = [np.float32(c) for c in getattr(special, POLYNOMIALS[function])]
    assert horner(body(header, function)) == ours
    assert len(ours) in (4, 10)


def test_every_polynomial_is_compared(header):
    """A function of the header with Horner's scheme stands in POLYNOMIALS."""
    functions = re.findall(r"NEURON_INLINE T (\w+)\([^)]*\) \{\n(.*?)\n\}", header, re.DOTALL)
    assert {name for name, text in functions if " p = " in text} == set(POLYNOMIALS)


def test_arguments_are_equal(header):
    """What the polynomials take: x / (2 + x), and 1 / (1 + 0.3125 r)."""
    assert constants(body(header, "log1p_unit")) == ["2.0"]
    assert constants(body(header, "normal_tail")) == ["0.3125", "1.0"]
    (inverse,) = re.findall(r"inverse_sqrt_2pi\(T\) \{ return ([\d.]+)f; \}", header)
    assert np.float32(inverse) == np.float32(special._INVERSE_SQRT_2PI)


@pytest.mark.parametrize("function", POLYNOMIALS)
def test_a_changed_coefficient_is_noticed(function, header):
    """By one unit in the last place of float32, in the header."""
    text = body(header, function)
    ours = [np.float32(c) for c in getattr(special, POLYNOMIALS[function])]
    for _, digits in re.findall(rf"p = (?:p \* \w+ )?{_NUMBER};", text):
        wrong = np.nextafter(np.float32(digits), np.float32(1))
        assert horner(text.replace(f"{digits}f", f"{wrong:.9g}f", 1)) != ours
