"""The store: several first openers, odd places, a moved checkout, what makes it unusable."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass

import mlflow
import pytest
from filelock import FileLock

import labkit
from labkit import tracking
from labkit.machine import ROOT, free_port
from tools import ui


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
    assert printed.err.count("warning: tracking store: http://127.0.0.1:9: ") == 1
    assert "start that server, or unset MLFLOW_TRACKING_URI" in printed.err
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


def one_run() -> labkit.Run:
    """A run with one metric, in the folder and in the store if that can be used."""
    with labkit.start_run(__file__, Config(), "sample", "net-adam-mse-s0") as run:
        run.log_metrics({"mse": 0.5})
        run.save_text("note.md", "hello")
    return run


def test_a_file_named_as_mlflow_recommends_keeps_the_runs(home, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.move(home / "mlflow.db", tmp_path / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    run = one_run()
    monkeypatch.chdir(home)  # the address is of the folder in which the run was started
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'own.db'}")
    logged = client.get_run(run.mlflow_id)
    assert logged.data.metrics["mse"] == 0.5
    assert mlflow.artifacts.load_text(f"{logged.info.artifact_uri}/note.md") == "hello"
    assert (tmp_path / "mlartifacts").is_dir()
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a%20b", "what?", "100%?uri=true&x#y", "été"])
def test_any_folder_name_holds_a_store(home, monkeypatch, capsys, name):
    place = home.with_name("place")
    (place / name).mkdir(parents=True)
    shutil.copy(home / "mlflow.db", place / name)
    monkeypatch.setenv("LABKIT_HOME", str(place / name))
    run = one_run()
    with sqlite3.connect(place / name / "mlflow.db") as connection:
        assert connection.execute("SELECT value FROM metrics WHERE key = 'mse'").fetchall()
    connection.close()
    assert mlflow.artifacts.load_text(f"runs:/{run.mlflow_id}/note.md") == "hello"
    assert os.listdir(place) == [name]  # nothing beside it
    assert "warning" not in capsys.readouterr().err


def break_database(home, statement: str) -> None:
    with sqlite3.connect(home / "mlflow.db") as connection:
        connection.execute(statement)
    connection.close()


def delete_experiment(home) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    for name in ("tests", "tp1_mnist_api"):  # the latter is the one that the page shows
        client.delete_experiment(client.create_experiment(name))


def make_directory(home) -> None:
    (home / "mlflow.db").unlink()
    (home / "mlflow.db").mkdir()


SCHEMA = "UPDATE alembic_version SET version_num = 'ffffffffffff'"
UNUSABLE = {
    "a deleted experiment": (delete_experiment, "`mlflow experiments restore -x "),
    "an unknown schema": (
        lambda home: break_database(home, SCHEMA), "written by another version of MLflow",
    ),
    "no database": (
        lambda home: (home / "mlflow.db").write_text("something else " * 99),
        "file is not a database; move it away",
    ),
    "a folder": (make_directory, "unable to open database file; make it a file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_store_is_one_sentence_with_the_remedy(home, capsys, kind):
    spoil, remedy = UNUSABLE[kind]
    spoil(home)
    run = one_run()
    printed = capsys.readouterr().err
    assert remedy in printed
    assert printed.count("warning") == 1
    assert "Traceback" not in printed
    assert len(printed.splitlines()) == 2
    assert labkit.find_run("tests.test_tracking").metrics == {"mse": 0.5}
    assert run.mlflow_id == ""
    with pytest.raises(SystemExit) as stopped:
        ui.main(["--port", str(free_port())])
    assert stopped.value.code == 2
    assert remedy in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("mlflow.db", "has no scheme: sqlite:///mlflow.db is a file"),
        ("127.0.0.1:5001", "http://127.0.0.1:5001 a server"),
        ("localhost:5001", "http://localhost:5001 a server"),
        ("file:./mlruns", "`mlflow migrate-filestore"),
        ("sqlite://", "keeps nothing"),
        ("sqlite:///:memory:", "keeps nothing"),
        ("postgresql://me:secret@127.0.0.1/x", "needs a driver: pip install psycopg"),
    ],
)
def test_an_address_that_cannot_work_says_which_one_would(home, monkeypatch, capsys, uri, remedy):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    one_run()
    printed = capsys.readouterr()
    assert remedy in printed.err
    assert "secret" not in printed.err + printed.out
    assert printed.err.count("warning") == 1
    assert labkit.find_run("tests.test_tracking").metrics == {"mse": 0.5}
    with pytest.raises(SystemExit) as stopped:
        ui.main(["--port", str(free_port())])
    assert stopped.value.code == 2


def test_an_old_folder_of_runs_named_as_the_store_says_how_to_move(home, monkeypatch, capsys):
    (home / "mlruns").mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    one_run()
    assert "`mlflow migrate-filestore" in capsys.readouterr().err


@pytest.mark.parametrize("locked", ["database", "lock file"])
def test_a_store_locked_throughout_costs_a_warning(home, monkeypatch, capsys, locked):
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    monkeypatch.setattr(tracking, "PATIENCE_FOR_LOCK", 0.2)
    if locked == "database":
        holder = sqlite3.connect(home / "mlflow.db")
        holder.execute("BEGIN EXCLUSIVE")
        release = holder.close
        remedy = "database is locked; another program holds it: close that"
    else:
        holder = FileLock(home / "mlflow.db.lock", is_singleton=False)
        holder.acquire()
        release = holder.release
        remedy = "mlflow.db.lock is held by another process"
    one_run()
    release()
    printed = capsys.readouterr().err
    assert remedy in printed
    assert printed.count("warning") == 1
    assert labkit.find_run("tests.test_tracking").metrics == {"mse": 0.5}


def test_ui_says_that_its_port_is_taken_before_it_names_a_page(home, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stopped:
            ui.main(["--port", str(port)])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert f"--port {port} can't be used" in printed.err
    assert "http" not in printed.out


SERVER = """#!{python}
import pathlib, subprocess, sys, time
if "--child" in sys.argv:
    pathlib.Path(__file__).with_name("started").touch()
    time.sleep(600)
subprocess.run([sys.executable, __file__, "--child"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 0)])
def test_ui_takes_its_server_with_it(home, number, code):
    # A stand-in for MLflow's server, which has a process of its own below it too.
    server = home / "server"
    server.write_text(SERVER.format(python=sys.executable))
    server.chmod(0o755)
    start = (
        "import signal, sys; from tools import ui\n"
        "ui.tracking.open_store = lambda experiment: '1'\n"  # which loads MLflow for seconds
        # Whoever starts the tests may have told their children to ignore some signals.
        "for name in ('SIGTERM', 'SIGHUP'): signal.signal(getattr(signal, name), signal.SIG_DFL)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.executable = sys.argv.pop(1)\n"
        "ui.main()"
    )
    command = [sys.executable, "-c", start, str(server), "--port", str(free_port())]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while not (home / "started").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(getattr(signal, number))
        try:
            assert process.wait(60) == code
        finally:
            process.kill()
    for _ in range(200):  # what was told to end needs a moment
        if subprocess.run(["pgrep", "-f", str(server)], stdout=subprocess.DEVNULL).returncode == 1:
            return
        time.sleep(0.05)
    raise AssertionError("a process of the server is left")
