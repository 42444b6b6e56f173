"""What every training of TP2 has in common: settings, digits, what is measured and kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

import numpy as np

import labkit
from labkit import comparison
from tp1_mnist_api import digits
from tp1_mnist_api.digits import score, to_input

keras = labkit.lazy("keras")

BATCH_SIZE = 128
SWEEP_SEEDS = (comparison.SWEEP_SEED, comparison.SWEEP_SEED + 1)
"""Of the trainings that choose: one seed's luck would choose a rate that has nothing else."""
PANELS = {
    "train_cross_entropy": "training cross-entropy (nats)",
    "validation_accuracy": "validation accuracy",
}
"""Of figures that follow trainings epoch by epoch."""
EVALUATED_IMAGES = 6000
"""Training images that are evaluated after each epoch, as many as there are validation images."""


@dataclass(frozen=True, kw_only=True)
class Trial(comparison.Trial):
    """One training; the scripts add what they vary."""

    split: Literal["last", "stratified"] = "stratified"
    """Validation images: the last 6,000 as in the hand-out, or a random tenth of each class."""
    epochs: int
    data: labkit.DataChoice
    keep: bool
    """Whether its network is saved, for `evaluate.py`: the first seed's."""

    @property
    def run_name(self) -> str:
        """The run's name in the tracking store."""
        return f"dense-{self.configuration}-crossentropy-s{self.seed}"


Kind = TypeVar("Kind", bound=Trial)


@dataclass(frozen=True)
class Settings(comparison.Settings):
    """The settings that all four comparisons have."""

    epochs: int = 5
    """Passes over the 54,000 training images in each training, 1 or more."""
    seeds: int = 4
    """Trainings of each final configuration, 2 or more: one alone has no spread."""
    data: labkit.DataChoice = "auto"
    """auto: real MNIST or, without it, a sample; real: real or an error; sample: 1,797 digits."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, epochs=1)

    @property
    def length(self) -> int:
        """Epochs of one training; 2 in a smoke run."""
        return 2 if self.smoke else self.epochs

    def trials(
        self,
        kind: type[Kind],
        choices: Sequence[dict[str, Any]],
        purpose: Literal["choose", "report"] = "report",
        seeds: Sequence[int] = (),
    ) -> list[Kind]:
        """Trials of each of `choices`, fields of `kind`, with each of `seeds`.

        Those that report have all seeds of the comparison if not given, and of the first one the
        network is kept; those that choose have the sweep's two. One seed after the other, so that
        all choices see the machine fast and slow.
        """
        common = {
            "purpose": purpose, "epochs": self.length,
            "data": self.data, "smoke": self.smoke, "resume": self.resume,
        }  # fmt: skip
        choosing = purpose == "choose"
        seeds = seeds or (SWEEP_SEEDS[: 1 if self.smoke else 2] if choosing else self.all_seeds)
        return [
            kind(**common | {"seed": seed, "keep": seed == self.seed and not choosing} | choice)
            for seed in seeds
            for choice in choices
        ]

    def trainer(
        self,
        run: labkit.Run,
        script: str,
        study: comparison.Study,
        load: Callable[..., labkit.Data],
    ) -> Callable[..., list[comparison.Outcome]]:
        """A function, `train(trials, label="rates")`, that trains them as children of `run`.

        `study` and `load` are those of `script`.
        """
        return partial(
            comparison.run_trials, run, script, study,
            lambda trial: load(trial.data, trial.smoke, trial.split), ray_address=self.ray_address,
        )  # fmt: skip


def accuracies_of(
    sweep: list[comparison.Outcome], name: Callable[[Any], str], among: str = "configuration"
) -> dict[str, float]:
    """The mean validation accuracy of each setting of a sweep, called by `name` of its trial."""
    return {
        name(trial): accuracy
        for settings in comparison.swept(sweep, among).values()
        for trial, accuracy in settings.items()
    }


@lru_cache(maxsize=2)
def load(choice: labkit.DataChoice, smoke: bool, split: str) -> labkit.Data:
    """TP1's digits, read once for all trainings: x is (n, 28, 28) uint8, y is (n,) labels."""
    return digits.load(choice, smoke, split)


def faster(trial: Trial) -> dict[str, Any]:
    """Settings of `compile()` that save time: fewer returns to Python, no XLA, slow on CPUs.

    The few steps of a smoke run are done before a graph would be built.
    """
    if trial.smoke:
        return {"run_eagerly": True, "jit_compile": False}
    return {"steps_per_execution": 50, "jit_compile": False}


def watch(
    run: labkit.Run, model: keras.Model, data: labkit.Data, seen: np.ndarray | None = None
) -> keras.callbacks.Callback:
    """A callback that evaluates after each epoch, in inference mode and without penalties.

    Logged are `train_*` on 6,000 training images, `validation_*`, cross-entropy in nats and
    accuracy in 0..1, and `seconds` of training so far, the evaluations left out. `seen` holds the
    indices of the images that the model is trained on; all if not given. What `fit()` itself
    reports is a running mean under dropout that includes every L2 penalty.
    """
    seen = (np.arange(len(data.train)) if seen is None else seen)[:EVALUATED_IMAGES]
    parts = {
        "train": (to_input(data.train.x[seen]), data.train.y[seen]),
        "validation": (to_input(data.validation.x), data.validation.y),
    }
    clock = {"seconds": 0.0}

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


def measure(
    trial: Trial, model: keras.Model, data: labkit.Data, run: labkit.Run
) -> dict[str, float]:
    """The last epoch's figures and, to report, the test accuracy; keeps `model.keras` if asked."""
    metrics = {name: column[-1] for name, column in run.history.items()}
    metrics["train_seconds"] = metrics.pop("seconds")
    if trial.purpose == "report":
        test = data.test.open()
        _, metrics["test_accuracy"] = score(model, to_input(test.x), test.y)
    if trial.keep:
        bare = keras.models.clone_model(model)  # without optimizer: a third of the size
        bare.set_weights(model.get_weights())
        bare.save(run.folder / "model.keras")
    return metrics
