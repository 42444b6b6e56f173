"""What TP2's four comparisons share: settings, sealed test images, trials, the written result.

A comparison is one parent run with many *trials*, its child runs: each is one training of one
configuration with one seed. Trials made to choose something (`purpose="choose"`) can't see test
images; those made to report (`purpose="report"`) see them once, after their training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

import labkit
from tp1_mnist_api.train_model import floors, score, to_input, validation_indices
from tp2_improvement.evidence import markdown, values

keras = labkit.lazy("keras")

BATCH_SIZE = 128
STEPS_PER_EXECUTION = 50
"""Steps between two returns to Python: faster, same result."""
SWEEP_SEED = 1000
"""Of the trainings that choose something; the reported ones have other seeds, all below."""
EVALUATED_IMAGES = 6000
"""Training images that are evaluated after each epoch, as many as there are validation images."""


@dataclass(frozen=True)
class Settings:
    """The settings that all four comparisons have."""

    epochs: int = 5
    """Passes over the 54,000 training images in each training, 1 or more."""
    seeds: int = 4
    """Trainings of each final configuration, 2 or more: one alone has no spread."""
    seed: int = 0
    """The first seed; the others follow it."""
    data: labkit.DataChoice = "auto"
    """auto: real MNIST or, without it, a sample; real: real or an error; sample: 1,797 digits."""
    ray_address: str = "auto"
    """auto: Ray Tune where it is installed and two trainings fit side by side, else one after the
    other; off: one after the other; local: Ray on this machine; or a cluster's address."""
    smoke: bool = False
    """Two seeds and one epoch on 512 images, fewer configurations: to see that everything runs."""
    resume: bool = False
    """Go on with an interrupted comparison: its finished trainings are not repeated."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, epochs=1, seeds=2, seed=0)
        if self.seed + self.seeds > SWEEP_SEED:
            total = self.seed + self.seeds
            raise ValueError(f"--seed + --seeds must be {SWEEP_SEED} or less, got {total}")

    @property
    def all_seeds(self) -> list[int]:
        """The seeds of the final trainings."""
        return list(range(self.seed, self.seed + (2 if self.smoke else self.seeds)))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training; the scripts add what they vary."""

    configuration: str
    """What is compared, such as `adam`; letters, digits, `_`, `.` and `+`."""
    purpose: Literal["choose", "report"]
    """choose: no access to test images; report: one look at them, at the end."""
    split: Literal["last", "stratified"]
    """Validation images: the last 6,000 as in the hand-out, or a random tenth of each class."""
    epochs: int
    seed: int
    data: str
    smoke: bool
    resume: bool

    @property
    def run_name(self) -> str:
        """The run's name in the tracking store."""
        return f"dense-{self.configuration}-crossentropy-s{self.seed}"


def common(config: Settings, **changes: Any) -> dict[str, Any]:
    """What every trial takes over from the comparison's settings, with `changes`."""
    taken = {"split": "stratified", "epochs": 1 if config.smoke else config.epochs}
    return taken | {
        "data": config.data,
        "smoke": config.smoke,
        "resume": config.resume,
        **changes,
    }


# --- Data ----------------------------------------------------------------------------------------


class SealedTestError(RuntimeError):
    """Test images were asked for by code that chooses, or a second time."""


class Split:
    """Training and validation images of MNIST, and its test images under seal.

    `x_train`, `x_validation`: (n, 784) float32 in 0..1; `y_train`, `y_validation`: (n,) labels.
    """

    def __init__(self, arrays: dict[str, np.ndarray], source: str, purpose: str) -> None:
        """Wrap `arrays`, whose test part opens for the purpose `report` only, and once."""
        self.source = source
        self.x_train, self.y_train = arrays["x_train"], arrays["y_train"]
        self.x_validation, self.y_validation = arrays["x_validation"], arrays["y_validation"]
        self._test = (arrays["x_test"], arrays["y_test"]) if purpose == "report" else None

    def open_test(self) -> tuple[np.ndarray, np.ndarray]:
        """The test images (n, 784) and labels (n,), once.

        Raises `SealedTestError` in a trial that is there to choose something, and at a second call.
        """
        if self._test is None:
            raise SealedTestError(
                "the test images are sealed: this trial chooses, or has already been tested"
            )
        opened, self._test = self._test, None
        return opened


