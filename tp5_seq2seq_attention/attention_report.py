"""Figures and conclusions of `attention_exercise.py`, of trials with task, length and network."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from labkit import figures
from labkit.comparison import Outcome
from labkit.evidence import values
from labkit.results import in_words
from tp5_seq2seq_attention.attention_scale import scale_in_words
from tp5_seq2seq_attention.grammar import Sentences, TaskName, labels_of

CLOUD = 0.25
"""Seeds whose accuracies are further apart than this are told one by one."""
BY_CHANCE = 0.03
"""By which accuracy on 2,000 sentences may exceed that of guessing: 2.7 deviations at 0.5."""


def heat_figure(task: TaskName, part: Sentences, weights: dict[str, np.ndarray]) -> figures.Figure:
    """Weights of the first sentences of `part`, a row a network; deciding words are framed.

    `weights` holds (sentences, T) for each network. Each row has a colour scale of its own: the
    hand-out's weights could not be seen on that of the others.
    """
    count = len(next(iter(weights.values())))
    figure, axes = figures.subplots(count, 1, size=(15, count * (0.9 + 0.35 * len(weights))))
    for index, axis in enumerate(np.atleast_1d(axes)):
        words = part.words(index)
        shown = np.array([rows[index, : len(words)] for rows in weights.values()])
        axis.imshow(
            shown / np.maximum(shown.max(axis=1, keepdims=True), 1e-9), aspect="auto",
            cmap="Oranges", interpolation="nearest",
        )  # fmt: skip
        axis.set_xticks(range(len(words)), words, rotation=90, fontsize=7)
        names = [
            f"{name}, largest {row.max():.2f}" for name, row in zip(weights, shown, strict=True)
        ]
        axis.set_yticks(range(len(names)), names, fontsize=8)
        for place in np.flatnonzero(part.deciding[index]):
            axis.axvspan(place - 0.5, place + 0.5, fill=False, edgecolor="C0", linewidth=2)
        label = labels_of(task)[part.y[index]]
        axis.set_title(f"{task}: {label}. Framed: what decides", fontsize=9)
        axis.grid(False)
    return figure


def length_figure(outcomes: list[Outcome]) -> figures.Figure:
    """Test accuracy and attention recall of each seed against the sentences' length, and means."""
    figure, axes = figures.subplots(1, 2, size=(10, 4))
    networks = list(dict.fromkeys(outcome.trial.network for outcome in outcomes))
    lengths = sorted({outcome.trial.length for outcome in outcomes})
    for metric, axis in zip(("test_accuracy", "test_attention_recall"), axes, strict=True):
        samples = values(outcomes, metric)
        for place, network in enumerate(networks):
            points = {
                outcome.trial.length * 1.04 ** (place - len(networks) // 2): sample
                for outcome in outcomes
                if outcome.trial.network == network and (sample := samples[outcome.configuration])
            }  # beside each other
            for x, sample in points.items():
                axis.plot([x] * len(sample), sample, "o", color=f"C{place}", alpha=0.5)
            means = [np.mean(sample) for sample in points.values()]
            label = network.replace("_", " ")
            axis.plot(list(points), means, "_-", markersize=14, color=f"C{place}", label=label)
        axis.set(xlabel="length (words)", ylim=(-0.02, 1.05), title=metric.replace("_", " "))
        axis.set_xscale("log")
        axis.set_xticks(lengths, lengths)
        axis.minorticks_off()
    axes[0].legend(fontsize=8)
    return figure


def largest_recall(length: int, deciding: int = 2) -> float:
    """The most that `SimpleAttention` without gain can have on `deciding` of `length` words.

    Its scores lie between -1 and 1: k e / (k e + (n - k) / e).
    """
    return deciding * math.e / (deciding * math.e + (length - deciding) / math.e)


def conclusions(
    outcomes: list[Outcome], floors: dict[str, float], scale: dict[str, list[float]]
) -> list[str]:
    """What the figures allow to say, computed from them; `scale` is that of `measure_scale`."""
    accuracy, recall, padding = (
        values(outcomes, f"test_{name}")
        for name in ("accuracy", "attention_recall", "weight_on_padding")
    )
    told = partial(in_words, cloud=CLOUD)
    found = []
    for task, length in dict.fromkeys((o.trial.task, o.trial.length) for o in outcomes):
        of_task = f"{task}{length}"
        pairs, gru, handout = (f"{n}_{of_task}" for n in ("attention_pairs", "gru", "handout"))
        if pairs in accuracy and gru in accuracy:
            apart = min(accuracy[pairs]) > max(accuracy[gru])
            found.append(
                f"{of_task}: attention over pairs is right in {told(accuracy[pairs])}, the GRU "
                f"alone in {told(accuracy[gru])}: "
                + ("every seed of the first is above every seed of the second."
                   if apart else "the seeds overlap.")
            )  # fmt: skip
        majority = floors[f"floor_majority_{of_task}"]
        for name, sample in accuracy.items():
            if name.endswith(f"_{of_task}") and max(sample) < majority + BY_CHANCE:
                found.append(
                    f"{of_task}: {name.removesuffix(f'_{of_task}')} never learns the task, "
                    f"{told(sample)} beside {majority:.3f} for the most frequent label."
                )
        if handout in accuracy:
            found.append(
                f"{of_task}: the hand-out's attention has {told(recall[handout])} on the "
                f"deciding words at an accuracy of {told(accuracy[handout])}. In a sentence of "
                f"{length} words its tanh allows {largest_recall(length):.3f} at most."
            )
        most = [max(v) for name, v in padding.items() if v and name.endswith(f"_{of_task}")]
        if most:
            found.append(f"{of_task}: the largest weight on padding is {max(most):g}.")
    return found + scale_in_words(scale)
