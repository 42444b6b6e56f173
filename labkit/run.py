"""A run: one folder of results, copied to the tracking store, that survives being killed.

Everything is written below `outputs/<script>/` first and copied to MLflow second, so that a store
that can't be reached costs a warning and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import figures, tracking
from labkit.arguments import fail
from labkit.checkpoint import Checkpoint

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure


class Run:
    """One training or evaluation, made by `start_run`. Usage: `run.log_metrics({"mse": 0.1})`."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        """Wrap the run folder `folder`, whose `state.json` holds `state`."""
        self.folder = folder
        self.state = state
        self.mirror = tracking.Mirror(folder)
        self.checkpoint = Checkpoint(folder / "checkpoint.npz")
        """Weights, optimiser and history after the last complete epoch."""
        self.history = state.get("history", {}) if self.is_finished else self.checkpoint.history
        """Per-epoch metrics since the first epoch, also those of a resumed run's first part."""
        self._started = time.perf_counter()

    @property
    def first_epoch(self) -> int:
        """Where `fit(initial_epoch=...)` starts: above 0 after `--resume`. Usage: see there."""
        return self.checkpoint.epochs

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
    def data_source(self) -> str:
        """What it was trained or tested on. Usage: `run.data_source.startswith("real")`."""
        return self.state["data_source"]

    @property
    def mlflow_id(self) -> str:
        """Its id in the tracking store, empty while that is out of reach.

        Usage: `start_run(..., parent=run.mlflow_id)`.
        """
        return (self.state["run_id"] or "") if self.mirror.active else ""

    @property
    def seconds(self) -> float:
        """Time spent in this run, all its parts together. Usage: `run.seconds`."""
        return self.checkpoint.seconds + time.perf_counter() - self._started

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Record final metrics. Usage: `run.log_metrics({"test_accuracy": 0.98})`.

        Leaves with exit code 2 where one is not a number: nothing was measured then.
        """
        metrics = {name: float(value) for name, value in metrics.items()}
        if missing := [name for name, value in metrics.items() if math.isnan(value)]:
            fail(
                f"not a number: {', '.join(missing)}. Does each part of the data hold what is to "
                "be found, and did the training keep finite weights?"
            )
        self.state["metrics"].update(metrics)
        self.write_state()
        self.mirror.log_metrics(metrics)

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record the metrics of epoch `epoch` (from 0). Usage: `run.log_epoch(0, {"loss": 0.3})`.

        Nothing is saved to go on from there: that is `checkpoints`.
        """
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        self.mirror.log_metrics(metrics, epoch)

    def save_figure(self, name: str, figure: Figure) -> Path:
        """Write `<name>.png` stamped with the data source. Usage: `run.save_figure("roc", fig)`."""
        return figures.save(figure, self.folder / f"{name}.png", self.data_source)

    def save_text(self, name: str, text: str) -> Path:
        """Write a text file such as `report.md`. Usage: `run.save_text("report.md", text)`."""
        path = self.folder / name
        _write_atomically(path, text.encode())
        return path

    def save_report(self, title: str, text: str) -> None:
        """Write `report.md`: the data, `text`, every metric. Usage: `run.save_report(name, table)`.

        `text` is Markdown: the result beside its floors (`results.beside_floors`), and how it was
        chosen.
        """
        rows = "".join(f"| {name} | {value:.5g} |\n" for name, value in self.metrics.items())
        self.save_text(
            "report.md",
            f"# {title}\n\nData: {self.data_source}. Code: {self.state['commit']}.\n\n"
            f"{text.rstrip()}\n\n| metric | value |\n| --- | --- |\n{rows}",
        )

    def checkpoints(self, model: keras.Model) -> keras.callbacks.Callback:
        """Callback that records each epoch and makes `--resume` exact.

        Usage: `model.fit(..., initial_epoch=run.first_epoch, callbacks=[run.checkpoints(model)])`.
        It restores an interrupted run's weights and optimiser when training begins. The batches
        must depend on seed and epoch alone, as those of `labkit.batches.Batches` do.
        """
        from labkit.callbacks import EpochCheckpoint

        former = self.checkpoint.arrays() if self.first_epoch else None
        return EpochCheckpoint(model, former, self.record_epoch)

    def keeps_best(self, monitor: str, mode: str) -> keras.callbacks.Callback:
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

        A failure costs one warning; see `tracking.Mirror.call`.
        """
        return self.mirror.call(function, *arguments)

    def record_epoch(self, epoch: int, logs: dict[str, float], arrays: list[Any]) -> None:
        """Save epoch `epoch` (from 0): its metrics and all that the next one depends on.

        Usage: called by the `checkpoints` callback. A full disk costs a warning: the checkpoint
        before stays, training goes on.
        """
        self.log_epoch(epoch, logs)
        try:
            self.checkpoint.save(epoch + 1, self.history, self.seconds, arrays)
        except OSError as error:
            print(f"warning: epoch {epoch + 1} is not saved: {error}", file=sys.stderr)

    def write_state(self) -> None:
        """Save `state.json`; the latest run is the one written last. Usage: by `start_run`."""
        self.state["written"] = time.time()
        _write_atomically(self.folder / "state.json", json.dumps(self.state, indent=1).encode())

    def begin(self, parent: str, experiment: str) -> None:
        """Open the copy in the tracking store, or that of a resumed run. Usage: by `start_run`."""
        state, before = self.state, self.state["run_id"]
        tags = {name: state[name] for name in ("script", "data_source", "commit")}
        state |= self.mirror.begin(state["name"], experiment, tags, parent, before)
        self.write_state()
        if before:
            self.mirror.catch_up(before, self.history)
        else:
            versions = {f"version_{name}": value for name, value in state["versions"].items()}
            self.mirror.log_params({**state["config"], **versions, **state["machine"]})

    def finish(self, status: str) -> None:
        """End as FINISHED, KILLED or FAILED, in the folder and the store. Usage: by `start_run`."""
        private = ("lock", "state.json", self.checkpoint.file.name, self.best_file.name)
        files = [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        shared = [path for path in files if path.name not in private]
        self.mirror.end(shared, self.seconds, status)
        # Last, so that a process killed before this line is resumed, not taken for finished.
        seconds = round(self.seconds, 1)
        self.state |= {"status": status, "seconds": seconds, "history": self.history}
        self.write_state()
        if status == "FINISHED":
            for file in (self.checkpoint.file, self.best_file):
                file.unlink(missing_ok=True)


def _write_atomically(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