def load_split(trial: Trial) -> Split:
    """The images that `trial` may see."""
    arrays, source = _arrays(trial.data, trial.split, trial.smoke)
    return Split(arrays, source, trial.purpose)


@lru_cache(maxsize=2)
def _arrays(data: str, split: str, smoke: bool) -> tuple[dict[str, np.ndarray], str]:
    images = load_images(data, smoke)
    training, validation = validation_indices(images.y_train, split)
    x_train = to_input(images.x_train)
    return {
        "x_train": x_train[training],
        "y_train": images.y_train[training],
        "x_validation": x_train[validation],
        "y_validation": images.y_train[validation],
        "x_test": to_input(images.x_test),
        "y_test": images.y_test,
    }, images.source


@lru_cache(maxsize=1)
def load_images(data: str, smoke: bool) -> labkit.Images:
    """MNIST, or its first images for smoke runs."""
    images = labkit.load_mnist(data)
    return images.head(512, 256) if smoke else images


def measure_floors(config: Settings) -> dict[str, float]:
    """Test accuracies of the most frequent class and of a linear model, names as in TP1."""
    images = load_images(config.data, config.smoke)
    return floors(images, validation_indices(images.y_train, "stratified")[0])


# --- Trials --------------------------------------------------------------------------------------

Train = Callable[[Trial, Split, labkit.Run], "keras.Model"]
"""A script's `train(trial, split, run)`: builds, compiles, fits and returns the model."""


def watch(
    run: labkit.Run, model: keras.Model, split: Split, seen: np.ndarray | None = None
) -> keras.callbacks.Callback:
    """A callback that evaluates after each epoch, in inference mode and without penalties.

    Logged are `train_*` on 6,000 training images, `validation_*`, cross-entropy in nats and
    accuracy in 0..1, and `seconds` of training so far, the evaluations left out. `seen` holds the
    indices of the images that the model is trained on; all if not given. What `fit()` itself
    reports is a running mean under dropout that includes every L2 penalty.
    """
    clock = {"seconds": 0.0}
    seen = (np.arange(len(split.x_train)) if seen is None else seen)[:EVALUATED_IMAGES]
    parts = {
        "train": (split.x_train[seen], split.y_train[seen]),
        "validation": (split.x_validation, split.y_validation),
    }

    def begin(epoch: int, logs: dict[str, float] | None = None) -> None:
        clock["started"] = time.perf_counter()

    def end(epoch: int, logs: dict[str, float] | None = None) -> None:
        clock["seconds"] += time.perf_counter() - clock["started"]
        metrics = {"seconds": clock["seconds"]}
        for part, (x, y) in parts.items():
            loss, accuracy = score(model, x, y)
            metrics |= {f"{part}_cross_entropy": loss, f"{part}_accuracy": accuracy}
        if logs and "accuracy" in logs:
            metrics["logged_train_accuracy"] = logs["accuracy"]
        run.log_epoch(epoch, metrics)

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)


def run_trial(script: str, train: Train, parent: str, save_seed: int, trial: Trial) -> dict:
    """Train one trial as a child run of `parent`, or find it finished; return what it measured."""
    split = load_split(trial)
    with labkit.start_run(script, trial, split.source, trial.run_name, parent, "trial") as run:
        if not run.is_finished:
            model = train(trial, split, run)
            metrics = {name: values[-1] for name, values in run.history.items()}
            metrics["train_seconds"] = metrics.pop("seconds")
            if trial.purpose == "report":
                _, metrics["test_accuracy"] = score(model, *split.open_test())
                if trial.seed == save_seed:
                    _save_without_optimizer(model, run)
            run.log_metrics(metrics)
    return {
        "trial": asdict(trial),
        "metrics": run.metrics,
        "history": run.history,
        "train_images": len(split.x_train),
        "folder": f"{run.folder.parent.name}/{run.folder.name}",  # below outputs/, which may move
        "run_id": run.state["run_id"],
    }


