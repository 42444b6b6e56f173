"""What does batch normalisation buy on the hand-out's network, and what does it cost?

    python tp2_improvement/tp2_ex4_batchnorm.py             # about 10 minutes on two cores
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
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

import labkit
from labkit import comparison, figures
from labkit.evidence import compare_pairs, curves_figure, difference_in_words, values
from tp1_mnist_api.digits import floors, to_input
from tp2_improvement.training import BATCH_SIZE, Settings, Trial, faster, load, measure, watch

keras = labkit.lazy("keras")

Placement = Literal["none", "after", "before"]
PLACEMENTS: tuple[Placement, ...] = ("none", "after", "before")
"""Of the normalisation: nowhere, after the activation (the hand-out's), before it (the paper's)."""
LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01)
TARGET = 0.975
"""Validation accuracy that counts as arrived."""
COLUMNS = {
    "validation_accuracy": "validation %",
    "test_accuracy": "test %",
    "train_accuracy": "training %",
    "train_seconds": "seconds",
}


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
    """Epochs and seconds to the target; both are absent where it was never reached."""
    arrived = np.flatnonzero(np.array(history["validation_accuracy"]) >= TARGET)
    if not len(arrived):
        return {}
    first = int(arrived[0])
    return {"epochs_to_97.5": first + 1, "seconds_to_97.5": history["seconds"][first]}


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


def inference_figure(milliseconds: dict[str, list[float]]) -> figures.Figure:
    """Box plots of the inference times."""
    figure, axis = figures.subplots(size=(7, 3.6))
    names = list(milliseconds)[::-1]
    axis.boxplot([milliseconds[name] for name in names], orientation="horizontal", showfliers=False)
    axis.set_yticks(range(1, len(names) + 1), labels=names)
    axis.set(xlabel="milliseconds for 1,000 images", title="Inference, networks in turn")
    return figure


def tolerance_figure(
    sweep: list[comparison.Outcome], tenfold: list[comparison.Outcome]
) -> figures.Figure:
    """Validation accuracy against the learning rate: the sweep, and ten times the chosen rate."""
    figure, axis = figures.subplots(size=(6.5, 4.2))
    for index, name in enumerate(PLACEMENTS):
        for outcomes, style, label in (
            (sweep, "o-", name), (tenfold, "x", f"{name}, ten times its best rate"),
        ):  # fmt: skip
            own = [outcome for outcome in outcomes if outcome.trial.placement == name]
            axis.plot(
                [outcome.trial.learning_rate for outcome in own],
                [100 * outcome.metrics["validation_accuracy"] for outcome in own],
                style, color=f"C{index}", label=label if own else None,
            )  # fmt: skip
    axis.set(xscale="log", xlabel="learning rate (Adam)", ylabel="validation accuracy (%)")
    axis.set(title="Where is the normalisation, what does it tolerate?")
    axis.legend(fontsize=8)
    return figure


def draw(
    run: labkit.Run,
    outcomes: dict[str, list[comparison.Outcome]],
    sweep: list[comparison.Outcome],
    milliseconds: dict[str, list[float]],
) -> None:
    """Save the four figures."""
    panels = {"train_cross_entropy": "training loss", "validation_accuracy": "validation accuracy"}
    run.save_figure("curves_handout", curves_figure(outcomes["handout"], panels))
    run.save_figure("curves_best", curves_figure(outcomes["best"], panels))
    run.save_figure("tolerance", tolerance_figure(sweep, outcomes["tenfold"]))
    run.save_figure("inference", inference_figure(milliseconds))


def arrival_in_words(outcomes: list[comparison.Outcome]) -> list[str]:
    """Epochs and seconds to the target, seed by seed; a seed that never arrived is named so."""
    found = []
    seconds = values(outcomes, "seconds_to_97.5")
    for name, epochs in values(outcomes, "epochs_to_97.5").items():
        seeds = sum(outcome.configuration == name for outcome in outcomes)
        if not epochs:
            found.append(f"{name}: no seed of {seeds} reaches 97.5 % validation.")
            continue
        found.append(
            f"{name}: {len(epochs)} of {seeds} seeds reach 97.5 % validation, after "
            f"{', '.join(f'{count:.0f}' for count in epochs)} epochs and "
            f"{', '.join(f'{time:.1f}' for time in seconds[name])} seconds."
        )
    return found


def conclusions(
    best: dict[str, float],
    outcomes: dict[str, list[comparison.Outcome]],
    medians: dict[str, float],
) -> list[str]:
    """The rates, who arrives when, who differs from the network without, and what it costs."""
    listed = ", ".join(f"{name} {rate:g}" for name, rate in best.items())
    found = [f"Learning rates chosen on validation, four tried for each: {listed}."]
    found += arrival_in_words(outcomes["handout"]) + arrival_in_words(outcomes["best"])
    for prefix, group in outcomes.items():
        for metric in ("validation_accuracy", "test_accuracy"):
            pairs = compare_pairs(values(group, metric), f"{prefix}_none")
            found += [difference_in_words(pair, metric.replace("_", " ")) for pair in pairs]
    times = ", ".join(f"{name} {median:.2f}" for name, median in medians.items())
    return [*found, f"Inference, median milliseconds for 1,000 images: {times}."]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Compare the placements; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke, "stratified")
    rates = LEARNING_RATES[1:3] if config.smoke else LEARNING_RATES
    placements = PLACEMENTS[:2] if config.smoke else PLACEMENTS
    with labkit.start_run(
        __file__, config, data.source, "dense_batchnorm-adam-crossentropy"
    ) as run:
        if run.is_finished:
            return comparison.show_again(run)
        train = config.trainer(run, __file__, study, load)

        def report(prefix: str, rate: dict[str, float], **changes: str) -> list[comparison.Outcome]:
            choices = [choice(name, rate[name], f"{prefix}_{name}") | changes for name in rate]
            return train(config.trials(NormalizationTrial, choices), label=prefix)

        outcomes = {"handout": report("handout", dict.fromkeys(placements, 0.001), split="last")}
        tried = [choice(name, rate) for name in placements for rate in rates]
        sweep = train(config.trials(NormalizationTrial, tried, "choose"), label="learning rates")
        best = {name: trial.learning_rate for name, trial in comparison.choose(sweep).items()}
        run.log_metrics({f"{name}/chosen_learning_rate": rate for name, rate in best.items()})
        outcomes["best"] = report("best", best)
        outcomes["tenfold"] = report("tenfold", {name: 10 * rate for name, rate in best.items()})
        times = time_inference(outcomes["handout"], 3 if config.smoke else config.rounds)
        medians = {name: float(np.median(column)) for name, column in times.items()}

        draw(run, outcomes, sweep, times)
        return comparison.conclude(
            run,
            "Batch normalisation on MNIST: speed, tolerance, cost",
            [outcome for group in outcomes.values() for outcome in group],
            COLUMNS,
            conclusions(best, outcomes, medians),
            floors(data),
            {"chosen_learning_rates": best, "inference_milliseconds": medians},
        )


if __name__ == "__main__":
    main()
