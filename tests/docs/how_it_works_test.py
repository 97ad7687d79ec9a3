"""docs/how-it-works.md: each block of Python prints what the block of text after it shows.

With the version of JAX that the page names, the output is the page's. With another, its landmarks are
there: the primitives, the custom calls, and the shapes and flags that the text explains.

    PYTHONPATH=tests python tests/docs/how_it_works_test.py    # writes the output into the page
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import jax
import pytest

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
PAGE = ROOT / "docs" / "how-it-works.md"

# A block of code, and the first block of text before the next one, unless it is a drawing or other code.
PAIR = re.compile(
    r"```python\n(.*?)```(?:(?!```).)*?(?:```text\n(?!jmn\.|XLA_FFI)(.*?)```|(?=```|\Z))", re.DOTALL
)
LANDMARK = re.compile(
    r"custom_vjp_call|signature=.*|\bneuron(?:_gradient)?(?=\[)|@?jax_mps_neuron\.\w+|f32\[[\d,]*\]|tensor<[\dx]+xf32>"
    r"|output_(?:operand_alias|to_operand_aliasing)|all-\w+(?=\()"
    r"|^(?:True|False).*|^[\d. -]+$",
    re.MULTILINE,
)


def pairs() -> list[tuple[str, str | None]]:
    return [(m[1], m[2]) for m in PAIR.finditer(PAGE.read_text())]


def run(code: str, namespace: dict) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, str(PAGE), "exec"), namespace)
    return output.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def outputs() -> list[tuple[str, str]]:
    """What each block prints, and what the page shows."""
    namespace: dict = {}
    found = [(run(code, namespace), shown or "") for code, shown in pairs()]
    if not any("@jax_mps_neuron" in printed for printed, _ in found):
        pytest.skip("the custom call does not run here")
    return found


def test_every_output_is_shown(outputs):
    assert len(outputs) > 8
    for printed, shown in outputs:
        assert bool(printed) == bool(shown), printed or shown


def test_landmarks(outputs):
    for printed, shown in outputs:
        missing = set(LANDMARK.findall(shown)) - set(LANDMARK.findall(printed))
        assert not missing, f"{missing} not in\n{printed}"


def test_the_output_is_the_pages(outputs):
    version = re.search(r"jax (\d+\.\d+\.\d+)", PAGE.read_text())
    if version is None or version[1] != jax.__version__:
        pytest.skip("the page shows the output of another version of JAX")
    for printed, shown in outputs:
        assert words(printed) == words(shown)


def write() -> None:
    namespace: dict = {}
    text, result, end = PAGE.read_text(), [], 0
    for match in PAIR.finditer(text):
        printed = run(match[1], namespace)
        if match[2] is not None:
            start, stop = match.span(2)
            result += [text[end:start], printed]
            end = stop
        elif printed:
            sys.exit(f"a block prints and no text follows it:\n{match[1]}")
    PAGE.write_text("".join([*result, text[end:]]))


if __name__ == "__main__":
    from support import devices  # noqa: F401, eight of them

    write()
