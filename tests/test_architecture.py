"""Arrows run one way: tests, tools -> tp* -> labkit -> libraries; the API stands alone."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

LABKIT = sorted((ROOT / "labkit").rglob("*.py"))
LABS = sorted(path for folder in ROOT.glob("tp*") for path in folder.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of all that `path` imports, also inside functions and through `labkit.lazy`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "lazy":
            found.add(node.args[0].value)
    return found


@pytest.mark.parametrize("path", LABKIT, ids=lambda path: path.name)
def test_labkit_imports_no_lab_and_no_tool(path):
    assert not [name for name in imports(path) if name.startswith(("tp", "tools", "tests"))]


@pytest.mark.parametrize("path", LABS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_labs_import_no_other_lab(path):
    own = path.relative_to(ROOT).parts[0]
    allowed = {own} | ({"tp1_mnist_api"} if own == "tp2_improvement" else set())
    for name in imports(path):
        top = name.split(".")[0]
        assert not top.startswith(("tools", "tests"))
        assert not top.startswith("tp") or top in allowed


@pytest.mark.parametrize("path", LABKIT, ids=lambda path: path.name)
def test_labkit_has_no_model_loss_or_fit(path):
    text = path.read_text()
    assert "keras.layers" not in text
    assert "keras.losses" not in text
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    fits = [ast.unparse(call) for call in calls if getattr(call, "attr", "") == "fit"]
    assert not [fit for fit in fits if not fit.startswith("tune.Tuner(")]  # Ray's, not a model's


def test_the_api_loads_neither_tensorflow_nor_labkit_nor_mlflow(python):
    code = "import sys, tp1_mnist_api.app; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(python("-c", code).stdout.split())
    assert "flask" in loaded
    assert not loaded & {"tensorflow", "keras", "labkit", "mlflow", "matplotlib", "sklearn"}


def test_every_public_name_of_labkit_has_a_usage_line():
    for path in LABKIT:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if node.name == "DataError":
                    continue
                documented = ast.get_docstring(node) or ""
                assert "sage:" in documented, f"{path.name}: {node.name}"
