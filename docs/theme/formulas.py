"""Formulas between dollar signs become MathML, which browsers draw themselves: no script, no network."""

import re

from latex2mathml.converter import convert

_FENCES = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_PRIME = re.compile(r"<msup><mi>(\w)</mi><mi>&#x02032;</mi></msup>")  # raised twice, and hardly seen
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


def _mathml(match: re.Match) -> str:
    block, inline = match.groups()
    formula = convert((block or inline).strip(), display="block" if block else "inline")
    formula = _PRIME.sub(r'<mi>\1</mi><mo lspace="0" rspace="0">&#x2032;</mo>', formula)
    return f'<div class="formula">{formula}</div>' if block else formula


def on_page_markdown(markdown: str, **_) -> str:
    parts = _FENCES.split(markdown)
    parts[::2] = [_FORMULA.sub(_mathml, text) for text in parts[::2]]
    return "".join(parts)
