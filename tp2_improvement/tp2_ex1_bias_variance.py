"""Does the hand-out's network suffer from bias, from variance, or from neither?

    python tp2_improvement/tp2_ex1_bias_variance.py             # 6 minutes on two cores
    python tp2_improvement/tp2_ex1_bias_variance.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex1_bias_variance.py --resume    # go on after an interruption

The rule, stated before the verdict: errors are measured in inference mode. *Bias* when the training
error is above 2 points, *variance* when the validation error exceeds it by more than 2 points, both
or *neither* otherwise; *undecided* where the 95 % interval over seeds contains 2 points. (Published
networks err on fewer than 0.2 % of MNIST, so the error that can't be avoided is taken as zero.)

The rule is tried on three cases: the hand-out's network, one that is too simple, and one that has
too few images. Then the error is followed against epochs and against the number of images.

Reference: Goodfellow, Bengio and Courville, Deep Learning (2016), sections 5.2 to 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import figures
from tp1_mnist_api.models import build_dense
from tp2_improvement.comparison import (
    BATCH_SIZE,
    STEPS_PER_EXECUTION,
    Settings,
    Split,
    Trial,
    common,
    conclude,
    measure_floors,
    run_trials,
    show_again,
    watch,
)
from tp2_improvement.evidence import mean_interval, percent, values

keras = labkit.lazy("keras")

THRESHOLD = 0.02
"""Of the rule: 2 points of error."""
SIZES = (500, 1000, 2000, 5000, 10000, 20000)
"""Numbers of training images; all 54,000 come on top."""
FEW = 1000
"""Training images of the case that has too few."""


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the diagnosis."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisTrial(Trial):
    """A training of one network on some of the images."""

    network: str = "handout"
    """`handout`, TP1's dense network, or `linear`, a single layer."""
    images: int | None = None
    """How many training images it sees; None: all."""


def build_linear() -> keras.Model:
    """Softmax regression, too simple for the task: 7,850 parameters."""
    inputs = keras.Input((784,))
    outputs = keras.layers.Dense(10, activation="softmax")(inputs)  # (B, 10)
    return keras.Model(inputs, outputs, name="linear")


def train(trial: DiagnosisTrial, split: Split, run: labkit.Run) -> keras.Model:
    """Train with Adam at its defaults, the hand-out's choice.

    With few images each is shown more often: all trainings make the same number of steps, so that
    they differ in what they see and not in how long they learn.
    """
    labkit.prepare(trial.seed)
    model = build_linear() if trial.network == "linear" else build_dense(dropout_rate=0.2)
    model.compile(
        keras.optimizers.Adam(),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],  # Keras' running mean under dropout, to show how it misleads
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=False,
    )
    # The same images for every seed; smaller sets lie within larger ones.
    order = np.random.default_rng(0).permutation(len(split.x_train))[: trial.images]
    shown = np.resize(order, len(split.x_train))
    model.fit(
        split.x_train[shown], split.y_train[shown],
        batch_size=BATCH_SIZE, epochs=trial.epochs, verbose=0,
        callbacks=[watch(run, model, split, seen=order)],
    )  # fmt: skip
    return model


def verdict(train_accuracy: Sequence[float], validation_accuracy: Sequence[float]) -> str:
    """The rule of the module's first lines on accuracies in 0..1, one a seed."""
    error = 1 - np.asarray(train_accuracy)
    gap = np.asarray(train_accuracy) - np.asarray(validation_accuracy)
    found = []
    for name, sample in (("bias", error), ("variance", gap)):
        low, high = mean_interval(sample)
        if low > THRESHOLD:
            found.append(name)
        elif high >= THRESHOLD:
            found.append(f"{name} undecided")
    return " and ".join(found) or "neither"


