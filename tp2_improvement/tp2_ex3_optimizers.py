"""Which optimizer is best for the hand-out's network, once each has had the same tuning?

    python tp2_improvement/tp2_ex3_optimizers.py             # 10 minutes on two cores
    python tp2_improvement/tp2_ex3_optimizers.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex3_optimizers.py --resume    # go on after an interruption

1. The hand-out's setting: SGD with momentum at 0.01, RMSprop and Adam at 0.001.
2. The same budget for six optimizers: four learning rates each, chosen on validation images.
3. New seeds at the chosen rates, one look at the test images, paired tests corrected for their
   number. README.md has the figures.

References: Choi et al. (arXiv 1910.05446) on tuning and rankings, Holm (1979) on many tests,
Demsar (JMLR 2006) on drawing a ranking.
"""

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
    indistinguishable_groups,
    percent,
    ranking_figure,
    values,
)

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")

LEARNING_RATES = {  # the same number for each: half decades around its usual rate
    "sgd": (0.03, 0.1, 0.3, 1.0),
    "momentum": (0.01, 0.03, 0.1, 0.3),
    "nesterov": (0.01, 0.03, 0.1, 0.3),
    "rmsprop": (0.0003, 0.001, 0.003, 0.01),
    "adam": (0.0003, 0.001, 0.003, 0.01),
    "adamw": (0.0003, 0.001, 0.003, 0.01),
}
HANDOUT = {  # configuration: the hand-out's key, our name, its learning rate
    "handout_sgd_momentum": ("SGD_with_momentum", "momentum", 0.01),
    "handout_rmsprop": ("RMSprop", "rmsprop", 0.001),
    "handout_adam": ("Adam", "adam", 0.001),
}
SWEEP_SEED = 1000
"""Of the trainings that choose a rate; the final ones have other seeds."""


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


def make_optimizer(name: str, learning_rate: float) -> "keras.optimizers.Optimizer":
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


def train(trial: OptimizerTrial, split: Split, run: labkit.Run) -> "keras.Model":
    """Train TP1's dense network, made anew from the trial's seed."""
    labkit.prepare(trial.seed)
    model = build_dense(dropout_rate=0.2)
    model.compile(
        make_optimizer(trial.optimizer, trial.learning_rate),
        loss="sparse_categorical_crossentropy",
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=False,
    )
    model.fit(
        split.x_train, split.y_train,
        batch_size=BATCH_SIZE, epochs=trial.epochs, callbacks=[watch(run, model, split)], verbose=0,
    )  # fmt: skip
    return model


def name_as_in_the_handout(outcome: dict) -> None:
    """Give a tracked run the hand-out's name, and its metric the hand-out's name as well."""
    client, run_id = mlflow.MlflowClient(), outcome["run_id"]
    key = HANDOUT[outcome["trial"]["configuration"]][0]
    client.set_tag(run_id, "mlflow.runName", f"Optimizer_Comparison_{key}")
    client.log_metric(run_id, "final_test_accuracy", outcome["metrics"]["test_accuracy"])


def sensitivity_figure(sweep: list[dict]) -> "figures.Figure":
    """Validation accuracy against the learning rate, a line an optimizer."""
    figure, axis = figures.subplots(size=(7, 4.4))
    for index, name in enumerate(values(sweep, "validation_accuracy")):
        points = [outcome for outcome in sweep if outcome["trial"]["configuration"] == name]
        axis.plot(
            [outcome["trial"]["learning_rate"] for outcome in points],
            [100 * outcome["metrics"]["validation_accuracy"] for outcome in points],
            "-" if index < 3 else "--", marker="o", label=name,
        )  # fmt: skip
    axis.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy (%), one seed")
    best = 100 * max(outcome["metrics"]["validation_accuracy"] for outcome in sweep)
    axis.set(title="Sensitivity to the learning rate", ylim=(best - 6, best + 0.3))
    axis.legend(fontsize=8)
    return figure


