"""What does batch normalisation buy on the hand-out's network, and what does it cost?

    python tp2_improvement/tp2_ex4_batchnorm.py             # about 9 minutes on two cores
    python tp2_improvement/tp2_ex4_batchnorm.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex4_batchnorm.py --resume    # go on after an interruption

1. The hand-out's setting, Dense(relu), BatchNormalization, Dropout, beside the network without and
   the one with normalisation before the activation: epochs and seconds to 97.5 % validation.
2. The same, each at its own best learning rate of four, chosen on validation images.
3. Ten times that rate: who tolerates it?
4. Inference: what normalisation costs, and that it can be folded into its neighbour.

Reference: Ioffe and Szegedy (ICML 2015), algorithms 1 and 2.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tqdm import tqdm

import labkit
from labkit import figures
from tp2_improvement.comparison import (
    BATCH_SIZE,
    STEPS_PER_EXECUTION,
    SWEEP_SEED,
    Settings,
    Split,
    Trial,
    choose,
    common,
    conclude,
    measure_floors,
    run_trials,
    show_again,
    watch,
)
from tp2_improvement.evidence import (
    compare_pairs,
    curves_figure,
    difference_in_words,
    values,
)

keras = labkit.lazy("keras")

Placement = Literal["none", "after", "before"]
PLACEMENTS: tuple[Placement, ...] = ("none", "after", "before")
"""Of the normalisation: nowhere, after the activation (the hand-out's), before it (the paper's)."""
LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01)
TARGET = 0.975
"""Validation accuracy that counts as arrived."""


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the comparison."""

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


def train(trial: NormalizationTrial, split: Split, run: labkit.Run) -> keras.Model:
    """Train with Adam at the trial's rate."""
    labkit.prepare(trial.seed)
    model = build(trial.placement)
    model.compile(
        keras.optimizers.Adam(trial.learning_rate),
        loss="sparse_categorical_crossentropy",
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=False,
    )
    model.fit(
        split.x_train, split.y_train,
        batch_size=BATCH_SIZE, epochs=trial.epochs, callbacks=[watch(run, model, split)], verbose=0,
    )  # fmt: skip
    arrived = np.flatnonzero(np.array(run.history["validation_accuracy"]) >= TARGET)
    if len(arrived):  # otherwise the two metrics are absent
        first = int(arrived[0])
        run.log_metrics(
            {"epochs_to_97.5": first + 1, "seconds_to_97.5": run.history["seconds"][first]}
        )
    return model


