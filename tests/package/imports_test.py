"""The shape of the code: imports go one way, and files and functions stay short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import jax_mps_neuron

PACKAGE = Path(jax_mps_neuron.__file__).parent
ROOT = Path(__file__).parents[2]

# Each room imports only rooms that stand before it; public modules, named "", import any of them.
ROOMS = [
    "_compat",
    "_core",
    "_metal",
    "_plugins",
    "_lowering",
    "_ops",
    "_staging",
    "",
    "_tools",
    "__main__",
]

LINES, FUNCTION_LINES = 320, 60


def modules(package: Path) -> dict[str, Path]:
    """Dotted name to file, of every module of a package."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def is_for_types(node: ast.stmt) -> bool:
    """Whether this is `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that can run, inside functions as well."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.stmt) and is_for_types(node):
            for other in node.orelse:
                yield from imports(other)
        else:
            yield from imports(node)


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports; a package's name stands for its `__init__`."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in imports(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        else:
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # A module imported from a package, else a name that the base defines.
            candidates = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names
            ]
        found.update(candidate for candidate in candidates if candidate in known)
    return found - {name}


def graph(package: Path) -> dict[str, set[str]]:
    known = modules(package)
    return {name: imported(name, path, known) for name, path in known.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one circle; empty if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def room(module: str) -> str:
    """The room of a module, "" for public ones."""
    first = module.split(".")[1] if "." in module else ""
    return first if first in ROOMS else ""


def test_no_circles_between_modules():
    edges = graph(PACKAGE)
    assert len(edges) > 50
    assert not circle(edges)


def test_no_circles_between_rooms():
    """Nor any import against the order."""
    wrong = [
        f"{module} imports {other}"
        for module, others in graph(PACKAGE).items()
        for other in others
        if ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert not wrong


@pytest.mark.parametrize(
    "source",
    [
        "from . import b",
        "from .b import x",
        "from package.b import x",
        "import package.b",
        "def f():\n    from . import b",
        "try:\n    from .b import x\nexcept ImportError:\n    pass",
        "if 1:\n    pass\nelse:\n    import package.b",
    ],
)
def test_a_circle_is_found(source, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(source)
    (package / "b.py").write_text("from . import a\nx = 1")
    assert sorted(set(circle(graph(package)))) == ["package.a", "package.b"]


def test_imports_for_types_are_no_circle(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import b"
    )
    (package / "b.py").write_text("from . import a")
    assert not circle(graph(package))


def sources() -> list[Path]:
    """Every Python file: of the package, and of the repository beside these tests."""
    files = set(PACKAGE.rglob("*.py"))
    for folder in ("tests", "benchmarks", "examples", "docs"):
        files.update((ROOT / folder).rglob("*.py"))
    return sorted(files)


def test_files_are_short():
    lines = {path: len(path.read_text().splitlines()) for path in sources()}
    assert {str(path): n for path, n in lines.items() if n > LINES} == {}


def test_functions_are_short():
    """Without their docstrings."""
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.body[bool(ast.get_docstring(node))].lineno + 1
                if length > FUNCTION_LINES:
                    long[f"{path}:{node.name}"] = length
    assert long == {}
