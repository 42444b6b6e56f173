"""From trials to conclusions: intervals, paired tests, sentences, tables, figures.

Samples hold one value per seed, the same seeds in the same order for every configuration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from labkit import figures
from labkit.arguments import lazy
from labkit.results import in_words

if TYPE_CHECKING:
    from labkit.comparison import Outcome

stats = lazy("scipy.stats")


def values(outcomes: list[Outcome], metric: str) -> dict[str, list[float]]:
    """`metric` of each configuration, over its seeds in their order.

    Usage: `values(outcomes, "test_accuracy")["adam_0.001"]`. Trials without the metric, such as the
    time to a target that was never reached, are left out; a configuration may have none.
    """
    found: dict[str, list[float]] = {outcome.configuration: [] for outcome in outcomes}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.trial.seed):
        if metric in outcome.metrics:
            found[outcome.configuration].append(outcome.metrics[metric])
    return found


# --- Statistics ----------------------------------------------------------------------------------


def mean_interval(sample: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean over seeds; (nan, nan) where all are equal.

    Usage: `low, high = mean_interval([0.97, 0.98])`. Equal values don't show how far others would
    lie: an interval without width would say more than they do.
    """
    if _equal(sample):
        return math.nan, math.nan
    mean, error = np.mean(sample), stats.sem(sample)
    low, high = stats.t.interval(0.95, len(sample) - 1, loc=mean, scale=error)
    return float(low), float(high)


def _equal(sample: Sequence[float]) -> bool:
    """Whether its values are the same but for rounding, which would pass for a spread."""
    return np.ptp(sample) < 1e-12


@dataclass(frozen=True)
class Pair:
    """Two configurations compared seed by seed. Usage: `compare_pairs(samples)[0].p`."""

    first: str
    second: str
    difference: float
    """Mean of first minus second."""
    low: float | None
    high: float | None
    """95 % interval of this mean, for this pair alone; None where no test is possible."""
    p: float | None
    """Two-sided p of the paired t-test, adjusted by Holm over all pairs that can be tested; None
    where the difference is the same in every seed: without a spread there is no test."""

    @property
    def distinguishable(self) -> bool:
        """Whether there is an adjusted p and it is below 0.05."""
        return self.p is not None and self.p < 0.05


def compare_pairs(samples: dict[str, list[float]], base: str | None = None) -> list[Pair]:
    """Paired t-tests, p adjusted for their number by Holm (Scand. J. Stat. 1979).

    Usage: `compare_pairs(values(outcomes, "test_accuracy"), base="adam")`.

    With `base`, every other configuration is compared to that one only; otherwise all are compared
    to each other. A few seeds can't check the t-test's assumption, differences of normal
    distribution.
    """
    return compare_questions([(samples, base)])[0]


def compare_questions(
    questions: Sequence[tuple[dict[str, list[float]], str | None]],
) -> list[list[Pair]]:
    """The pairs of several (samples, base), with one adjustment for the number of all their pairs.

    Usage: `accuracy, gap = compare_questions([(accuracies, "none"), (gaps, "none")])`.

    Who asks ten questions and adjusts each for itself is answered by chance too often.
    """
    found = [
        [_compared(first, second, samples[first], samples[second]) for first, second in pairs]
        for samples, base in questions
        for pairs in [
            combinations(samples, 2)
            if base is None
            else [(other, base) for other in samples if other != base]
        ]
    ]
    adjusted = iter(holm([pair.p for pairs in found for pair in pairs if pair.p is not None]))
    return [
        [pair if pair.p is None else replace(pair, p=next(adjusted)) for pair in pairs]
        for pairs in found
    ]


