"""Each test has a folder of its own for outputs and tracking, and neither network nor real data."""

import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = os.environ.get("LABKIT_DATA")
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


class ByFileAndScript(LoadFileScheduling):
    """A file's tests stay on one worker, those of a contract script by script: it is by far the
    longest file."""

    def _split_scope(self, nodeid: str) -> str:
        script = re.search(r"test_contract\.py.*\b(tp\d\w*\.[\w.]+)", nodeid)
        return script[1] if script else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFileAndScript:
    """Tell pytest-xdist who gets which tests."""
    return ByFileAndScript(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REAL_DATA is None:
        for item in items:
            if "realdata" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="LABKIT_DATA is not set"))


def pytest_collection_finish() -> None:
    """Leave the imported modules out of the collections that Keras makes before each model."""
    gc.freeze()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables anew for each test would take seconds."""
    import mlflow

    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow.MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """Outputs, store and Keras cache in a new folder; real data and network out of reach."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.setenv("LABKIT_HOME", str(folder))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("MLFLOW_TRACKING_URI", "LABKIT_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)  # for child processes, which no fixture can watch
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    return folder


@pytest.fixture(autouse=True)
def no_open_figures() -> Iterator[None]:
    """Figures that a test draws and doesn't save are closed: Matplotlib warns at the 21st."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the real data back to a test that is marked `realdata`."""
    monkeypatch.setenv("LABKIT_DATA", REAL_DATA or "")


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess]:
    """Run `python <arguments>` from the repository's root and return the finished process."""

    def run(*arguments: str, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=300, **options
        )

    return run
