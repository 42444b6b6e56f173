"""All that knows MLflow: one store for all labs, and the copy of a run in it.

The default is SQLite at the repository's root; `MLFLOW_TRACKING_URI` overrides it. MLflow 3.17
breaks a new SQLite store for good when several processes open it at once, and freezes absolute
artifact paths in it; the lock and the relocation below answer these two.
"""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from labkit.machine import home

UI_ADDRESS = "http://127.0.0.1:5001"
"""Where `make ui` shows the runs."""
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


def page(experiment_id: str) -> str:
    """Where to look at an experiment's runs. Usage: `print(page(open_store("tp1_mnist_api")))`."""
    uri = store_uri()
    base, advice = (uri, "") if uri.startswith("http") else (UI_ADDRESS, "`make ui`, then ")
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
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(
                f"warning: the tracking store {store_uri()} failed ({reason[:300]}).\n"
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
