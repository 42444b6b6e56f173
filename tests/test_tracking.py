"""The store: several first openers, a moved checkout, a dead server."""

import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass

import mlflow
import pytest

import labkit
from labkit import tracking


@dataclass(frozen=True)
class Config:
    """Settings of a run in these tests."""

    resume: bool = False


LOG_ONE_RUN = """
import sys, mlflow
from labkit import tracking
tracking.open_store("race")
with mlflow.start_run(run_name=sys.argv[1]):
    mlflow.log_metric("value", float(sys.argv[1]))
    mlflow.log_text("hello", "note.txt")
"""


def test_four_first_openers_at_once(home, tmp_path):
    (home / "mlflow.db").unlink()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_ONE_RUN, str(number)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    tracking.open_store("race")
    runs = mlflow.search_runs(experiment_names=["race"])
    assert sorted(runs["metrics.value"]) == list(range(4))
    assert set(runs["status"]) == {"FINISHED"}
    with sqlite3.connect(home / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    assert not (tmp_path / "mlruns").exists()  # nothing lands in the working directory


def test_moved_checkout_keeps_its_artifacts(home, monkeypatch):
    tracking.open_store("first")
    with mlflow.start_run() as old:
        mlflow.log_text("before", "note.txt")
    moved = home.with_name("a new%place")  # characters that an address must escape
    shutil.move(home, moved)
    monkeypatch.setenv("LABKIT_HOME", str(moved))

    tracking.open_store("first")
    uri = mlflow.get_run(old.info.run_id).info.artifact_uri
    assert mlflow.artifacts.load_text(f"{uri}/note.txt") == "before"
    with mlflow.start_run() as new:
        mlflow.log_text("after", "note.txt")
    tracking.open_store("second")
    assert (moved / "mlartifacts" / "first" / new.info.run_id / "artifacts" / "note.txt").exists()
    assert not home.exists()


def test_dead_server_costs_a_warning_not_the_training(home, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
        run.log_epoch(0, {"loss": 1.0})
        run.log_metrics({"mse": 0.5})
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"  # not MLflow's several minutes
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    printed = capsys.readouterr()
    assert printed.err.count("warning: the tracking store http://127.0.0.1:9 failed") == 1
    assert "Finished in" in printed.out
    assert "Compare runs" not in printed.out
    found = labkit.find_run("tests.test_tracking")
    assert found.metrics == {"mse": 0.5}
    assert found.history == {"loss": [1.0]}


def test_a_store_that_dies_in_the_middle_leaves_no_open_run(home, monkeypatch, capsys):
    def broken(*arguments, **settings):
        raise ConnectionError("gone")

    with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
        with monkeypatch.context() as patch:
            patch.setattr(mlflow, "log_metrics", broken)
            run.log_metrics({"mse": 0.5})
        run.log_metrics({"mae": 0.1})
    assert capsys.readouterr().err.count("failed (ConnectionError: gone)") == 1
    assert mlflow.active_run() is None
    assert run.metrics == {"mse": 0.5, "mae": 0.1}


@pytest.mark.parametrize("uri", ["sqlite:////tmp/x.db", "http://127.0.0.1:5001"])
def test_environment_overrides_the_store(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.store_uri() == uri
