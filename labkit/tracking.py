"""All that knows MLflow: one store for all labs, and the copy of a run in it.

The default is SQLite at the repository's root; `MLFLOW_TRACKING_URI` overrides it. MLflow 3.17
breaks a new SQLite store for good when several processes open it at once, and freezes absolute
artifact paths in it; the lock and the relocation below answer these two.
"""

import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock, Timeout

from labkit.machine import home

PATIENCE = 20
"""Seconds to wait for a database that another program holds."""
PATIENCE_FOR_LOCK = 120
"""Seconds to wait while others make a new store, each after the other, on a slow machine."""
UI_ADDRESS = "http://127.0.0.1:5001"
START_UI = "python tools/ui.py" if sys.platform == "win32" else "make ui"
# Columns in which MLflow freezes an absolute artifact location.
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


class StoreError(Exception):
    """The store can't be used; it says why and what to do. Usage: `except StoreError`."""

    def __init__(self, message: str) -> None:
        """`message`, in which an address's password is left out."""
        super().__init__(without_password(message))


def store_uri() -> str:
    """Address of the store. Usage: `mlflow.set_tracking_uri(store_uri())`.

    `$MLFLOW_TRACKING_URI` if set, a SQLite file in it made absolute. Raises `StoreError` for one
    that MLflow would not understand, or that would keep nothing.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    given = f"MLFLOW_TRACKING_URI={uri}"
    if not uri:
        return _sqlite_uri(home() / "mlflow.db")
    if uri.startswith("file:") or Path(uri).is_dir():
        raise StoreError(
            f"{given}: MLflow no longer writes folders. Unset it; `mlflow migrate-filestore "
            f"--source FOLDER --target {_sqlite_uri(home() / 'mlflow.db')}` brings old runs over"
        )
    if "://" not in uri:
        raise StoreError(f"{given} has no scheme: sqlite:///{uri} is a file, http://{uri} a server")
    if not uri.startswith("sqlite:"):
        return uri
    database = unquote(uri.partition("?")[0].removeprefix("sqlite:///"))
    if uri == "sqlite://" or database in ("", ":memory:"):
        raise StoreError(f"{given} keeps nothing: name a file, such as sqlite:///mlflow.db")
    return _sqlite_uri(Path(database).absolute())


def without_password(uri: str) -> str:
    """`uri`, or a text with one, as it may be shown. Usage: `without_password(store_uri())`."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:...@", uri)


def _sqlite_uri(database: Path) -> str:
    """Address of a SQLite file, without what SQLAlchemy would read as something else."""
    path = database.as_posix().replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}"


def open_store(experiment: str) -> str:
    """Make the store if needed, select `experiment`, return its id. Usage: `open_store("tp1")`.

    Safe for several processes at once on an absent store and after the checkout was moved.
    Raises `StoreError` when the store can't be used, with the remedy.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A dead server should cost seconds, not MLflow's default minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    uri, chosen_by_user = store_uri(), "MLFLOW_TRACKING_URI" in os.environ
    import mlflow

    mlflow.set_tracking_uri(uri)
    if not chosen_by_user:  # MLflow exports what it is told; that is not the user's wish
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        if not uri.startswith("sqlite:///"):
            _refuse_deleted(mlflow.get_experiment_by_name(experiment), uri)
            return mlflow.set_experiment(experiment).experiment_id
        return _open_database(uri, experiment)
    except mlflow.MlflowException as error:
        if "database schema" in str(error):
            raise StoreError(
                f"{uri} was written by another version of MLflow than {mlflow.__version__}. If by "
                f"an older one, copy the file, then run `mlflow db upgrade {uri}`; if by a newer "
                f"one, install that, or move the file away to start anew"
            ) from error
        detail = " ".join(str(error).split())[:200]
        if uri.startswith("http"):
            detail += "; start that server, or unset MLFLOW_TRACKING_URI"
        raise StoreError(f"{uri}: {detail}") from error
    except ModuleNotFoundError as error:
        raise StoreError(f"{uri} needs a driver: pip install {error.name}") from error


def _open_database(uri: str, experiment: str) -> str:
    """Make or upgrade the SQLite store `uri`, select `experiment`, return its id."""
    import mlflow

    database = Path(unquote(uri.removeprefix("sqlite:///")))
    artifacts = database.parent / "mlartifacts"
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock", timeout=PATIENCE_FOR_LOCK):
            _probe(database)
            known = mlflow.get_experiment_by_name(experiment)  # makes or upgrades the schema
            _refuse_deleted(known, uri)
            if known is None:
                mlflow.create_experiment(experiment, (artifacts / experiment).as_uri())
            with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")  # readers don't block the writer
                _relocate(connection, artifacts.as_uri())
    except Timeout:
        raise StoreError(f"{database}.lock is held by another process: wait or stop it") from None
    except OSError as error:
        raise StoreError(f"{database} can't be written: {error.strerror or error}") from error
    finally:
        forget_stray_folder(uri)
    return mlflow.set_experiment(experiment).experiment_id


def _probe(database: Path) -> None:
    """Raise `StoreError` for a file that can't be written; MLflow would try for 102 seconds."""
    try:
        with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        remedy = {
            "database is locked": "another program holds it: close that",
            "file is not a database": "move it away to start anew",
        }.get(str(error), "make it a file that you may write, or set LABKIT_HOME")
        raise StoreError(f"{database}: {error}; {remedy}") from error


