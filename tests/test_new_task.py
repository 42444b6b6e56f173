"""A task is a folder: it is added to a copy of the checkout, and everything finds it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import results
from tests.conftest import ROOT

TASK = "tp6_real_world/scratch"
FILES = {"README.md", "data.py", "model.py", "train.py", "evaluate.py", "experiments.py", "flag.py"}
FILE = "tp6_real_world.scratch.train.ring"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the code and its pages, with the seven files of a task and nothing else new."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        is_code = (path / "__init__.py").exists() or path.name in ("tools", "tests", "results")
        if path.is_dir() and is_code:
            left_out = shutil.ignore_patterns("__pycache__", "*.png", "*.jpg")
            shutil.copytree(path, folder / path.name, ignore=left_out)
        elif path.suffix in (".md", ".toml") or path.name == "Makefile":
            shutil.copy(path, folder)
    shutil.copytree(ROOT / "tests" / "scratch_task", folder / TASK, dirs_exist_ok=True)
    return folder


@pytest.fixture
def run(checkout) -> Callable[..., subprocess.CompletedProcess]:
    """Run Python in the copy, with the copy's own code."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments], cwd=checkout, capture_output=True, text=True,
            timeout=300, env=os.environ | {"PYTHONPATH": str(checkout)},
        )  # fmt: skip

    return run


def write_result(checkout: Path, accuracy: float) -> None:
    """What `tools/reproduce.py` would have stored."""
    content = {
        "script": FILE.removesuffix(".ring"), "argv": [], "data_source": "real:00000000",
        "seeds": [0, 1, 2], "metrics": {"test_accuracy": results.summary([accuracy] * 3)},
        "floors": {"majority": 0.6}, "train_seconds": results.summary([1.0, 2.0, 3.0]),
        "machine": {"cpu": "abacus", "cores": 2, "precision": "float32"}, "versions": {},
        "commit": "0000000",
    }  # fmt: skip
    (checkout / "results" / f"{FILE}.json").write_text(json.dumps(content))


def test_its_files_are_the_seven_of_every_task(checkout):
    assert {path.name for path in (checkout / TASK).iterdir()} == FILES


def test_reproduce_lists_it(run):
    done = run("tools/reproduce.py", "--lab", "tp6", "--list")
    assert done.returncode == 0, done.stderr
    assert "scratch_ring seeds 0 1 2" in done.stdout


def test_tables_draw_it_and_its_origin_stands_in_the_data_table(checkout, run):
    write_result(checkout, 0.9)
    done = run("tools/tables.py")
    assert done.returncode == 0, done.stderr
    page = (checkout / TASK / "README.md").read_text()
    assert "| floor: majority | 60.00 |" in page
    assert "| dense network | 90.00 ± 0.00 (n = 3) | 2 ± 1 (n = 3) |" in page
    assert (
        "| [Ring points](https://example.org/ring_points) |" in (checkout / "README.md").read_text()
    )


def test_its_gate_is_kept(checkout, run):
    write_result(checkout, 0.8)
    done = run("-m", "pytest", "-q", "tests/test_results.py", "-k", "scratch and reference")
    assert "test_accuracy is 0.8000, not in 0.85 to 0.999" in done.stdout, done.stdout
    assert "1 failed" in done.stdout


LEAKS = {  # the right line, a tired developer's, and the promise that is broken
    "tested_on": (
        "(data.validation.x, data.validation.y)", "(data.test.x, data.test.y)",
        "test_test_labels_change_test_figures_and_nothing_else",
    ),
    "last_epoch": (
        "model.load_weights(run.best_file)", "pass",
        "test_the_weights_of_the_best_epoch_are_the_ones_tested",
    ),
    "one_order": (
        "data.train.y, 32, config.seed", "data.train.y, 32, 0",
        "test_another_seed_is_another_order",
    ),
    "too_much": (
        "Batches(data.train.x, data.train.y",
        "Batches(np.concatenate([data.train.x, data.validation.x]), "
        "np.concatenate([data.train.y, data.validation.y])",
        "test_validation_labels_change_nothing_that_fit_sees",
    ),
}  # fmt: skip


def test_the_contract_holds_it_to_its_promises_and_notices_leaks(checkout, run):
    for name, (right, wrong, _) in LEAKS.items():
        folder = (checkout / TASK).with_name(name)
        folder.mkdir()
        for file in ("data.py", "model.py", "train.py"):
            text = (checkout / TASK / file).read_text().replace("scratch", name)
            if file == "train.py":
                assert right in text
                text = text.replace(right, wrong)
            (folder / file).write_text(text)
    promises = " or ".join({promise for *_, promise in LEAKS.values()})
    leaking = " or ".join(f"tp6_real_world.{name}" for name in LEAKS)
    chosen = f"tp6_real_world.scratch or (({leaking}) and ({promises}))"
    done = run("-m", "pytest", "-q", "tests/test_contract.py", "-k", chosen)
    failed = set(re.findall(r"^FAILED tests/test_contract.py::(\S+)", done.stdout, re.MULTILINE))
    broken = {f"{promise}[tp6_real_world.{name}.train]" for name, (*_, promise) in LEAKS.items()}
    assert failed == broken, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 14 + 3 * len(LEAKS), done.stdout
