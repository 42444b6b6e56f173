"""The store: several first openers, a moved checkout, a dead server."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time

import mlflow
import pytest

from labkit import tracking

LOG_ONE_RUN = """
import sys, mlflow
from labkit import tracking
tracking.open_store("race")
with mlflow.start_run(run_name=sys.argv[1]):
    mlflow.log_metric("value", float(sys.argv[1]))
    mlflow.log_text("hello", "note.txt")
"""


@pytest.mark.slow
def test_eight_first_openers_at_once(home, tmp_path):
    (home / "mlflow.db").unlink()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_ONE_RUN, str(number)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    tracking.open_store("race")
    runs = mlflow.search_runs(experiment_names=["race"])
    assert sorted(runs["metrics.value"]) == list(range(8))
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


def test_dead_server_costs_a_warning_not_the_training(python):
    environment = os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    started = time.monotonic()
    done = python(
        "tp1_mnist_api/train_model.py", "--model", "dense", "--epochs", "1", "--data", "sample",
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: the tracking store http://127.0.0.1:9 failed" in done.stderr
    assert "Test accuracy" in done.stdout
    assert time.monotonic() - started < 120  # not MLflow's default of several minutes


@pytest.mark.parametrize("uri", ["sqlite:////tmp/x.db", "http://127.0.0.1:5001"])
def test_environment_overrides_the_store(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.store_uri() == uri
