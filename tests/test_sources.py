"""A run knows its script and its code: names from paths, imports from the syntax tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import labkit
from labkit import sources
from tests.conftest import ROOT


@dataclass(frozen=True)
class Config:
    """Settings of a run in these tests."""

    resume: bool = False


@pytest.fixture
def task(tmp_path) -> Path:
    """A nested task that imports in every way there is."""
    folder = tmp_path / "tp6_scratch" / "painters"
    (folder / "deep").mkdir(parents=True)
    files = {
        "tp6_scratch/__init__.py": "",
        "tp6_scratch/shared.py": "",
        "tp6_scratch/painters/__init__.py": "from .package_wide import names",
        "tp6_scratch/painters/package_wide.py": "names = 1",
        "tp6_scratch/painters/data.py": "",
        "tp6_scratch/painters/model.py": "from . import losses",
        "tp6_scratch/painters/losses.py": "",
        "tp6_scratch/painters/fast.py": "from .. import shared",
        "tp6_scratch/painters/late.py": "",
        "tp6_scratch/painters/typed.py": "",
        "tp6_scratch/painters/deep/__init__.py": "from .inner import depth",
        "tp6_scratch/painters/deep/inner.py": "depth = 1",
        "tp6_scratch/painters/other.py": "",
        "tp6_scratch/painters/train.py": (
            "from typing import TYPE_CHECKING\n"
            "import tp6_scratch.painters.data\n"
            "from tp6_scratch.painters import model\n"
            "import tp6_scratch.painters.deep as deeper\n"
            "fast = labkit.lazy('tp6_scratch.painters.fast')\n"
            "if TYPE_CHECKING:\n    from tp6_scratch.painters.typed import Part\n"
            "def train():\n    from tp6_scratch.painters.late import something\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return folder


def test_a_nested_task_is_named_by_its_path():
    path = ROOT / "tp6_real_world" / "painters" / "train.py"
    assert sources.script_name(path) == "tp6_real_world.painters.train"
    assert sources.script_name(ROOT / "tp1_mnist_api" / "app.py") == "tp1_mnist_api.app"


def test_a_nested_task_is_found_again(home, task):
    with labkit.start_run(str(task / "train.py"), Config(), "sample", "net-adam-mse-s0") as run:
        assert run.folder.parent == home / "outputs" / "tp6_scratch.painters.train"
    assert labkit.find_run("tp6_scratch.painters.train").folder == run.folder


def test_every_form_of_import_is_followed(task):
    modules = {name.removeprefix("tp6_scratch.") for name in sources.code_of(task / "train.py")}
    assert modules == {
        "__init__", "shared", "painters.__init__", "painters.package_wide", "painters.data",
        "painters.model", "painters.losses", "painters.fast", "painters.late", "painters.typed",
        "painters.deep.__init__", "painters.deep.inner", "painters.train",
    }  # fmt: skip


def is_found(task: Path) -> bool:
    script = str(task / "train.py")
    with labkit.start_run(script, Config(resume=True), "sample", "net-adam-mse-s0") as run:
        return run.is_finished


@pytest.mark.parametrize(
    "module",
    [
        "../__init__", "../shared", "__init__", "package_wide", "data", "model", "losses", "fast",
        "late", "typed", "deep/__init__", "deep/inner",
    ],
)  # fmt: skip
def test_a_changed_module_starts_a_new_run(home, task, module):
    assert not is_found(task)
    assert is_found(task)
    path = task / f"{module}.py"
    path.write_text(path.read_text() + "\nchanged = 1\n")
    assert not is_found(task)


def test_what_is_not_imported_or_not_run_changes_nothing(home, task):
    assert not is_found(task)
    (task / "other.py").write_text("unrelated = 1")
    (task / "data.py").write_text('"""A docstring."""\n\n# and a comment\n')
    assert is_found(task)


def test_real_scripts_know_the_code_that_they_share():
    code = sources.code_of(ROOT / "tp4_unet_conv3d" / "evaluate.py")
    assert {"labkit.figures", "tp4_unet_conv3d.metrics", "tp4_unet_conv3d.floors"} <= set(code)
    code = sources.code_of(ROOT / "tp4_unet_conv3d" / "unet_segmentation.py")
    assert {"labkit.lgg", "tp4_unet_conv3d.losses"} <= set(code)
    assert "tp3_cnn_resnet.grad_cam" in sources.code_of(ROOT / "tp3_cnn_resnet" / "evaluate.py")
