"""Arrows run one way: tests, tools -> tp* -> labkit -> libraries; the API stands alone."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from labkit.sources import imported_modules, script_name
from tests.conftest import ROOT
from tools import labs

LABKIT = sorted((ROOT / "labkit").rglob("*.py"))
LABS = sorted(path for folder in ROOT.glob("tp*") for path in folder.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
SCRIPTS = labs.scripts()


def imports(path: Path) -> set[str]:
    """Full names of all that `path` imports, also inside functions and through `labkit.lazy`."""
    parts = script_name(path).removesuffix(".__init__").split(".")
    return set(imported_modules(ast.parse(path.read_text()), parts, path))


def owner(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The lab, or the task of tp6_real_world, to which a module belongs."""
    return parts[:2] if parts[0].startswith("tp6") and len(parts) > 1 else parts[:1]


def foreign(path: Path, root: Path = ROOT) -> list[str]:
    """What `path` imports of tools, tests, or another lab or task than its own."""
    own = owner(path.relative_to(root).parts)
    wrong = []
    for name in imports(path):
        parts = tuple(name.split("."))
        tops = ("tools", "tests")
        is_lab = parts[0].startswith("tp") and parts[0][2:3].isdigit()
        borrowed = parts[0] == "tp1_mnist_api" and own == ("tp2_improvement",)
        if parts[0] in tops or (is_lab and owner(parts) not in (own, own[:1]) and not borrowed):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", LABKIT, ids=lambda path: path.name)
def test_labkit_imports_no_lab_and_no_tool(path):
    assert not [name for name in imports(path) if name.startswith(("tp", "tools", "tests"))]


@pytest.mark.parametrize("path", LABS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_labs_import_no_other_lab(path):
    assert not foreign(path)


@pytest.mark.parametrize(
    "line",
    [
        "from tp6_real_world.other import data",
        "from ..other import data",
        "import tp6_real_world.other.model",
        "from tp1_mnist_api import models",
        "data = labkit.lazy('tp6_real_world.other.data')",
        "from tools import labs",
    ],
)
def test_a_task_that_imports_another_is_noticed(tmp_path, monkeypatch, line):
    folder = tmp_path / "tp6_real_world" / "own"
    folder.mkdir(parents=True)
    path = folder / "train.py"
    path.write_text(f"from tp6_real_world.own.data import load\nimport labkit\n{line}\n")
    assert len(foreign(path, tmp_path)) >= 1
    path.write_text("from tp6_real_world.own.data import load\nfrom .model import build\n")
    assert not foreign(path, tmp_path)


def test_labkit_has_no_circle():
    names = {path.stem for path in LABKIT}
    uses = {
        path.stem: {
            name.split(".")[1]
            for name in run_time_imports(path)
            if name.startswith("labkit.") and name.split(".")[1] in names
        }
        for path in LABKIT
        if path.stem != "__init__"
    }
    assert list(TopologicalSorter(uses).static_order())  # raises CycleError


def run_time_imports(path: Path) -> set[str]:
    """As `imports`, those for type checkers alone left out."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return set(imported_modules(tree))


@pytest.mark.parametrize("path", LABKIT, ids=lambda path: path.name)
def test_no_module_of_labkit_is_above_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_short_and_no_libraries(script):
    text = script.path.read_text()
    assert len(text.splitlines()) <= 300
    (main,) = (
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    assert main.end_lineno - main.lineno + 1 <= 40


def test_no_script_is_imported_by_another():
    scripts = {script.name for script in SCRIPTS}
    serving = {"tp1_mnist_api.app", "tp1_mnist_api.client"}  # the API is asked in its own process
    for script in SCRIPTS:
        assert not imports(script.path) & (scripts - serving - {script.name}), script.name


@pytest.mark.parametrize("path", LABKIT, ids=lambda path: path.name)
def test_labkit_has_no_model_loss_or_fit(path):
    text = path.read_text()
    assert "keras.layers" not in text
    assert "keras.losses" not in text
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    fits = [ast.unparse(call) for call in calls if getattr(call, "attr", "") == "fit"]
    assert not [fit for fit in fits if not fit.startswith("tune.Tuner(")]  # Ray's, not a model's


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_engines_name_no_lab(path):
    """What `tools/` finds by itself; `bench/` measures certain labs, and `make run` runs one."""
    if path.name in ("labs.py", "reproduce.py", "tables.py"):
        assert not [name for name in imports(path) if name.startswith("tp")]


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


def test_a_network_is_saved_before_its_figures_are_drawn():
    """A figure that fails, as for want of memory or of a font, must not cost a training."""
    for path in LABS:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            lines = ast.unparse(node).splitlines()
            saved = [i for i, line in enumerate(lines) if "model.keras" in line and "save(" in line]
            drawn = [i for i, line in enumerate(lines) if "run.save_figure(" in line]
            if saved and drawn:
                assert max(saved) < min(drawn), f"{path.name}: {node.name}"