def _compared(first: str, second: str, a: list[float], b: list[float]) -> Pair:
    """One pair, its p not yet adjusted."""
    difference = float(np.mean(np.subtract(a, b)))
    if _equal(np.subtract(a, b)):  # the t statistic is 0/0 or infinite
        return Pair(first, second, difference, None, None, None)
    test = stats.ttest_rel(a, b)
    low, high = map(float, test.confidence_interval(0.95))
    return Pair(first, second, difference, low, high, test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of `p_values`, in their order.

    Usage: `holm([0.01, 0.04])`.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def indistinguishable_groups(
    samples: dict[str, list[float]], pairs: Sequence[Pair]
) -> list[list[str]]:
    """Neighbours in the ranking by mean, best first, of which no two can be told apart.

    Usage: `indistinguishable_groups(samples, compare_pairs(samples))[0]`.

    Only groups of two or more that lie in no larger group; a configuration may be in several.
    """
    ranked = sorted(samples, key=lambda name: -np.mean(samples[name]))
    apart = {frozenset((pair.first, pair.second)) for pair in pairs if pair.distinguishable}
    groups: list[list[str]] = []
    for start in range(len(ranked)):
        stop = start + 1
        while stop < len(ranked) and not any(
            frozenset((ranked[stop], other)) in apart for other in ranked[start:stop]
        ):
            stop += 1
        if stop - start > 1 and not (groups and ranked[stop - 1] in groups[-1]):
            groups.append(ranked[start:stop])
    return groups


# --- Words, tables, pictures ---------------------------------------------------------------------


def percent(sample: Sequence[float], digits: int = 2) -> str:
    """Mean and 95 % interval in percent, within 0 and 100: `98.10 % [98.02, 98.18]`.

    Usage: `percent([0.97, 0.98])`.
    """
    mean = f"{100 * np.mean(sample):.{digits}f} %"
    if _equal(sample):
        return f"{mean} in all {len(sample)} seeds"
    low, high = np.clip(mean_interval(sample), 0, 1)
    return f"{mean} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def difference_in_words(pair: Pair, what: str, unit: str = "points") -> str:
    """One sentence on a pair: who is ahead and by how much, or that nobody is.

    Usage: `difference_in_words(pair, "test accuracy")`. Points are hundredths of what was measured,
    another `unit` is that of the measure itself.
    """
    factor = 100 if unit == "points" else 1
    difference = f"{factor * pair.difference:+.2f} {unit}"
    if pair.p is None:
        return (
            f"{pair.first} and {pair.second} differ in {what} by {difference} in every seed alike: "
            "without a spread no test is possible."
        )
    low, high = factor * pair.low, factor * pair.high
    if unit == "points":  # of shares, which can't differ by more
        low, high = np.clip((low, high), -100, 100)
    size = f"{difference} [{low:+.2f}, {high:+.2f}]"
    chance = f"= {pair.p:.3f}" if pair.p >= 0.001 else "< 0.001"
    if pair.distinguishable:
        word = "above" if pair.difference > 0 else "below"
        told = f"{pair.first} is {word} {pair.second} in {what}"
    else:
        told = f"{pair.first} and {pair.second} can't be told apart by {what}"
    return f"{told}: {size}, adjusted p {chance}."


def markdown(outcomes: list[Outcome], columns: dict[str, str]) -> str:
    """A table, one row per configuration: mean ± standard deviation of each metric in `columns`.

    Usage: `markdown(outcomes, {"test_accuracy": "test %"})`. Accuracies are in percent.
    """
    lines = ["| configuration | " + " | ".join(columns.values()) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    samples = {metric: values(outcomes, metric) for metric in columns}
    for name in dict.fromkeys(outcome.configuration for outcome in outcomes):
        cells = []
        for metric, sample in samples.items():
            factor = 100 if "accuracy" in metric else 1
            scaled = [factor * value for value in sample[name]]
            small = factor == 1 and np.max(scaled, initial=0) <= 1
            is_target = "_to_" in metric  # which a training may never reach
            cells.append(in_words(scaled, 3 if small else 2) if scaled or is_target else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def ranking_figure(
    samples: dict[str, list[float]], pairs: Sequence[Pair], label: str
) -> figures.Figure:
    """Means with 95 % intervals, best on top; a bar joins those that `pairs` can't tell apart.

    Usage: `ranking_figure(samples, compare_pairs(samples), "test accuracy (%)")`, in percent.
    """
    ranked = sorted(samples, key=lambda name: np.mean(samples[name]))
    figure, axis = figures.subplots(size=(7, 1.2 + 0.5 * len(ranked)))
    for height, name in enumerate(ranked):
        low, high = np.clip(mean_interval(samples[name]), 0, 100)
        axis.plot([low, high], [height, height], color="C0", linewidth=2)
        axis.plot(np.mean(samples[name]), height, "o", color="C0")
        axis.plot(samples[name], [height] * len(samples[name]), "|", color="0.5")
    for index, group in enumerate(indistinguishable_groups(samples, pairs)):
        heights = [ranked.index(name) for name in group]
        axis.plot(
            [1.03 + 0.03 * index] * 2, [min(heights) - 0.15, max(heights) + 0.15],
            color="C1", linewidth=4, transform=axis.get_yaxis_transform(), clip_on=False,
        )  # fmt: skip
    axis.set_yticks(range(len(ranked)), labels=[name.replace("_", " ") for name in ranked])
    axis.set(xlabel=label, title="Mean with 95 % interval; orange: not distinguishable")
    return figure


def curves_figure(outcomes: list[Outcome], panels: dict[str, str]) -> figures.Figure:
    """A panel per metric: mean and range over seeds against epochs, a line per configuration.

    Usage: `curves_figure(outcomes, {"val_loss": "validation loss (nats)"})`. Accuracies are drawn
    in percent. Trainings that ended early count as long as they went on.
    """
    figure, axes = figures.subplots(1, len(panels), size=(5.5 * len(panels), 4.4))
    styles = ["-", "--", ":", "-."]  # of neighbours: one shows through the other
    for axis, (metric, label) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        for index, name in enumerate(values(outcomes, metric)):
            runs = [o.history[metric] for o in outcomes if o.configuration == name]
            table = np.full((len(runs), max(map(len, runs))), np.nan)
            for row, run in zip(table, runs, strict=True):
                row[: len(run)] = run
            if "accuracy" in metric:
                table *= 100
                label = f"{label.removesuffix(' (%)')} (%)"
            epochs = np.arange(1, table.shape[1] + 1)
            axis.plot(epochs, np.nanmean(table, axis=0), styles[index % 4], label=name, marker=".")
            if len(runs) > 1:
                low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
                axis.fill_between(epochs, low, high, alpha=0.12)
        axis.set(xlabel="epoch", title=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    np.atleast_1d(axes)[-1].legend(fontsize=8)
    figure.suptitle("Lines: means over seeds. Bands: from the lowest to the highest.", fontsize=9)
    return figure
