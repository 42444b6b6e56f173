"""What does batch normalisation buy on the hand-out's network, and what does it cost?

    python tp2_improvement/tp2_ex4_batchnorm.py             # 25 minutes on two cores
    python tp2_improvement/tp2_ex4_batchnorm.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex4_batchnorm.py --resume    # go on after an interruption

1. The hand-out's setting, Dense(relu), BatchNormalization, Dropout, beside the network without and
   the one with normalisation before the activation: epochs and seconds to 97.5 % validation.
2. The same, each at its own best learning rate of four, chosen on validation images.
3. Ten times that rate: who tolerates it?
4. Inference: what normalisation costs, and that it can be folded into its neighbour.

The rate is constant, so a training of ten epochs holds one of five: both budgets are shown. The
networks take turns, seed by seed, so that a busy moment of the machine hits them all.

Reference: Ioffe and Szegedy (ICML 2015), algorithms 1 and 2.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

import labkit
from labkit import comparison
from tp1_mnist_api.digits import floors, to_input
from tp2_improvement.batchnorm_report import conclusions, draw
from tp2_improvement.training import (
    BATCH_SIZE,
    Settings,
    Trial,
    accuracies_of,
    faster,
    load,
    measure,
    watch,
)

keras = labkit.lazy("keras")

Placement = Literal["none", "after", "before"]
PLACEMENTS: tuple[Placement, ...] = ("none", "after", "before")
"""Of the normalisation: nowhere, after the activation (the hand-out's), before it (the paper's)."""
HANDOUT_RATE = 0.001
LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01)
TARGET = 0.975
"""Validation accuracy that counts as arrived."""
COLUMNS = {
    "validation_accuracy_of_5_epochs": "validation % after 5 epochs",
    "validation_accuracy": "validation %",
    "test_accuracy": "test %",
    "train_accuracy": "training %",
    "train_seconds": "seconds",
}


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the comparison."""

    epochs: int = 10
    """Passes over the 54,000 training images in each training, 1 or more."""
    rounds: int = 50
    """Timings of each network's inference, in turn, 1 or more."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, rounds=1)


@dataclass(frozen=True, kw_only=True)
class NormalizationTrial(Trial):
    """A training with normalisation at one place and one learning rate."""

    placement: Placement
    learning_rate: float


def build(placement: Placement) -> keras.Model:
    """The hand-out's network: 407,050 parameters without, 409,098 with normalisation after.

    Of the latter 408,074 are trained; the other 1,024 are moving averages for inference. Placed
    before the activation, normalisation's own shift replaces the bias: 408,586.
    """
    inputs = keras.Input((784,))
    if placement == "before":
        x = keras.layers.Dense(512, use_bias=False)(inputs)  # (B, 512)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("relu")(x)
    else:
        x = keras.layers.Dense(512, activation="relu")(inputs)  # (B, 512)
        if placement == "after":
            x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(10, activation="softmax")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name=f"dense_normalized_{placement}")


def fold(model: keras.Model, placement: Placement) -> keras.Model:
    """The same function without normalisation, exact at inference: 407,050 parameters.

    There batch normalisation is y = scale * x + shift with fixed numbers, scale = gamma /
    sqrt(variance + epsilon) and shift = beta - scale * mean (Ioffe and Szegedy, algorithm 2).
    """
    folded = build("none")
    first, last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if placement == "none":
        folded.set_weights(model.get_weights())
        return folded
    (normalization,) = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    gamma, beta, mean, variance = normalization.get_weights()  # (512,) each
    scale = gamma / np.sqrt(variance + normalization.epsilon)
    shift = beta - scale * mean
    kernel, bias = last.get_weights()  # (512, 10), (10,)
    if placement == "before":  # into the layer before: scale its outputs
        folded.set_weights([first.get_weights()[0] * scale, shift, kernel, bias])
    else:  # into the layer after: scale its inputs
        folded.set_weights(
            [*first.get_weights(), scale[:, np.newaxis] * kernel, bias + shift @ kernel]
        )
    return folded


def study(trial: NormalizationTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
    """Train with Adam at the trial's rate; return the final metrics."""
    labkit.prepare(trial.seed)
    model = build(trial.placement)
    model.compile(
        keras.optimizers.Adam(trial.learning_rate),
        loss="sparse_categorical_crossentropy",
        **faster(trial),
    )
    model.fit(
        to_input(data.train.x), data.train.y, batch_size=BATCH_SIZE, epochs=trial.epochs,
        callbacks=[watch(run, model, data)], verbose=0,
    )  # fmt: skip
    return measure(trial, model, data, run) | arrival(run.history)