def _save_without_optimizer(model: keras.Model, run: labkit.Run) -> None:
    """Keep `model.keras` at a third of its size: nobody goes on training it."""
    bare = keras.models.clone_model(model)
    bare.set_weights(model.get_weights())
    bare.save(run.folder / "model.keras")


def run_trials(
    run: labkit.Run,
    script: str,
    train: Train,
    config: Settings,
    trials: Sequence[Trial],
    label: str,
) -> list[dict]:
    """All `trials` as children of `run`, in order; their outcomes as `run_trial` returns them."""
    function = partial(run_trial, script, train, run.mlflow_id, config.seed)
    return labkit.fan_out(function, trials, config.ray_address, label)


def choose(outcomes: list[dict], among: str = "configuration") -> dict[str, dict]:
    """Of all trials with the same `among`, the one with the highest validation accuracy.

    Raises `ValueError` when an outcome knows a test accuracy: choices are made without it.
    """
    best: dict[str, dict] = {}
    for outcome in outcomes:
        if "test_accuracy" in outcome["metrics"]:
            raise ValueError("a choice must not see test accuracies")
        name = outcome["trial"][among]
        accuracy = outcome["metrics"]["validation_accuracy"]
        if name not in best or accuracy > best[name]["metrics"]["validation_accuracy"]:
            best[name] = outcome
    return {name: outcome["trial"] for name, outcome in best.items()}


# --- Conclusion -----------------------------------------------------------------------------------


def conclude(
    run: labkit.Run,
    title: str,
    outcomes: list[dict],
    columns: dict[str, str],
    conclusions: list[str],
    floor_values: dict[str, float],
    details: dict[str, Any],
) -> dict[str, float]:
    """Print and keep what the comparison found; return the mean of every metric.

    Writes `report.md` and `comparison.json`, from which `results/` is made.
    """
    series = {
        f"{name}/{metric}": sample
        for metric in dict.fromkeys(metric for outcome in outcomes for metric in outcome["metrics"])
        for name, sample in values(
            [outcome for outcome in outcomes if metric in outcome["metrics"]], metric
        ).items()
    }
    seeds = sorted({outcome["trial"]["seed"] for outcome in outcomes})
    table = markdown(outcomes, columns)
    floor_lines = "".join(
        f"- floor, {name.removeprefix('floor_').replace('_', ' ')}: {100 * value:.2f} % on test\n"
        for name, value in floor_values.items()
    )
    findings = "".join(f"- {sentence}\n" for sentence in conclusions)
    text = (
        f"# {title}\n\nData: {run.state['data_source']}. Seeds {seeds}; mean ± standard deviation, "
        f"[95 % interval of the mean].\n\n{table}\n{floor_lines}\n{findings}"
    )
    print(f"\n{text}")
    run.save_text("report.md", text)
    content = {
        "seeds": seeds,
        "series": series,
        "floors": floor_values,
        "conclusions": conclusions,
        "details": details,
        "folders": {
            outcome["trial"]["configuration"]: outcome["folder"]
            for outcome in outcomes
            if outcome["trial"]["seed"] == seeds[0] and outcome["trial"]["purpose"] == "report"
        },
    }
    run.save_text("comparison.json", json.dumps(content, indent=1))
    metrics = {name: float(np.mean(sample)) for name, sample in series.items()} | floor_values
    run.log_metrics(metrics)
    return metrics


def show_again(run: labkit.Run) -> dict[str, float]:
    """Print the report of a finished comparison and return its metrics."""
    print(f"\n{(run.folder / 'report.md').read_text()}")
    return run.metrics
