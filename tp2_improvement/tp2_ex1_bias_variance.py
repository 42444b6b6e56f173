"""Does the hand-out's network suffer from bias, from variance, or from neither?

    python tp2_improvement/tp2_ex1_bias_variance.py             # 12 minutes on two cores
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
from labkit import comparison, figures
from labkit.evidence import mean_interval, percent, values
from tp1_mnist_api.digits import floors, to_input
from tp1_mnist_api.models import build_dense
from tp2_improvement.training import BATCH_SIZE, Settings, Trial, faster, load, measure, watch

keras = labkit.lazy("keras")

THRESHOLD = 0.02
"""Of the rule: 2 points of error."""
SIZES = (500, 1000, 2000, 5000, 10000, 20000)
"""Numbers of training images; all 54,000 come on top."""
FEW = 1000
"""Training images of the case that has too few."""

COLUMNS = {
    "train_accuracy": "training %",
    "validation_accuracy": "validation %",
    "logged_train_accuracy": "training % as printed",
    "validation_cross_entropy": "validation loss",
}


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


def study(trial: DiagnosisTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
    """Train with Adam at its defaults, the hand-out's choice; return the final metrics.

    With few images each is shown more often: all trainings make the same number of steps, so that
    they differ in what they see and not in how long they learn.
    """
    labkit.prepare(trial.seed)
    model = build_linear() if trial.network == "linear" else build_dense(dropout_rate=0.2)
    model.compile(
        keras.optimizers.Adam(),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],  # Keras' running mean under dropout, to show how it misleads
        **faster(trial),
    )
    # The same images for every seed; smaller sets lie within larger ones.
    order = np.random.default_rng(0).permutation(len(data.train))[: trial.images]
    shown = np.resize(order, len(data.train))
    model.fit(
        to_input(data.train.x[shown]), data.train.y[shown],
        batch_size=BATCH_SIZE, epochs=trial.epochs, verbose=0,
        callbacks=[watch(run, model, data, seen=order)],
    )  # fmt: skip
    return measure(trial, model, data, run)


def verdict(train_accuracy: Sequence[float], validation_accuracy: Sequence[float]) -> str:
    """The rule of the module's first lines on accuracies in 0..1, one a seed."""
    error = 1 - np.asarray(train_accuracy)
    gap = np.asarray(train_accuracy) - np.asarray(validation_accuracy)
    found = []
    for name, sample in (("bias", error), ("variance", gap)):
        low, high = np.nan_to_num(mean_interval(sample), nan=sample[0])  # equal: no interval
        if low > THRESHOLD:
            found.append(name)
        elif high >= THRESHOLD:
            found.append(f"{name} undecided")
    return " and ".join(found) or "neither"


def epochs_figure(outcomes: list[comparison.Outcome]) -> figures.Figure:
    """The hand-out's network against epochs: loss, and error measured in two ways."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4.2))
    lines = [
        (left, "train_cross_entropy", "training"),
        (left, "validation_cross_entropy", "validation"),
        (right, "train_accuracy", "training, inference mode"),
        (right, "validation_accuracy", "validation"),
        (right, "logged_train_accuracy", "training, as fit() prints it"),
    ]
    for axis, metric, label in lines:
        sample = np.array([outcome.history[metric] for outcome in outcomes])
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


def sizes_figure(outcomes: list[comparison.Outcome], everything: int) -> figures.Figure:
    """Error against the number of training images, which is `everything` where none is given."""
    figure, axis = figures.subplots(size=(6.5, 4.4))
    by_size: dict[int, list[comparison.Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.trial.images or everything):
        by_size.setdefault(outcome.trial.images or everything, []).append(outcome)
    for metric, label in (("train_accuracy", "training"), ("validation_accuracy", "validation")):
        sample = [[100 - 100 * o.metrics[metric] for o in group] for group in by_size.values()]
        intervals = np.array([mean_interval(errors) for errors in sample])
        axis.plot(list(by_size), np.mean(sample, axis=1), marker="o", label=label)
        axis.fill_between(list(by_size), intervals[:, 0], intervals[:, 1], alpha=0.2)
    axis.axhline(100 * THRESHOLD, color="0.5", linewidth=1, linestyle="--")
    axis.set(xscale="log", xlabel="training images", ylabel="error (%)", ylim=(0, None))
    axis.set(title="Same steps, more images: the gap closes (95 % intervals)")
    axis.legend()
    return figure


def conclusions(outcomes: list[comparison.Outcome]) -> list[str]:
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
    data = load(config.data, config.smoke, "stratified")
    sizes, few = ((100, 200), 100) if config.smoke else (SIZES, FEW)
    cases = [
        {"configuration": "handout", "split": "last"},
        {"configuration": "handout_longer", "split": "last", "epochs": 3 * config.length},
        {"configuration": "handout_stratified"},
        {"configuration": "too_simple", "network": "linear"},
        {"configuration": "too_few_images", "images": few},
    ]
    others = [{"configuration": f"images_{n}", "images": n} for n in sizes if n != few]
    with labkit.start_run(__file__, config, data.source, "dense-adam-crossentropy") as run:
        if run.is_finished:
            return comparison.show_again(run)
        train = config.trainer(run, __file__, study, load)
        outcomes = train(config.trials(DiagnosisTrial, cases), label="cases")
        by_size = train(
            config.trials(DiagnosisTrial, others, "choose", config.all_seeds),  # no need to test
            label="numbers of images",
        )
        by_case = {
            case["configuration"]: [o for o in outcomes if o.configuration == case["configuration"]]
            for case in cases
        }
        run.save_figure("against_epochs", epochs_figure(by_case["handout_longer"]))
        by_size_and_case = by_size + by_case["handout_stratified"] + by_case["too_few_images"]
        run.save_figure("against_images", sizes_figure(by_size_and_case, len(data.train)))
        return comparison.conclude(
            run,
            "Bias or variance? The hand-out's network on MNIST",
            outcomes + by_size,
            COLUMNS,
            conclusions(outcomes),
            floors(data),
            {"rule_points": 100 * THRESHOLD},
        )


if __name__ == "__main__":
    main()
