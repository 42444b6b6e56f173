"""A run: one folder of results, mirrored to the tracking store, that survives being killed.

Everything is written below `outputs/<lab>.<script>/` first and copied to MLflow second, so that a
store that can't be reached costs a warning and nothing else.
"""

import dataclasses
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from labkit import figures, machine, tracking
from labkit.arguments import fail

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

UI_ADDRESS = "http://127.0.0.1:5001"
"""Where `make ui` shows the runs."""
RUN_NAME = re.compile(r"[a-z0-9_.+]+-[a-z0-9_.+]+-[a-z0-9_.+]+(-s\d+)?")
"""`<architecture>-<optimizer>-<loss>[-s<seed>]`, the naming convention of every lab."""


class Run:
    """One training or evaluation, made by `start_run`. Usage: `run.log_metrics({"mse": 0.1})`."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        """Wrap the run folder `folder`, whose `state.json` holds `state`."""
        self.folder = folder
        self.state = state
        self.history: dict[str, list[float]] = state.get("history", {}) if self.is_finished else {}
        """Per-epoch metrics since the first epoch, also those of a resumed run's first part."""
        self.first_epoch = 0
        """Where `fit(initial_epoch=...)` starts: above 0 after `--resume`."""
        self._mirrors = False
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        if self.checkpoint_file.exists():
            self._read_checkpoint_header()

    @property
    def checkpoint_file(self) -> Path:
        """Weights, optimiser and history after the last complete epoch."""
        return self.folder / "checkpoint.npz"

    @property
    def best_file(self) -> Path:
        """Weights of the best epoch, see `keeps_best`; gone once the run is finished."""
        return self.folder / "best.weights.h5"

    @property
    def is_finished(self) -> bool:
        """True when `--resume` found nothing left to do. Usage: `if run.is_finished: return`."""
        return self.state["status"] == "FINISHED"

    @property
    def metrics(self) -> dict[str, float]:
        """Final metrics logged so far. Usage: `run.metrics["test_accuracy"]`."""
        return self.state["metrics"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration's fields. Usage: `run.config["epochs"]`."""
        return self.state["config"]

    @property
    def mlflow_id(self) -> str:
        """Its id in the tracking store, empty while that is out of reach.

        Usage: `start_run(..., parent=run.mlflow_id)`.
        """
        return (self.state["run_id"] or "") if self._mirrors else ""

    @property
    def seconds(self) -> float:
        """Time spent in this run, all its parts together. Usage: `run.seconds`."""
        return self._seconds_before + time.perf_counter() - self._started

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Record final metrics. Usage: `run.log_metrics({"test_accuracy": 0.98})`."""
        metrics = {name: float(value) for name, value in metrics.items()}
        self.state["metrics"].update(metrics)
        self._write_state()
        self.track(_log_metrics, metrics)

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record the metrics of epoch `epoch` (from 0). Usage: `run.log_epoch(0, {"loss": 0.3})`.

        Nothing is saved to go on from there: that is `checkpoints`.
        """
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        self.track(_log_metrics, metrics, epoch)

    def save_figure(self, name: str, figure: "Figure") -> Path:
        """Write `<name>.png` stamped with the data source. Usage: `run.save_figure("roc", fig)`."""
        return figures.save(figure, self.folder / f"{name}.png", self.state["data_source"])

    def save_text(self, name: str, text: str) -> Path:
        """Write a text file such as `report.md`. Usage: `run.save_text("report.md", text)`."""
        path = self.folder / name
        _write_atomically(path, text.encode())
        return path

    def checkpoints(self, model: "keras.Model") -> "keras.callbacks.Callback":
        """Callback that records each epoch and makes `--resume` exact.

        Usage: `model.fit(..., initial_epoch=run.first_epoch, callbacks=[run.checkpoints(model)])`.
        It restores an interrupted run's weights and optimiser when training begins. The batches
        must depend on seed and epoch alone, as those of `labkit.batches.Batches` do.
        """
        from labkit.checkpoint import EpochCheckpoint

        return EpochCheckpoint(self, model)

    def keeps_best(self, monitor: str, mode: str) -> "keras.callbacks.Callback":
        """Callback that writes `best_file` when `monitor` is at its best, also over a resumed run.

        Usage: `callbacks=[run.keeps_best("val_loss", "min"), run.checkpoints(model)]`, in this
        order: an epoch counts as done only when its weights are kept. Then
        `model.load_weights(run.best_file)`.
        """
        import keras

        before = self.history.get(monitor)
        best = None if before is None else {"min": min, "max": max}[mode](before)
        return keras.callbacks.ModelCheckpoint(
            self.best_file,
            monitor=monitor,
            mode=mode,
            save_best_only=True,
            save_weights_only=True,
            initial_value_threshold=best,
        )

    def track(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call MLflow code that may fail. Usage: `run.track(mlflow.set_tag, "note", "retry")`.

        After a failure (store unreachable, disk full) it warns once, stops mirroring and returns
        None, as it does for every later call: the training goes on and the folder has the results.
        """
        if not self._mirrors:
            return None
        try:
            return function(*arguments)
        except Exception as error:
            self._mirrors = False
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(
                f"warning: the tracking store {tracking.store_uri()} failed ({reason[:300]}).\n"
                f"Training goes on; the results are in {self.folder}.",
                file=sys.stderr,
            )
            return None

    def record_epoch(self, epoch: int, logs: dict[str, float], arrays: list[Any]) -> None:
        """Save epoch `epoch` (from 0): its metrics and all that the next one depends on.

        Usage: called by the `checkpoints` callback. A full disk costs a warning: the checkpoint
        before stays, training goes on.
        """
        import numpy as np

        self.log_epoch(epoch, logs)
        header = {"epoch": epoch + 1, "history": self.history, "seconds": self.seconds}
        part = self.checkpoint_file.with_suffix(".part.npz")
        try:
            names = {f"v{index}": array for index, array in enumerate(arrays)}
            np.savez(part, header=np.array(json.dumps(header)), **names)
            os.replace(part, self.checkpoint_file)
        except OSError as error:
            part.unlink(missing_ok=True)
            print(f"warning: epoch {epoch + 1} is not saved: {error}", file=sys.stderr)

    def _read_checkpoint_header(self) -> None:
        import numpy as np

        with np.load(self.checkpoint_file, allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
        self.first_epoch = header["epoch"]
        self.history = header["history"]
        self._seconds_before = header["seconds"]

    def _write_state(self) -> None:
        _write_atomically(self.folder / "state.json", json.dumps(self.state, indent=1).encode())

    def _finish(self, status: str) -> None:
        self.track(_end_mlflow_run, self, status)
        if self.state["run_id"] and not self._mirrors:  # don't leave it open for the next run
            import mlflow

            with suppress(Exception):
                mlflow.end_run("FAILED")
        # Last, so that a process killed before this line is resumed, not taken for finished.
        seconds = round(self.seconds, 1)
        self.state |= {"status": status, "seconds": seconds, "history": self.history}
        self._write_state()
        if status == "FINISHED":
            for file in (self.checkpoint_file, self.best_file):
                file.unlink(missing_ok=True)


@contextmanager
def start_run(
    script: str,
    config: Any,
    data_source: str,
    name: str,
    parent: str = "",
    part: str = "",
    experiment: str = "",
) -> Iterator[Run]:
    """Open a run of `script`, the caller's `__file__`, as a context.

    Usage: `with labkit.start_run(__file__, config, data.source, "dense-adam-mse-s0") as run:`.

    `name` follows `RUN_NAME`; `parent` is the MLflow run under which this one is shown. With
    `config.resume` the newest run of the same code, settings and data goes on where it was
    stopped, or comes back finished. Ctrl-C marks the run KILLED, keeps what is there and leaves
    with exit code 130; an error marks it FAILED. Raises `ValueError` for a name that breaks the
    convention.

    `part` names the many small runs of one comparison, such as `trial`: they print nothing, live in
    `outputs/<lab>.<script>.<part>`, are tracked where their parent is, and hand Ctrl-C on to it.

    `experiment` is the tracking experiment where a hand-out fixes its name; else the lab's folder.
    """
    if not RUN_NAME.fullmatch(name):
        raise ValueError(f"run name {name!r} is not <architecture>-<optimizer>-<loss>[-s<seed>]")
    say = (lambda text: None) if part else print
    run, held = _find_or_make(Path(script).resolve(), config, data_source, name, part, say)
    with held:
        if run.is_finished:
            run._write_state()  # makes it the latest one
            say(f"Nothing left to do: this run is finished in {run.folder}.")
            yield run
            return
        run._mirrors = bool(parent) or not part
        run.track(_begin_mlflow_run, run, parent, experiment)
        where = f", resumed after epoch {run.first_epoch}" if run.first_epoch else ""
        say(f"Run {name} on {data_source} data{where}: {run.folder}")
        try:
            yield run
        except KeyboardInterrupt:
            run._finish("KILLED")
            if part:
                raise
            print(f"\nInterrupted: partial results are kept in {run.folder}.", file=sys.stderr)
            print("The same command with --resume goes on from there.", file=sys.stderr)
            raise SystemExit(130) from None
        except BaseException:
            run._finish("FAILED")
            raise
        run._finish("FINISHED")
        say(f"Finished in {run.seconds:.0f} s. Results: {run.folder}")
        if run._mirrors:
            say(f"Compare runs: {_page(run)}")


def find_run(script: str, identifier: str = "latest") -> Run:
    """A finished run of `<lab>.<script>`. Usage: `find_run("tp1_mnist_api.train_model")`.

    `identifier` is `latest` (the last one trained or resumed), the beginning of an MLflow run id,
    or a folder's name. When there is none it prints what to do and leaves with exit code 2.
    """
    for folder, state in _runs(script):
        named = folder.name == identifier or str(state.get("run_id") or "-").startswith(identifier)
        if state["status"] == "FINISHED" and (identifier == "latest" or named):
            return Run(folder, state)
    wanted = "finished run" if identifier == "latest" else f"finished run {identifier!r}"
    command = f"python {script.replace('.', '/')}.py"
    fail(f"no {wanted} of {script} in {machine.home() / 'outputs'}: run {command} first")


def _runs(script: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders and states of a script's runs, the last one trained or resumed first."""
    states = (machine.home() / "outputs" / script).glob("*/state.json")
    for path in sorted(states, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        yield path.parent, json.loads(path.read_text())


def _find_or_make(
    path: Path, config: Any, source: str, name: str, part: str, say: Callable[[str], None]
) -> tuple[Run, AbstractContextManager[Any]]:
    """The run to go on with, or a new one, and its lock, taken until the context ends."""
    script = ".".join(filter(None, (path.parent.name, path.stem, part)))
    settings = dataclasses.asdict(config)
    resume = settings.pop("resume", False)
    identity = json.dumps([settings, source, _code(path)], sort_keys=True, default=str)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    if resume:
        for folder, state in _runs(script):
            if state["fingerprint"] != fingerprint:
                continue
            try:
                held = FileLock(folder / "lock").acquire(timeout=0)
            except Timeout:  # another process is at it
                continue
            return Run(folder, state), held
        say("Nothing to resume for this script, these settings and this data: starting anew.")
    parent = machine.home() / "outputs" / script
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(tempfile.mkdtemp(prefix=f"{stamp}-{name}-", dir=parent))
    folder.chmod(0o755)
    held = FileLock(folder / "lock").acquire()
    run = Run(
        folder,
        {
            "script": script,
            "name": name,
            "status": "RUNNING",
            "fingerprint": fingerprint,
            "config": json.loads(json.dumps(settings, default=str)),
            "data_source": source,
            "commit": machine.commit(),
            "versions": machine.versions(),
            "machine": machine.describe(),
            "run_id": None,
            "metrics": {},
            "history": {},
        },
    )
    run._write_state()
    return run, held


def _code(script: Path) -> list[str]:
    """Text of `script` and of the labs' modules that it imports, directly or not."""
    found: dict[Path, str] = {}
    pending = [script]
    while pending:
        path = pending.pop()
        if path in found or not path.exists():
            continue
        found[path] = path.read_text()
        lab = rf"(?:tp\w+|{script.parent.name})(?:\.\w+)+"
        labs = rf"(?:^\s*(?:from|import) |lazy\(\")({lab})"
        for module in re.findall(labs, found[path], re.MULTILINE):
            pending.append(script.parents[1] / f"{module.replace('.', '/')}.py")
    return [found[path] for path in sorted(found)]


def _begin_mlflow_run(run: Run, parent: str, experiment: str) -> None:
    import mlflow

    state = run.state
    state["experiment_id"] = tracking.open_store(experiment or state["script"].split(".")[0])
    if state["run_id"]:  # resumed: log the epochs that the store missed when the process died
        mlflow.start_run(run_id=state["run_id"], nested=bool(parent))
        for name, values in run.history.items():
            logged = mlflow.MlflowClient().get_metric_history(state["run_id"], name)
            for epoch in range(len(logged), len(values)):
                mlflow.log_metric(name, values[epoch], step=epoch)
        return
    tags = {
        "script": state["script"],
        "data_source": state["data_source"],
        "commit": state["commit"],
    }
    active = mlflow.start_run(
        run_name=state["name"], parent_run_id=parent or None, nested=bool(parent), tags=tags
    )
    state["run_id"] = active.info.run_id
    run._write_state()
    described = {f"version_{name}": value for name, value in state["versions"].items()}
    mlflow.log_params({**state["config"], **described, **state["machine"]})


def _end_mlflow_run(run: Run, status: str) -> None:
    import mlflow

    private = ("lock", "state.json", run.checkpoint_file.name, run.best_file.name)
    for path in sorted(run.folder.iterdir()):
        if path.is_file() and path.name not in private:
            mlflow.log_artifact(str(path))
    mlflow.log_metric("seconds", run.seconds)
    mlflow.end_run(status)


def _page(run: Run) -> str:
    """Where to look at the run's experiment."""
    uri = tracking.store_uri()
    page, advice = (uri, "") if uri.startswith("http") else (UI_ADDRESS, "`make ui`, then ")
    return (
        f"{advice}{page}/#/experiments/{run.state['experiment_id']}?workflowType=machine_learning"
    )


def _log_metrics(metrics: dict[str, float], step: int | None = None) -> None:
    import mlflow

    mlflow.log_metrics({name: float(value) for name, value in metrics.items()}, step=step)


def _write_atomically(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
