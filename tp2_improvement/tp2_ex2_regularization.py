"""Do L2, dropout and weight decay improve validation, or do they only close the gap?

    python tp2_improvement/tp2_ex2_regularization.py
    python tp2_improvement/tp2_ex2_regularization.py --smoke     # everything once, in seconds
    python tp2_improvement/tp2_ex2_regularization.py --resume    # go on after an interruption

1. The hand-out's setting: L2 of 0.001 on the dense layer, dropout after the input and before the
   output, beside the network without both.
2. The same budget for each method: five strengths, chosen on validation images over two seeds.
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
    Pair,
    compare_questions,
    curves_figure,
    difference_in_words,
    mean_interval,
    percent,
    values,
)
from tp1_mnist_api.digits import floors, to_input
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

PENALTIES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
RATES = (0.05, 0.1, 0.2, 0.35, 0.5)
METHODS: dict[str, list[dict[str, float]]] = {  # five strengths each, the weakest first
    "none": [{}],
    "l2": [{"l2": strength} for strength in PENALTIES],
    "one_dropout": [{"dropout": rate} for rate in RATES],
    "two_dropouts": [{"dropout": rate, "input_dropout": rate} for rate in RATES],
    "l2_two_dropouts": [
        {"l2": strength, "dropout": 0.2, "input_dropout": 0.2} for strength in PENALTIES
    ],
    "adamw": [{"weight_decay": strength} for strength in (0.001, 0.01, 0.1, 1.0, 10.0)],
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

    epochs: int = 8
    """Passes over the 54,000 training images in each training, 1 or more."""


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
    panels = PANELS | {"validation_cross_entropy": "validation cross-entropy (nats)"}
    run.save_figure("curves", curves_figure(final, panels))
    run.save_figure("curves_handout", curves_figure(handout, panels))
    run.save_figure("gap", gap_figure(final))


def strengths_of(trial: RegularizerTrial) -> dict[str, float]:
    """The parts of the regularisation that are switched on."""
    names = ("l2", "dropout", "input_dropout", "weight_decay")
    return {name: getattr(trial, name) for name in names if getattr(trial, name)}


def in_words(strengths: dict[str, float]) -> str:
    """Such as `l2 1e-05, dropout 0.2`."""
    return ", ".join(f"{name} {value:g}" for name, value in strengths.items())


def compared(
    final: list[comparison.Outcome], handout: list[comparison.Outcome]
) -> dict[str, list[Pair]]:
    """Each method against none, in validation accuracy and in the gap, under one adjustment."""
    sides = ((final, "none"), (handout, "handout_none"))
    validation, gap, *of_handout = compare_questions(
        [
            (measured, base)
            for outcomes, base in sides
            for measured in (values(outcomes, "validation_accuracy"), gaps(outcomes))
        ]
    )
    return {
        "validation accuracy": validation + of_handout[0],
        "gap": gap + of_handout[1],
    }


def conclusions(
    final: list[comparison.Outcome],
    handout: list[comparison.Outcome],
    sweep: list[comparison.Outcome],
) -> list[str]:
    """The verdict, then of each method: did validation improve, did the gap close?"""
    pairs = compared(final, handout)

    def those(what: str, above: bool) -> str:
        names = [
            pair.first
            for pair in pairs[what]
            if pair.distinguishable and (pair.difference > 0) == above
        ]
        return ", ".join(names) or "no method"

    edges = comparison.at_an_edge(sweep)
    strengths = [
        f"{method} ({in_words(strengths_of(trial))}"
        + (", at an end of its grid)" if method in edges else ")")
        for method, trial in comparison.choose(sweep).items()
        if method != "none"
    ]
    return [
        "Verdict: validation accuracy is measurably higher than without regularisation for "
        f"{those('validation accuracy', True)}, lower for {those('validation accuracy', False)}; "
        f"the gap is measurably smaller for {those('gap', False)}.",
        "Strengths chosen on validation, five tried for each method over two seeds: "
        f"{'; '.join(strengths)}.",
        *(difference_in_words(pair, what) for what, of in pairs.items() for pair in of),
        *(
            f"Test accuracy of {name}: {percent(sample)}."
            for name, sample in values(final, "test_accuracy").items()
        ),
    ]


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
        return comparison.conclude(
            run,
            "Regularisation on MNIST: the gap and what it is worth",
            handout + final,
            COLUMNS,
            conclusions(final, handout, sweep),
            floors(data),
            {
                "chosen": {method: strengths_of(trial) for method, trial in chosen.items()},
                "sweep": accuracies_of(
                    sweep, lambda trial: f"{trial.configuration} {in_words(strengths_of(trial))}"
                ),
                "pairs": {
                    what: [vars(pair) for pair in pairs]
                    for what, pairs in compared(final, handout).items()
                },
            },
        )


if __name__ == "__main__":
    main()
