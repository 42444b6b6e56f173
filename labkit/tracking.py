"""One MLflow store for all labs, whatever the working directory.

The default is SQLite at the repository's root; `MLFLOW_TRACKING_URI` overrides it. MLflow 3.17
breaks a new SQLite store for good when several processes open it at once, and freezes absolute
artifact paths in it; the lock and the relocation below answer these two.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from labkit.machine import home

# Columns in which MLflow freezes an absolute artifact location.
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def store_uri() -> str:
    """Address of the store. Usage: `mlflow.set_tracking_uri(store_uri())`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_default_database().as_posix()}"


def open_store(experiment: str) -> str:
    """Make the store if needed, select `experiment`, return its id. Usage: `open_store("tp1")`.

    Safe for several processes at once on an absent store and after the checkout was moved.
    Raises MLflow's or SQLite's errors when the store can't be opened.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A dead server should cost seconds, not MLflow's default minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    uri, chosen_by_user = store_uri(), "MLFLOW_TRACKING_URI" in os.environ
    mlflow.set_tracking_uri(uri)
    if not chosen_by_user:  # MLflow exports what it is told; that is not the user's wish
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    if not uri.startswith("sqlite:///"):
        return mlflow.set_experiment(experiment).experiment_id
    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    artifacts = database.parent / "mlartifacts"
    with FileLock(f"{database}.lock"):
        known = mlflow.get_experiment_by_name(experiment)  # makes or upgrades the schema
        if known is None:
            mlflow.create_experiment(experiment, (artifacts / experiment).as_uri())
        with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
            connection.execute("PRAGMA journal_mode=WAL")  # readers don't block the writer
            _relocate(connection, artifacts.as_uri())
    return mlflow.set_experiment(experiment).experiment_id


def _default_database() -> Path:
    return home() / "mlflow.db"


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
