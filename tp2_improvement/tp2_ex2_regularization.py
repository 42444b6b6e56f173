"""Do L2, dropout and weight decay improve validation, or do they only close the gap?

    python tp2_improvement/tp2_ex2_regularization.py             # about 9 minutes on two cores
    python tp2_improvement/tp2_ex2_regularization.py --epochs 8  # as in README.md
    python tp2_improvement/tp2_ex2_regularization.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex2_regularization.py --resume    # go on after an interruption

1. The hand-out's setting: L2 of 0.001 on the dense layer, dropout after the input and before the
   output, beside the network without both.
2. The same budget for each method: three strengths, chosen on validation images.
3. New seeds at the chosen strengths: the gap, validation, and one look at the test images.

Losses are compared as cross-entropy alone: Keras adds the L2 penalty to the loss that it reports,
on validation images too.

References: Srivastava et al. (JMLR 2014) for dropout, Loshchilov and Hutter (ICLR 2019) for weight
decay that is decoupled from Adam's scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import comparison, figures
from labkit.evidence import (
    compare_pairs,
    curves_figure,
    difference_in_words,
    mean_interval,
    percent,
    values,
)
from tp1_mnist_api.digits import floors, to_input
from tp2_improvement.training import BATCH_SIZE, Settings, Trial, faster, load, measure, watch

keras = labkit.lazy("keras")

METHODS: dict[str, list[dict[str, float]]] = {  # three strengths each
    "none": [{}],
    "l2": [{"l2": strength} for strength in (1e-5, 1e-4, 1e-3)],
    "one_dropout": [{"dropout": rate} for rate in (0.2, 0.35, 0.5)],
    "two_dropouts": [{"dropout": rate, "input_dropout": rate} for rate in (0.1, 0.2, 0.3)],
    "l2_two_dropouts": [
        {"l2": strength, "dropout": 0.2, "input_dropout": 0.2} for strength in (1e-6, 1e-5, 1e-4)
    ],
    "adamw": [{"weight_decay": strength} for strength in (0.01, 0.1, 1.0)],
}
HANDOUT = {
    "handout_none": {},
    "handout_l2_two_dropouts": {"l2": 1e-3, "dropout": 0.2, "input_dropout": 0.2},
}

COLUMNS = {
    "train_accuracy": "training %",
    "validation_accuracy": "validation %",
    "test_accuracy": "test %",
    "validation_cross_entropy": "validation loss",
}


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the comparison of regularisers."""


@dataclass(frozen=True, kw_only=True)
class RegularizerTrial(Trial):
    """A training with some regularisation; zero switches a part off."""

    l2: float = 0.0
    """Factor of the squared weights of the hidden layer in the loss."""
    dropout: float = 0.0
    """Share of the hidden units that are dropped."""
    input_dropout: float = 0.0
    """Share of the pixels that are dropped."""
    weight_decay: float = 0.0
    """Decoupled decay of all kernels, multiplied by the learning rate at each step."""


def build(trial: RegularizerTrial) -> keras.Model:
    """The hand-out's network with the trial's regularisation: 407,050 parameters always."""
    inputs = x = keras.Input((784,))
    if trial.input_dropout:
        x = keras.layers.Dropout(trial.input_dropout)(x)
    penalty = keras.regularizers.L2(trial.l2) if trial.l2 else None
    x = keras.layers.Dense(512, activation="relu", kernel_regularizer=penalty)(x)  # (B, 512)
    if trial.dropout:
        x = keras.layers.Dropout(trial.dropout)(x)
    outputs = keras.layers.Dense(10, activation="softmax")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="dense_regularized")


