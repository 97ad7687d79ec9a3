"""Docstrings as the site shows them: examples as sessions, formulas as MathML."""

import re
import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from formulas import mathml

_INLINE = re.compile(r":math:`([^`]+)`")
# A directive with its formula on the same line, or indented below it.
_BLOCK = re.compile(r"^\.\. math::(?: (.+)|\n((?:[ ]+.+\n?)+))", re.MULTILINE)


def _value(text: str) -> str:
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # Google's style knows the plural
    text = _BLOCK.sub(lambda m: mathml(" ".join((m[1] or m[2]).split()), block=True), text)
    return _INLINE.sub(lambda m: mathml(m[1]), text)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = _value(obj.docstring.value)
