"""Which optimizer is best for the hand-out's network, once each has had the same tuning?

    python tp2_improvement/tp2_ex3_optimizers.py
    python tp2_improvement/tp2_ex3_optimizers.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex3_optimizers.py --resume    # go on after an interruption

1. The same budget for six optimizers: four learning rates each, chosen on validation images over
   two seeds.
2. New seeds at the chosen rates, one look at the test images, paired tests corrected for their
   number.
3. The same seeds at the hand-out's rates: SGD with momentum at 0.01, RMSprop and Adam at 0.001.

README.md has the figures. A configuration is called by its optimizer and rate: `adam_0.001`.

References: Choi et al. (arXiv 1910.05446) on tuning and rankings, Holm (1979) on many tests,
Demsar (JMLR 2006) on drawing a ranking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import comparison, figures
from labkit.evidence import (
    Pair,
    compare_questions,
    curves_figure,
    difference_in_words,
    indistinguishable_groups,
    percent,
    ranking_figure,
    values,
)
from tp1_mnist_api.digits import floors, to_input
from tp1_mnist_api.models import build_dense
from tp2_improvement.training import (
    BATCH_SIZE,
    PANELS,
    Settings,
    Trial,
    accuracies_of,
    faster,
    load,
    measure,
    watch,
)

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")

LEARNING_RATES = {  # the same number for each: half decades around its usual rate
    "sgd": (0.1, 0.3, 1.0, 3.0),
    "momentum": (0.01, 0.03, 0.1, 0.3),
    "nesterov": (0.01, 0.03, 0.1, 0.3),
    "rmsprop": (0.0003, 0.001, 0.003, 0.01),
    "adam": (0.0003, 0.001, 0.003, 0.01),
    "adamw": (0.0003, 0.001, 0.003, 0.01),
}
HANDOUT = {  # its key: our name for the optimizer, its learning rate
    "SGD_with_momentum": ("momentum", 0.01),
    "RMSprop": ("rmsprop", 0.001),
    "Adam": ("adam", 0.001),
}

COLUMNS = {
    "test_accuracy": "test %",
    "validation_accuracy": "validation %",
    "train_accuracy": "training %",
    "train_seconds": "seconds",
}


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the comparison of optimizers."""

    seeds: int = 5
    """Trainings of each optimizer at its chosen rate, 2 or more."""


@dataclass(frozen=True, kw_only=True)
class OptimizerTrial(Trial):
    """A training with one optimizer and one learning rate."""

    optimizer: str
    learning_rate: float


def make_optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    """A new optimizer: one that is used twice carries its velocities into the second training."""
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate)
    if name == "momentum":
        return keras.optimizers.SGD(learning_rate, momentum=0.9)
    if name == "nesterov":
        return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)
    if name == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate)
    if name == "adam":
        return keras.optimizers.Adam(learning_rate)
    return keras.optimizers.AdamW(learning_rate)  # decoupled decay, Keras' default 0.004


