"""Makes tables fit a phone: long names in cells may break, numbers and short headings may not."""

import re

_CELL = re.compile(r"<t[hd]\b.*?</t[hd]>", re.DOTALL)
_CODE = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
# After a colon, an underscore, a dot or a parenthesis, and before a capital within a name. A <wbr> is not a
# character, so copied text and the search do not contain it.
_BREAK = re.compile(r"(?<=[:_.(])(?=\w)|(?<=[a-z])(?=[A-Z][a-z])")
_SHORT = re.compile(r"<(t[hd])((?: style=\"[^\"]*\")?)>(?=[^<]{1,9}</th>|[\d.,ex%/ \[\]-]{1,17}</td>)")


def _names(cell: re.Match) -> str:
    return _CODE.sub(lambda code: _BREAK.sub("<wbr>", code[0]), cell[0])


def on_page_content(html: str, **_) -> str:
    return _SHORT.sub(r'<\1 class="short"\2>', _CELL.sub(_names, html))
