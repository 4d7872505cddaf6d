"""The layers of docs/architecture.md, kept by reading every import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "streams": set(),
    "featurestore": {"streams"},
    "models": {"streams", "featurestore"},
    "agents": {"streams", "featurestore", "models"},
    "dashboards": {"streams", "featurestore", "models"},
    "streamlens": {"streams", "featurestore", "models", "agents", "dashboards"},
}
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "shared", "base", "core"}

MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions and type-checking blocks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute, so that the layer can be read off them"
            yield node.lineno, node.module or ""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_layers_are_there() -> None:
    assert {name_of(path).split("/")[0] for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down_the_layers(path: Path) -> None:
    package = name_of(path).split("/")[0]
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package} | {"tests", "benchmarks"}
    upward = [
        f"{name_of(path)}:{line} imports {name}"
        for line, name in imported(ast.parse(path.read_text()))
        if name.split(".")[0] in forbidden
    ]
    assert upward == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_and_what_it_offers(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    assert path.stem not in SAYS_NOTHING
    defines = any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body)
    targets = [
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    ]
    if defines:
        assert "__all__" in targets, f"{name_of(path)} has no __all__"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
