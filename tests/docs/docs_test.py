"""The README and the documentation: what they show runs, and what they promise to list is listed."""

from __future__ import annotations

import ast
import doctest
import re
from functools import cache
from pathlib import Path

import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import nn

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = Path(jmn.__file__).parent


def blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_blocks_run(page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    namespace: dict = {}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "pycon")], ids=lambda p: p.name)
def test_sessions_run(page):
    if page.name in ("mac.md", "metal.md"):
        pytest.skip("its sessions need an Apple GPU")
    text = "".join(blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    log: list[str] = []
    assert doctest.DocTestRunner().run(test, out=log.append).failed == 0, "".join(log)


def test_pages_were_found():
    assert {"README.md", "index.md", "transformations.md"} <= {p.name for p in PAGES if blocks(p)}
    assert "parameters.md" in {p.name for p in PAGES if blocks(p, "pycon")}


def test_pages_include_the_examples():
    """A formatter of code in Markdown takes the lines that include a file for Python."""
    found = []
    for page in PAGES:
        for line in re.findall(r"^.*8\s*<.*$", page.read_text(), re.MULTILINE):
            included = re.fullmatch(r'--8<-- "(.*)"', line)
            assert included, f"{page.name}: {line}"
            assert (ROOT / included[1]).is_file(), line
            found.append(included[1])
    assert {"examples/layers_nnx.py", "examples/layers_linen.py", "examples/layers_equinox.py"} <= set(
        found
    )


def template(node: ast.expr) -> str | None:
    """A message with ... for what varies."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return re.sub(r"\{\}", "...", template(node.func.value) or "")
    else:
        return None
    return " ".join(text.split())


@cache
def messages() -> dict[str, str]:
    """Every message of an error or a warning of the package: its template, and where it is."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        strings = {
            node.targets[0].id: template(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not call.args:
                continue
            if not isinstance(node, ast.Raise) and not ast.unparse(call.func).endswith("warnings.warn"):
                continue
            first = call.args[0]
            text = strings.get(first.id) if isinstance(first, ast.Name) else template(first)
            where = f"{path.name}:{node.lineno}"
            assert text, f"{where} raises with a message that this test cannot read"
            found[text] = where
    return found


def listed() -> list[str]:
    """The beginnings of messages in the tables of the page."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| `([^`]+)`[^|`]*\|", text, re.MULTILINE)


def begins(message: str, beginning: str) -> bool:
    return message.startswith(beginning.removesuffix("...").rstrip())


def test_every_message_has_its_line():
    missing = [f"{w}: {m}" for m, w in messages().items() if not any(begins(m, b) for b in listed())]
    assert not missing, "docs/troubleshooting.md lacks:\n" + "\n".join(missing)


def test_every_line_has_its_message():
    """But for JAX's own messages, and those that the command line prints."""
    others = (
        "can't apply forward-mode",
        "Differentiation rule for",
        "No FFI handler",
        "cannot write",
        "plot needs",
    )
    stale = [b for b in listed() if not b.startswith(others) and not any(begins(m, b) for m in messages())]
    assert not stale


def test_the_zoo_is_whole():
    page = (ROOT / "docs" / "zoo.md").read_text()
    for kind in jmn.NeuronType:
        name = kind.name.lower()
        assert f"## {kind.name} {{ #{name} }}" in page
        assert re.search(rf"^\| Apple \| `MPSCNNNeuronType\w+` = {kind.value} \|$", page, re.MULTILINE)
        for theme in ("light", "dark"):
            assert f"neurons/{name}-{theme}.svg#only-{theme}" in page
            assert (ROOT / "docs" / "neurons" / f"{name}-{theme}.svg").stat().st_size > 1000


def test_every_twin_has_its_line():
    page = (ROOT / "docs" / "nn.md").read_text()
    ours = [
        name for name in dir(nn) if getattr(getattr(nn, name), "__module__", "").startswith(nn.__name__)
    ]
    assert sorted(re.findall(r"^\| `(\w+)\(x", page, re.MULTILINE)) == ours