def study(trial: RegularizerTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
    """Train with Adam at its defaults, AdamW with decoupled decay; return the final metrics."""
    labkit.prepare(trial.seed)
    model = build(trial)
    optimizer = keras.optimizers.Adam()
    if trial.weight_decay:
        optimizer = keras.optimizers.AdamW(weight_decay=trial.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss="sparse_categorical_crossentropy", **faster(trial))
    model.fit(
        to_input(data.train.x), data.train.y, batch_size=BATCH_SIZE, epochs=trial.epochs,
        callbacks=[watch(run, model, data)], verbose=0,
    )  # fmt: skip
    return measure(trial, model, data, run)


def gaps(outcomes: list[comparison.Outcome]) -> dict[str, list[float]]:
    """Training minus validation accuracy of each configuration, one a seed."""
    validation = values(outcomes, "validation_accuracy")
    return {
        name: [a - b for a, b in zip(training, validation[name], strict=True)]
        for name, training in values(outcomes, "train_accuracy").items()
    }


def gap_figure(outcomes: list[comparison.Outcome]) -> figures.Figure:
    """Validation accuracy against the gap, with 95 % intervals: up is better, left is closed."""
    figure, axis = figures.subplots(size=(7, 4.8))
    gap = gaps(outcomes)
    for index, (name, sample) in enumerate(values(outcomes, "validation_accuracy").items()):
        x, y = 100 * np.mean(gap[name]), 100 * np.mean(sample)
        x_low, x_high = (100 * bound for bound in mean_interval(gap[name]))
        y_low, y_high = (100 * bound for bound in mean_interval(sample))
        axis.errorbar(
            x, y, [[y - y_low], [y_high - y]], [[x - x_low], [x_high - x]],
            fmt="os^vDP"[index % 6], capsize=3, label=name.replace("_", " "),
        )  # fmt: skip
    axis.set(xlabel="training minus validation accuracy (points)", ylabel="validation accuracy (%)")
    axis.set(title="Closing the gap is not the same as improving")
    axis.legend(fontsize=8)
    return figure


def draw(
    run: labkit.Run, final: list[comparison.Outcome], handout: list[comparison.Outcome]
) -> None:
    """Save the three figures."""
    panels = {
        "train_cross_entropy": "training loss (cross-entropy)",
        "validation_cross_entropy": "validation loss (cross-entropy)",
        "validation_accuracy": "validation accuracy",
    }
    run.save_figure("curves", curves_figure(final, panels))
    run.save_figure("curves_handout", curves_figure(handout, panels))
    run.save_figure("gap", gap_figure(final))


def strengths_of(trial: RegularizerTrial) -> dict[str, float]:
    """The parts of the regularisation that are switched on."""
    names = ("l2", "dropout", "input_dropout", "weight_decay")
    return {name: getattr(trial, name) for name in names if getattr(trial, name)}


def conclusions(
    final: list[comparison.Outcome],
    handout: list[comparison.Outcome],
    chosen: dict[str, RegularizerTrial],
) -> list[str]:
    """Of each method: did validation improve, did the gap close?"""
    strengths = [
        f"{method} ({', '.join(f'{n} {value:g}' for n, value in strengths_of(trial).items())})"
        for method, trial in chosen.items()
        if method != "none"
    ]
    found = ["Strengths chosen on validation, three tried for each method: " + "; ".join(strengths)]
    for outcomes, base in ((final, "none"), (handout, "handout_none")):
        gap, validation = gaps(outcomes), values(outcomes, "validation_accuracy")
        for sample, what in ((validation, "validation accuracy"), (gap, "gap")):
            found += [difference_in_words(pair, what) for pair in compare_pairs(sample, base)]
    test = values(final, "test_accuracy")
    found += [f"Test accuracy of {name}: {percent(sample)}." for name, sample in test.items()]
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Sweep, compare, conclude; return the mean of every metric."""
    config = labkit.parse(Config, argv)
    data = load(config.data, config.smoke, "stratified")
    methods = {"none": [{}], "l2": METHODS["l2"][1:]} if config.smoke else METHODS
    with labkit.start_run(__file__, config, data.source, "dense-adam-regularized") as run:
        if run.is_finished:
            return comparison.show_again(run)
        train = config.trainer(run, __file__, study, load)
        as_given = [{"configuration": n, "split": "last", **HANDOUT[n]} for n in HANDOUT]
        handout = train(config.trials(RegularizerTrial, as_given), label="hand-out's setting")
        tried = [{"configuration": n, **strength} for n in methods for strength in methods[n]]
        sweep = train(config.trials(RegularizerTrial, tried, "choose"), label="strengths")
        chosen = comparison.choose(sweep)
        best = [{"configuration": n, **strengths_of(trial)} for n, trial in chosen.items()]
        final = train(config.trials(RegularizerTrial, best), label="chosen strengths")
        draw(run, final, handout)
        for method, trial in chosen.items():
            strengths = strengths_of(trial)
            run.log_metrics({f"{method}/chosen_{n}": value for n, value in strengths.items()})
        validation = values(final, "validation_accuracy")
        return comparison.conclude(
            run,
            "Regularisation on MNIST: the gap and what it is worth",
            handout + final,
            COLUMNS,
            conclusions(final, handout, chosen),
            floors(data),
            {
                "chosen": {method: strengths_of(trial) for method, trial in chosen.items()},
                "pairs_validation": [vars(p) for p in compare_pairs(validation, "none")],
                "pairs_gap": [vars(p) for p in compare_pairs(gaps(final), "none")],
            },
        )


if __name__ == "__main__":
    main()