def arrival(history: dict[str, list[float]]) -> dict[str, float]:
    """Epochs and seconds to the target, absent where it was never reached; accuracy of 5 epochs."""
    accuracy = history["validation_accuracy"]
    found = {"validation_accuracy_of_5_epochs": accuracy[4]} if len(accuracy) >= 5 else {}
    if max(accuracy) >= TARGET:
        first = int(np.argmax(np.array(accuracy) >= TARGET))
        found |= {"epochs_to_97.5": first + 1, "seconds_to_97.5": history["seconds"][first]}
    return found


def warm_up(seed: int) -> None:
    """Train on one batch: the first training of a process also waits for TensorFlow to begin."""
    labkit.prepare(seed)
    model = build("after")
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(np.zeros((BATCH_SIZE, 784), np.float32), np.zeros(BATCH_SIZE), verbose=0)


def choice(placement: Placement, rate: float, configuration: str = "") -> dict[str, Any]:
    """What a trial varies; it is called by its placement if not given another name."""
    name = configuration or placement
    return {"configuration": name, "placement": placement, "learning_rate": rate}


def time_inference(outcomes: list[comparison.Outcome], rounds: int) -> dict[str, list[float]]:
    """Milliseconds for 1,000 images of each placement, and folded, `rounds` timings of each.

    The networks take turns, so that a busy moment of the machine hits them all. Raises
    `RuntimeError` when a folded network answers otherwise than the original.
    """
    x = np.random.default_rng(0).random((1000, 784), dtype=np.float32)
    networks = {}
    for outcome in outcomes:
        if not outcome.trial.keep:
            continue
        placement = outcome.trial.placement
        model = labkit.load_model(outcome.path / "model.keras")
        networks[placement] = model
        if placement != "none":
            networks[f"{placement}, folded"] = folded = fold(model, placement)
            difference = np.abs(folded.predict_on_batch(x) - model.predict_on_batch(x)).max()
            if difference > 1e-4:
                raise RuntimeError(f"folding {placement} changed an answer by {difference:.1e}")
    milliseconds: dict[str, list[float]] = {name: [] for name in networks}
    for model in networks.values():
        model.predict_on_batch(x)  # builds the graph
    for _ in tqdm(range(rounds), desc="inference", unit="round"):
        for name, model in networks.items():
            started = time.perf_counter()
            model.predict_on_batch(x)
            milliseconds[name].append(1000 * (time.perf_counter() - started))
    return milliseconds


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Compare the placements; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke, "stratified")
    rates = LEARNING_RATES[1:3] if config.smoke else LEARNING_RATES
    placements = PLACEMENTS[:2] if config.smoke else PLACEMENTS
    name = "dense_batchnorm-adam-crossentropy"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if run.is_finished:
            return comparison.show_again(run)
        warm_up(config.seed)
        train = config.trainer(run, __file__, study, load)

        def report(prefix: str, rate: dict[str, float], **changes: str) -> list[comparison.Outcome]:
            choices = [choice(name, rate[name], f"{prefix}_{name}") | changes for name in rate]
            return train(config.trials(NormalizationTrial, choices), label=prefix)

        given = report("handout", dict.fromkeys(placements, HANDOUT_RATE), split="last")
        tried = [choice(name, rate) for name in placements for rate in rates]
        sweep = train(config.trials(NormalizationTrial, tried, "choose"), label="learning rates")
        best = {name: trial.learning_rate for name, trial in comparison.choose(sweep).items()}
        run.log_metrics({f"{name}/chosen_learning_rate": rate for name, rate in best.items()})
        outcomes = {"handout": given, "best": report("best", best)}
        outcomes["tenfold"] = report("tenfold", {name: 10 * rate for name, rate in best.items()})
        times = time_inference(outcomes["handout"], 3 if config.smoke else config.rounds)
        medians = {name: float(np.median(column)) for name, column in times.items()}
        draw(run, outcomes, sweep, times)
        return comparison.conclude(
            run,
            "Batch normalisation on MNIST: speed, tolerance, cost",
            [outcome for group in outcomes.values() for outcome in group],
            COLUMNS,
            conclusions(best, HANDOUT_RATE, outcomes, comparison.at_an_edge(sweep), medians),
            floors(data),
            {
                "chosen_learning_rates": best,
                "sweep": accuracies_of(sweep, lambda t: f"{t.placement}_{t.learning_rate:g}"),
                "inference_milliseconds": medians,
            },
        )


if __name__ == "__main__":
    main()