def conclusions(final: list[dict], handout: list[dict], chosen: dict[str, dict]) -> list[str]:
    """What the figures allow to say, in sentences."""
    test = values(final, "test_accuracy")
    pairs = compare_pairs(test)
    apart = sum(pair.distinguishable for pair in pairs)
    rates = ", ".join(f"{name} {trial['learning_rate']:g}" for name, trial in chosen.items())
    found = [f"Learning rates chosen on validation, four tried for each optimizer: {rates}."]
    best = max(test, key=lambda name: np.mean(test[name]))
    found.append(f"Highest mean test accuracy at the chosen rates: {best}, {percent(test[best])}.")
    found.append(
        f"{apart} of {len(pairs)} pairs can be told apart (paired t-test, Holm, 5 %). "
        "Not distinguishable among themselves: "
        + ("; ".join(", ".join(group) for group in indistinguishable_groups(test)) or "none")
        + "."
    )
    found += [difference_in_words(pair, "test accuracy") for pair in pairs if pair.distinguishable]
    at_handout = values(handout, "test_accuracy")
    ranked = sorted(at_handout, key=lambda name: -np.mean(at_handout[name]))
    found.append(
        "At the hand-out's rates: "
        + "; ".join(f"{HANDOUT[name][0]} {percent(at_handout[name])}" for name in ranked)
        + "."
    )
    rates = {
        "momentum": test["momentum"],
        "handout_sgd_momentum": at_handout["handout_sgd_momentum"],
    }
    found += [difference_in_words(pair, "test accuracy") for pair in compare_pairs(rates)]
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Sweep, compare, conclude; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    source = labkit.load_mnist(config.data).source
    rates = LEARNING_RATES
    if config.smoke:
        rates = {name: rates[name][:2] for name in ("momentum", "adam")}
    with labkit.start_run(__file__, config, source, "dense-optimizers-crossentropy") as run:
        if run.is_finished:
            return show_again(run)

        handout = run_trials(run, __file__, train, config, [
            OptimizerTrial(
                configuration=name, optimizer=optimizer, learning_rate=rate,
                purpose="report", seed=seed, **common(config, split="last"),
            )
            for name, (_, optimizer, rate) in HANDOUT.items() for seed in config.all_seeds
        ], "hand-out's setting")  # fmt: skip
        for outcome in handout:
            run.track(name_as_in_the_handout, outcome)

        sweep = run_trials(run, __file__, train, config, [
            OptimizerTrial(
                configuration=name, optimizer=name, learning_rate=rate,
                purpose="choose", seed=SWEEP_SEED, **common(config),
            )
            for name in rates for rate in rates[name]
        ], "learning rates")  # fmt: skip
        chosen = choose(sweep)
        for name, trial in chosen.items():
            if trial["learning_rate"] in (rates[name][0], rates[name][-1]):
                print(f"note: {name} is best at the edge of its rates, {trial['learning_rate']:g}")

        final = run_trials(run, __file__, train, config, [
            OptimizerTrial(
                configuration=name, optimizer=name, learning_rate=trial["learning_rate"],
                purpose="report", seed=seed, **common(config),
            )
            for name, trial in chosen.items() for seed in config.all_seeds
        ], "chosen rates")  # fmt: skip

        run.save_figure("learning_rates", sensitivity_figure(sweep))
        panels = {
            "train_cross_entropy": "training loss",
            "validation_accuracy": "validation accuracy",
        }
        run.save_figure("curves", curves_figure(final, panels))
        run.save_figure("curves_handout", curves_figure(handout, panels))
        test = values(final, "test_accuracy")
        run.save_figure(
            "ranking",
            ranking_figure({k: [100 * x for x in v] for k, v in test.items()}, "test accuracy (%)"),
        )
        return conclude(
            run,
            "Optimizers on MNIST: the hand-out's rates, then the same tuning for all",
            handout + final,
            {
                "test_accuracy": "test %",
                "validation_accuracy": "validation %",
                "train_accuracy": "training %",
                "train_seconds": "seconds",
            },
            conclusions(final, handout, chosen),
            measure_floors(config),
            {
                "chosen_learning_rates": {n: t["learning_rate"] for n, t in chosen.items()},
                "sweep": [
                    [
                        o["trial"]["optimizer"],
                        o["trial"]["learning_rate"],
                        o["metrics"]["validation_accuracy"],
                    ]
                    for o in sweep
                ],
                "pairs": [vars(pair) for pair in compare_pairs(test)],
            },
        )


if __name__ == "__main__":
    main()