def _refuse_deleted(experiment: Any, uri: str) -> None:
    """Raise `StoreError` for an experiment that lies in the store's waste bin."""
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise StoreError(
            f"experiment {experiment.name} is deleted in {uri}. With MLFLOW_TRACKING_URI set to "
            f"that, `mlflow experiments restore -x {experiment.experiment_id}` brings it back"
        )


def forget_stray_folder(uri: str) -> None:
    """Remove the empty folder that MLflow makes for a SQLite address with escaped characters.

    Usage: after MLflow has opened `uri`. It takes `%3F` in the address for a folder's name.
    """
    if "%" in uri:
        with suppress(OSError):
            Path(uri.removeprefix("sqlite:///")).parent.rmdir()


def page(experiment_id: str) -> str:
    """Where to look at an experiment's runs. Usage: `print(page(open_store("tp1_mnist_api")))`."""
    uri = without_password(store_uri())
    base, advice = (uri, "") if uri.startswith("http") else (UI_ADDRESS, f"`{START_UI}`, then ")
    return f"{advice}{base}/#/experiments/{experiment_id}?workflowType=machine_learning"


class Mirror:
    """The copy of one run in the store; a store that fails costs one warning and nothing else.

    Usage: `mirror = Mirror(folder)`, `mirror.begin(...)`, `mirror.log_metrics({"mse": 0.1})`.
    """

    def __init__(self, folder: Path) -> None:
        """The run's results are in `folder`, with or without a store."""
        self.folder = folder
        self.active = False
        """Whether the store has answered until now."""
        self._began = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call MLflow code that may fail. Usage: `mirror.call(mlflow.set_tag, "note", "retry")`.

        After a failure (store unreachable, disk full) it warns once, stops mirroring and returns
        None, as it does for every later call: the training goes on and the folder has the results.
        """
        if not self.active:
            return None
        try:
            return function(*arguments)
        except Exception as error:
            self.active = False
            reason = str(error)
            if not isinstance(error, StoreError):
                failed = f"{store_uri()} failed ({type(error).__name__}: {reason[:300]})"
                reason = without_password(failed)
            print(
                f"warning: tracking store: {' '.join(reason.split())}.\n"
                f"Training goes on; the results are in {self.folder}.",
                file=sys.stderr,
            )
            return None

    def begin(
        self, name: str, experiment: str, tags: dict[str, str], parent: str, run_id: str | None
    ) -> dict[str, str]:
        """Start a run below `parent`, or go on with `run_id`; its `run_id` and `experiment_id`."""
        self.active = True
        return self.call(self._begin, name, experiment, tags, parent, run_id) or {}

    def _begin(
        self, name: str, experiment: str, tags: dict[str, str], parent: str, run_id: str | None
    ) -> dict[str, str]:
        import mlflow

        experiment_id = open_store(experiment)
        if run_id:
            mlflow.start_run(run_id=run_id, nested=bool(parent))
        else:
            active = mlflow.start_run(
                run_name=name, parent_run_id=parent or None, nested=bool(parent), tags=tags
            )
            run_id = active.info.run_id
        self._began = True
        return {"run_id": run_id, "experiment_id": experiment_id}

    def log_params(self, parameters: dict[str, Any]) -> None:
        """Record settings. Usage: `mirror.log_params({"epochs": 5})`."""
        import mlflow

        self.call(mlflow.log_params, parameters)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record figures, of the epoch `step` (from 0) or of the whole run."""
        import mlflow

        values = {name: float(value) for name, value in metrics.items()}
        self.call(lambda: mlflow.log_metrics(values, step=step))

    def catch_up(self, run_id: str, history: dict[str, list[float]]) -> None:
        """Log the epochs of `history` that the store missed when a process died."""
        self.call(self._catch_up, run_id, history)

    def _catch_up(self, run_id: str, history: dict[str, list[float]]) -> None:
        import mlflow

        for name, values in history.items():
            logged = mlflow.MlflowClient().get_metric_history(run_id, name)
            for epoch in range(len(logged), len(values)):
                mlflow.log_metric(name, values[epoch], step=epoch)

    def end(self, files: Iterable[Path], seconds: float, status: str) -> None:
        """Copy `files`, record the duration and close the run with `status`."""
        self.call(self._end, files, seconds, status)
        if self._began and not self.active:  # don't leave it open for the next run
            import mlflow

            with suppress(Exception):
                mlflow.end_run("FAILED")

    def _end(self, files: Iterable[Path], seconds: float, status: str) -> None:
        import mlflow

        for path in files:
            mlflow.log_artifact(str(path))
        mlflow.log_metric("seconds", seconds)
        mlflow.end_run(status)


def _relocate(connection: sqlite3.Connection, artifacts: str) -> None:
    """Point every stored location below a former `.../mlartifacts` to `artifacts`."""
    rows = connection.execute("SELECT artifact_location FROM experiments")
    former = {
        location.rpartition("/mlartifacts/")[0] + "/mlartifacts"
        for (location,) in rows
        if location and "/mlartifacts/" in location
    }
    for prefix in former - {artifacts}:
        for table, columns in _LOCATIONS.items():
            for column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (artifacts, len(prefix) + 1, len(prefix) + 1, prefix + "/"),
                )
