"""Converts formulas between dollar signs to MathML, which browsers draw without a script or the network."""

import re

from latex2mathml.converter import convert

_FENCES = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)

# Corrections of the converter's output. Browsers treat a sign in the middle of a row as an operator between
# two operands, with space on either side.
_BETTER = [
    # A prime inside of a superscript would be raised twice and too small.
    (
        r"<msup><mi>(\w)</mi><mi>&#x02032;</mi></msup>",
        r'<mi>\1</mi><mo lspace="0" rspace="0">&#x2032;</mo>',
    ),
    # A number, a minus after an opening parenthesis, and bars.
    (r"<mo>(&#x0221E;)</mo>", r"<mi>\1</mi>"),
    (r"(<mo[^>]*>&#x00028;</mo>)<mo>&#x02212;</mo>", r'\1<mo form="prefix">&#x02212;</mo>'),
    (r'<mo stretchy="false">&#x0007C;</mo>', r'<mo stretchy="false" lspace="0" rspace="0">&#x0007C;</mo>'),
    # Functions: space after a factor and before an operand without parentheses, and nowhere else.
    (r"<m([io])>([a-z]{2,})</m\1>", r'<mo lspace="0" rspace="0">\2</mo>'),
    (r'(</m[in]>(?:<msup>)?)<mo lspace="0" rspace="0">([a-z]{2,})', r'\1<mo lspace="0.17em" rspace="0">\2'),
    (r'rspace="0">([a-z]{2,}</mo>)(?=<mfrac>)', r'rspace="0.17em">\1'),
]


def mathml(latex: str, block: bool = False) -> str:
    """A formula as MathML, by itself or within a line."""
    formula = convert(latex.strip(), display="block" if block else "inline")
    for found, better in _BETTER:
        formula = re.sub(found, better, formula)
    return f'<div class="formula">{formula}</div>' if block else formula


def on_page_markdown(markdown: str, **_) -> str:
    parts = _FENCES.split(markdown)
    parts[::2] = [
        _FORMULA.sub(lambda m: mathml(m[1] or m[2], block=bool(m[1])), text) for text in parts[::2]
    ]
    return "".join(parts)
