"""Formulas between dollar signs become MathML, which browsers draw themselves: no script, no network."""

import re

from latex2mathml.converter import convert

_FENCES = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


def _mathml(match: re.Match) -> str:
    block, inline = match.groups()
    if block:
        return f'<div class="formula">{convert(block.strip(), display="block")}</div>'
    return convert(inline)


def on_page_markdown(markdown: str, **_) -> str:
    parts = _FENCES.split(markdown)
    parts[::2] = [_FORMULA.sub(_mathml, text) for text in parts[::2]]
    return "".join(parts)
