"""Figures and conclusions of `tp2_ex4_batchnorm.py`, of trials with placement and learning rate."""

from __future__ import annotations

import labkit
from labkit import comparison, figures
from labkit.evidence import Pair, compare_questions, curves_figure, difference_in_words, values
from tp2_improvement.training import PANELS

QUESTIONS = {  # what is compared to the network without, and its unit
    "epochs_to_97.5": ("epochs to 97.5 % validation", "epochs"),
    "seconds_to_97.5": ("seconds to 97.5 % validation", "seconds"),
    "validation_accuracy_of_5_epochs": ("validation accuracy after five epochs", "points"),
    "validation_accuracy": ("validation accuracy", "points"),
    "test_accuracy": ("test accuracy", "points"),
}


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
    for index, (name, settings) in enumerate(comparison.swept(sweep, "placement").items()):
        axis.plot(
            [trial.learning_rate for trial in settings],
            [100 * accuracy for accuracy in settings.values()],
            "o-", color=f"C{index}", label=name,
        )  # fmt: skip
        own = [outcome for outcome in tenfold if outcome.trial.placement == name]
        axis.plot(
            [outcome.trial.learning_rate for outcome in own],
            [100 * outcome.metrics["validation_accuracy"] for outcome in own],
            "x", color=f"C{index}", label=f"{name}, ten times its best rate",
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
    run.save_figure("curves_handout", curves_figure(outcomes["handout"], PANELS))
    run.save_figure("curves_best", curves_figure(outcomes["best"], PANELS))
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


def compared(outcomes: dict[str, list[comparison.Outcome]]) -> dict[str, list[Pair]]:
    """Each placement against none in all that is asked, under one adjustment for all pairs.

    Left out is what some training never reached: its time is longer, nobody knows by how much.
    """
    asked = {}
    for prefix, group in outcomes.items():
        seeds = len({outcome.trial.seed for outcome in group})
        for metric in QUESTIONS:
            samples = values(group, metric)
            if all(len(sample) == seeds for sample in samples.values()):
                asked[f"{prefix}/{metric}"] = (samples, f"{prefix}_none")
    return dict(zip(asked, compare_questions(list(asked.values())), strict=True))


def conclusions(
    best: dict[str, float],
    handout_rate: float,
    outcomes: dict[str, list[comparison.Outcome]],
    edges: list[str],
    medians: dict[str, float],
) -> list[str]:
    """The verdict on speed, the rates, who arrives when, who differs, and what it costs."""
    pairs = compared(outcomes)

    def told(metric: str) -> str:
        apart = [
            f"{pair.first} {'sooner' if pair.difference < 0 else 'later'}"
            for name, of in pairs.items()
            if name.endswith(f"/{metric}")
            for pair in of
            if pair.distinguishable
        ]
        return ", ".join(apart) or "nobody"

    listed = ", ".join(f"{name} {rate:g}" for name, rate in best.items())
    same = ", ".join(f"best_{name}" for name, rate in best.items() if rate == handout_rate)
    times = ", ".join(f"{name} {median:.2f}" for name, median in medians.items())
    count = sum(map(len, pairs.values()))
    return [
        "Verdict: who is measurably sooner or later at 97.5 % validation than the network without "
        f"normalisation? In epochs: {told('epochs_to_97.5')}. In seconds: "
        f"{told('seconds_to_97.5')} (paired t-test, Holm over all {count} pairs of the exercise, "
        "5 %).",
        f"Learning rates chosen on validation, four tried for each over two seeds: {listed}. At an "
        f"end of those tried: {', '.join(edges) or 'none'}. The hand-out's rate on another split: "
        f"{same or 'none'}.",
        *(sentence for group in outcomes.values() for sentence in arrival_in_words(group)),
        *(
            difference_in_words(pair, *QUESTIONS[name.partition("/")[2]])
            for name, of in pairs.items()
            for pair in of
        ),
        f"Inference, median milliseconds for 1,000 images: {times}.",
    ]