def study(trial: OptimizerTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
    """Train TP1's dense network, made anew from the trial's seed; return the final metrics."""
    labkit.prepare(trial.seed)
    model = build_dense(dropout_rate=0.2)
    model.compile(
        make_optimizer(trial.optimizer, trial.learning_rate),
        loss="sparse_categorical_crossentropy",
        **faster(trial),
    )
    model.fit(
        to_input(data.train.x), data.train.y, batch_size=BATCH_SIZE, epochs=trial.epochs,
        callbacks=[watch(run, model, data)], verbose=0,
    )  # fmt: skip
    return measure(trial, model, data, run)


def called(optimizer: str, learning_rate: float) -> str:
    """The configuration's name, such as `adam_0.001`."""
    return f"{optimizer}_{learning_rate:g}"


def choices(pairs: Iterable[tuple[str, float]]) -> list[dict[str, str | float]]:
    """What trials of optimizers and learning rates vary."""
    return [
        {"configuration": called(name, rate), "optimizer": name, "learning_rate": rate}
        for name, rate in pairs
    ]


def name_as_in_the_handout(outcomes: list[comparison.Outcome]) -> None:
    """Give tracked runs the hand-out's names, and their metric the hand-out's name as well."""
    client = mlflow.MlflowClient()
    keys = {called(*choice): key for key, choice in HANDOUT.items()}
    for outcome in outcomes:
        if key := keys.get(outcome.configuration):
            client.set_tag(outcome.run_id, "mlflow.runName", f"Optimizer_Comparison_{key}")
            accuracy = outcome.metrics["test_accuracy"]
            client.log_metric(outcome.run_id, "final_test_accuracy", accuracy)


def sensitivity_figure(sweep: list[comparison.Outcome]) -> figures.Figure:
    """Validation error against the learning rate, a line per optimizer."""
    figure, axis = figures.subplots(size=(7, 4.4))
    for index, (name, settings) in enumerate(comparison.swept(sweep, "optimizer").items()):
        axis.plot(
            [trial.learning_rate for trial in settings],
            [100 - 100 * accuracy for accuracy in settings.values()],
            "-" if index < 3 else "--", marker="o", label=name,
        )  # fmt: skip
    axis.set(xscale="log", xlabel="learning rate", yscale="log")
    axis.set(ylabel="validation error (%), mean of two seeds")
    axis.set(title="Sensitivity to the learning rate")
    axis.legend(fontsize=8)
    return figure


def compared(
    tuned: dict[str, list[float]], handout: dict[str, list[float]]
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """The tuned among themselves, the hand-out's, and its momentum against the tuned one, if that
    has another rate; under one adjustment for all."""
    slow, fast = called(*HANDOUT["SGD_with_momentum"]), next(n for n in tuned if "momentum" in n)
    both = {fast: tuned[fast], slow: handout[slow]}
    return tuple(compare_questions([(tuned, None), (handout, None), (both, None)]))


def conclusions(
    tuned: dict[str, list[float]], handout: dict[str, list[float]], edges: list[str]
) -> list[str]:
    """What the test accuracies, one a seed, allow to say; `edges` are chosen at an end."""
    pairs, of_handout, of_momentum = compared(tuned, handout)
    apart = [pair for pair in pairs if pair.distinguishable]
    best = max(tuned, key=lambda name: np.mean(tuned[name]))
    groups = [", ".join(group) for group in indistinguishable_groups(tuned, pairs)]
    found = [
        f"Verdict: once each has its own rate, {len(apart) or 'none'} of the {len(pairs)} pairs of "
        "optimizers can be told apart by test accuracy (paired t-test, Holm over all pairs of the "
        f"exercise, 5 %). Not distinguishable among themselves: {'; '.join(groups) or 'none'}.",
        "Rates chosen on validation, four tried for each optimizer over two seeds: "
        f"{', '.join(tuned)}. At an end of those tried: {', '.join(edges) or 'none'}.",
        f"Highest mean test accuracy at the chosen rates: {best}, {percent(tuned[best])}.",
        *(difference_in_words(pair, "test accuracy") for pair in apart),
    ]
    ranked = sorted(handout, key=lambda name: -np.mean(handout[name]))
    listed = "; ".join(f"{name} {percent(handout[name])}" for name in ranked)
    found.append(f"At the hand-out's rates: {listed}.")
    found += [difference_in_words(pair, "test accuracy") for pair in of_handout + of_momentum]
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Sweep, compare, conclude; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke, "stratified")
    rates = LEARNING_RATES
    if config.smoke:
        rates = {name: rates[name][:2] for name in ("momentum", "adam")}
    with labkit.start_run(__file__, config, data.source, "dense-optimizers-crossentropy") as run:
        if run.is_finished:
            return comparison.show_again(run)
        train = config.trainer(run, __file__, study, load)
        everything = choices((name, rate) for name in rates for rate in rates[name])
        sweep = train(config.trials(OptimizerTrial, everything, "choose"), label="rates")
        chosen = {n: t.learning_rate for n, t in comparison.choose(sweep, "optimizer").items()}
        run.log_metrics({f"{name}/chosen_learning_rate": rate for name, rate in chosen.items()})
        once = dict.fromkeys([*chosen.items(), *HANDOUT.values()])
        final = train(config.trials(OptimizerTrial, choices(once)), label="reported")
        run.track(name_as_in_the_handout, final)

        test = values(final, "test_accuracy")
        tuned = {called(*choice): test[called(*choice)] for choice in chosen.items()}
        handout = {called(*choice): test[called(*choice)] for choice in HANDOUT.values()}
        run.save_figure("learning_rates", sensitivity_figure(sweep))
        run.save_figure("curves", curves_figure(final, PANELS))
        in_percent = {name: [100 * value for value in sample] for name, sample in tuned.items()}
        pairs, *_ = compared(tuned, handout)
        run.save_figure("ranking", ranking_figure(in_percent, pairs, "test accuracy (%)"))
        return comparison.conclude(
            run,
            "Optimizers on MNIST: the same tuning for all, and the hand-out's rates",
            final,
            COLUMNS,
            conclusions(tuned, handout, comparison.at_an_edge(sweep, "optimizer")),
            floors(data),
            {
                "chosen_learning_rates": chosen,
                "sweep": accuracies_of(sweep, lambda trial: trial.configuration, "optimizer"),
                "pairs": [vars(pair) for pair in pairs],
            },
        )


if __name__ == "__main__":
    main()