def time_inference(outcomes: list[dict], seed: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds for 1,000 images of each placement, and folded, `rounds` timings of each.

    The networks take turns, so that a busy moment of the machine hits them all. Raises
    `RuntimeError` when a folded network answers otherwise than the original.
    """
    x = np.random.default_rng(0).random((1000, 784), dtype=np.float32)
    networks = {}
    for outcome in outcomes:
        if outcome["trial"]["seed"] != seed:
            continue
        placement = outcome["trial"]["placement"]
        model = keras.saving.load_model(
            labkit.home() / "outputs" / outcome["folder"] / "model.keras"
        )
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


def inference_figure(milliseconds: dict[str, list[float]]) -> figures.Figure:
    """Box plots of the inference times."""
    figure, axis = figures.subplots(size=(7, 3.6))
    names = list(milliseconds)[::-1]
    axis.boxplot([milliseconds[name] for name in names], orientation="horizontal", showfliers=False)
    axis.set_yticks(range(1, len(names) + 1), labels=names)
    axis.set(xlabel="milliseconds for 1,000 images", title="Inference, networks in turn")
    return figure


def tolerance_figure(sweep: list[dict], tenfold: list[dict]) -> figures.Figure:
    """Validation accuracy against the learning rate: the sweep, and ten times the chosen rate."""
    figure, axis = figures.subplots(size=(6.5, 4.2))
    for index, name in enumerate(PLACEMENTS):
        points = [o for o in sweep if o["trial"]["placement"] == name]
        ten = [o for o in tenfold if o["trial"]["placement"] == name]
        color = f"C{index}"
        axis.plot(
            [o["trial"]["learning_rate"] for o in points],
            [100 * o["metrics"]["validation_accuracy"] for o in points],
            marker="o", color=color, label=name,
        )  # fmt: skip
        axis.plot(
            [o["trial"]["learning_rate"] for o in ten],
            [100 * o["metrics"]["validation_accuracy"] for o in ten],
            "x", color=color, label=f"{name}, ten times its best rate",
        )  # fmt: skip
    axis.set(xscale="log", xlabel="learning rate (Adam)", ylabel="validation accuracy (%)")
    axis.set(title="Where is the normalisation, what does it tolerate?")
    axis.legend(fontsize=8)
    return figure


def arrival_in_words(outcomes: list[dict]) -> list[str]:
    """Epochs and seconds to the target, seed by seed; a seed that never arrived is named so."""
    found = []
    for name in values(outcomes, "validation_accuracy"):
        own = [outcome for outcome in outcomes if outcome["trial"]["configuration"] == name]
        arrived = [o["metrics"] for o in own if "epochs_to_97.5" in o["metrics"]]
        if not arrived:
            found.append(f"{name}: no seed of {len(own)} reaches 97.5 % validation.")
            continue
        epochs = ", ".join(f"{metrics['epochs_to_97.5']:.0f}" for metrics in arrived)
        seconds = ", ".join(f"{metrics['seconds_to_97.5']:.1f}" for metrics in arrived)
        found.append(
            f"{name}: {len(arrived)} of {len(own)} seeds reach 97.5 % validation, after "
            f"{epochs} epochs and {seconds} seconds."
        )
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Compare the placements; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    source = labkit.load_mnist(config.data).source
    rates = LEARNING_RATES[1:2] if config.smoke else LEARNING_RATES
    placements = PLACEMENTS[:2] if config.smoke else PLACEMENTS
    with labkit.start_run(__file__, config, source, "dense_batchnorm-adam-crossentropy") as run:
        if run.is_finished:
            return show_again(run)

        def trials(prefix: str, learning_rate: dict[str, float], **changes: str) -> list:
            return [
                NormalizationTrial(
                    configuration=f"{prefix}_{placement}", placement=placement, purpose="report",
                    learning_rate=rate, seed=seed, **common(config, **changes),
                )
                for placement, rate in learning_rate.items() for seed in config.all_seeds
            ]  # fmt: skip

        same = dict.fromkeys(placements, 0.001)
        handout = run_trials(
            run, __file__, train, config, trials("handout", same, split="last"), "hand-out's rate"
        )
        sweep = run_trials(run, __file__, train, config, [
            NormalizationTrial(
                configuration=placement, placement=placement, purpose="choose",
                learning_rate=rate, seed=SWEEP_SEED, **common(config),
            )
            for placement in placements for rate in rates
        ], "learning rates")  # fmt: skip
        best = {name: trial["learning_rate"] for name, trial in choose(sweep).items()}
        final = run_trials(run, __file__, train, config, trials("best", best), "own best rates")
        ten = {name: 10 * rate for name, rate in best.items()}
        tenfold = run_trials(run, __file__, train, config, trials("tenfold", ten), "ten times that")
        milliseconds = time_inference(handout, config.seed, 3 if config.smoke else config.rounds)

        panels = {
            "train_cross_entropy": "training loss",
            "validation_accuracy": "validation accuracy",
        }
        run.save_figure("curves_handout", curves_figure(handout, panels))
        run.save_figure("curves_best", curves_figure(final, panels))
        run.save_figure("tolerance", tolerance_figure(sweep, tenfold))
        run.save_figure("inference", inference_figure(milliseconds))

        listed = ", ".join(f"{name} {rate:g}" for name, rate in best.items())
        found = [f"Learning rates chosen on validation, four tried for each: {listed}."]
        found += arrival_in_words(handout) + arrival_in_words(final)
        for prefix, outcomes in (("handout", handout), ("best", final), ("tenfold", tenfold)):
            for metric in ("validation_accuracy", "test_accuracy"):
                pairs = compare_pairs(values(outcomes, metric), f"{prefix}_none")
                found += [difference_in_words(pair, metric.replace("_", " ")) for pair in pairs]
        medians = {name: float(np.median(times)) for name, times in milliseconds.items()}
        found.append(
            "Inference, median milliseconds for 1,000 images: "
            + ", ".join(f"{name} {median:.2f}" for name, median in medians.items()) + "."
        )  # fmt: skip
        return conclude(
            run,
            "Batch normalisation on MNIST: speed, tolerance, cost",
            handout + final + tenfold,
            {
                "validation_accuracy": "validation %",
                "test_accuracy": "test %",
                "train_accuracy": "training %",
                "train_seconds": "seconds",
            },
            found,
            measure_floors(config),
            {"chosen_learning_rates": best, "inference_milliseconds": medians},
        )


if __name__ == "__main__":
    main()