def epochs_figure(outcomes: list[dict]) -> figures.Figure:
    """The hand-out's network against epochs: loss, and error measured in two ways."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4.2))
    histories = [outcome["history"] for outcome in outcomes]

    lines = [
        (left, "train_cross_entropy", "training"),
        (left, "validation_cross_entropy", "validation"),
        (right, "train_accuracy", "training, inference mode"),
        (right, "validation_accuracy", "validation"),
        (right, "logged_train_accuracy", "training, as fit() prints it"),
    ]
    for axis, metric, label in lines:
        sample = np.array([history[metric] for history in histories])
        if "accuracy" in metric:
            sample = 100 * (1 - sample)
        epochs = np.arange(1, sample.shape[1] + 1)
        axis.plot(epochs, sample.mean(axis=0), marker=".", label=label)
        axis.fill_between(epochs, sample.min(axis=0), sample.max(axis=0), alpha=0.15)
    left.set(xlabel="epoch", title="Cross-entropy (nats)")
    right.axhline(100 * THRESHOLD, color="0.5", linewidth=1, linestyle="--")
    right.set(xlabel="epoch", title="Error (%); dashed: the rule's 2 points", ylim=(0, None))
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)
    return figure


def sizes_figure(outcomes: list[dict]) -> figures.Figure:
    """Training and validation error against the number of training images."""
    figure, axis = figures.subplots(size=(6.5, 4.4))

    def size_of(outcome: dict) -> int:
        return outcome["trial"]["images"] or outcome["train_images"]

    sizes = sorted({size_of(outcome) for outcome in outcomes})
    for metric, label in (("train_accuracy", "training"), ("validation_accuracy", "validation")):
        sample = [
            [100 - 100 * o["metrics"][metric] for o in outcomes if size_of(o) == size]
            for size in sizes
        ]
        intervals = np.array([mean_interval(errors) for errors in sample])
        axis.plot(sizes, np.mean(sample, axis=1), marker="o", label=label)
        axis.fill_between(sizes, intervals[:, 0], intervals[:, 1], alpha=0.2)
    axis.axhline(100 * THRESHOLD, color="0.5", linewidth=1, linestyle="--")
    axis.set(xscale="log", xlabel="training images", ylabel="error (%)", ylim=(0, None))
    axis.set(title="Same steps, more images: the gap closes (95 % intervals)")
    axis.legend()
    return figure


def conclusions(outcomes: list[dict]) -> list[str]:
    """A verdict on each configuration, with the figures that it follows from."""
    found = []
    validation = values(outcomes, "validation_accuracy")
    for name, training in values(outcomes, "train_accuracy").items():
        error = [1 - accuracy for accuracy in training]
        gap = [a - b for a, b in zip(training, validation[name], strict=True)]
        found.append(
            f"{name}: {verdict(training, validation[name])}. Training error {percent(error)}, "
            f"gap to validation {percent(gap)}."
        )
    evaluated = values(outcomes, "train_accuracy")["handout"]
    logged = values(outcomes, "logged_train_accuracy")["handout"]
    hidden = [a - b for a, b in zip(evaluated, logged, strict=True)]
    found.append(
        f"handout: the training accuracy that fit() prints, {percent(logged)}, is a running mean "
        f"under dropout; evaluated it is {percent(evaluated)}. The difference, {percent(hidden)}, "
        "would hide as much of the gap."
    )
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train the cases and the sizes, apply the rule; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    source = labkit.load_mnist(config.data).source
    sizes, few = ((100, 200), 100) if config.smoke else (SIZES, FEW)
    settings = common(config)
    longer = 3 * settings["epochs"]
    cases = {
        "handout": {"split": "last"},
        "handout_longer": {"split": "last", "epochs": longer},
        "handout_stratified": {},
        "too_simple": {"network": "linear"},
        "too_few_images": {"images": few},
    }
    with labkit.start_run(__file__, config, source, "dense-adam-crossentropy") as run:
        if run.is_finished:
            return show_again(run)

        def trials(configurations: dict[str, dict], purpose: str) -> list[DiagnosisTrial]:
            return [
                DiagnosisTrial(
                    configuration=name, purpose=purpose, seed=seed, **{**settings, **changes}
                )
                for name, changes in configurations.items()
                for seed in config.all_seeds
            ]

        outcomes = run_trials(run, __file__, train, config, trials(cases, "report"), "cases")
        others = {f"images_{n}": {"images": n} for n in sizes if n != few}
        by_size = run_trials(
            run, __file__, train, config, trials(others, "choose"), "numbers of images"
        )
        run.save_figure(
            "against_epochs",
            epochs_figure([o for o in outcomes if o["trial"]["configuration"] == "handout_longer"]),
        )
        stratified = [
            outcome for outcome in outcomes
            if outcome["trial"]["configuration"] in ("handout_stratified", "too_few_images")
        ]  # fmt: skip
        run.save_figure("against_images", sizes_figure(by_size + stratified))
        return conclude(
            run,
            "Bias or variance? The hand-out's network on MNIST",
            outcomes + by_size,
            {
                "train_accuracy": "training %",
                "validation_accuracy": "validation %",
                "logged_train_accuracy": "training % as printed",
                "validation_cross_entropy": "validation loss",
            },
            conclusions(outcomes),
            measure_floors(config),
            {"rule_points": 100 * THRESHOLD},
        )


if __name__ == "__main__":
    main()
