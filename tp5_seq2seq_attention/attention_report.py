"""Figures and report of `attention_exercise.py`.

An *outcome* is what one training found: task, length, network, seed, metrics, history and the
weights of a few test sentences. A *series* holds a metric's values over the seeds, under names such
as `gru_marked50/test_accuracy`.
"""

from __future__ import annotations

import math
import re

import numpy as np

from labkit import figures
from labkit.results import in_words
from tp5_seq2seq_attention.grammar import Sentences, TaskName, labels_of


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
        label = labels_of(task)[part.labels[index]]
        axis.set_title(f"{task}: {label}. Framed: what decides", fontsize=9)
        axis.grid(False)
    return figure


def curves_figure(outcomes: list[dict]) -> figures.Figure:
    """Validation accuracy after each epoch, mean over seeds, a panel for each length."""
    lengths = sorted({outcome["length"] for outcome in outcomes})
    networks = list(dict.fromkeys(outcome["network"] for outcome in outcomes))
    figure, axes = figures.subplots(1, len(lengths), size=(5.5 * len(lengths), 4))
    for length, axis in zip(lengths, np.atleast_1d(axes), strict=True):
        for place, network in enumerate(networks):
            runs = [
                outcome["history"]["val_accuracy"]
                for outcome in outcomes
                if (outcome["length"], outcome["network"]) == (length, network)
            ]
            for number, run in enumerate(runs):  # they end early, each in its own epoch
                axis.plot(
                    np.arange(1, len(run) + 1), run, marker=".", color=f"C{place}", alpha=0.8,
                    label=None if number else network.replace("_", " "),
                )  # fmt: skip
        axis.set(xlabel="epoch", title=f"Validation accuracy, {length} words", ylim=(0, 1.02))
        axis.xaxis.get_major_locator().set_params(integer=True)
    np.atleast_1d(axes)[0].legend(fontsize=8)
    return figure


def length_figure(outcomes: list[dict]) -> figures.Figure:
    """Test accuracy and attention recall of each seed against the sentences' length, and means."""
    figure, axes = figures.subplots(1, 2, size=(10, 4))
    networks = list(dict.fromkeys(outcome["network"] for outcome in outcomes))
    for metric, axis in zip(("test_accuracy", "test_attention_recall"), axes, strict=True):
        for place, network in enumerate(networks):
            found: dict[float, list[float]] = {}
            for outcome in outcomes:
                if outcome["network"] == network and metric in outcome["metrics"]:
                    beside = outcome["length"] * 1.04 ** (place - len(networks) // 2)
                    found.setdefault(beside, []).append(outcome["metrics"][metric])
            for x, values in found.items():
                axis.plot([x] * len(values), values, "o", color=f"C{place}", alpha=0.5)
            means = [np.mean(values) for values in found.values()]
            label = network.replace("_", " ")
            axis.plot(list(found), means, "_-", markersize=14, color=f"C{place}", label=label)
        axis.set(xlabel="length (words)", ylim=(-0.02, 1.05), title=metric.replace("_", " "))
        lengths = sorted({outcome["length"] for outcome in outcomes})
        axis.set_xscale("log")
        axis.set_xticks(lengths, lengths)
        axis.minorticks_off()
    axes[0].legend(fontsize=8)
    return figure


def _task_and_network(name: str) -> tuple[str, str]:
    """`attention_pairs_marked50` to `marked50` and `attention_pairs`."""
    network, _, task = name.rpartition("_")
    return task, network


def table(series: dict[str, list[float]], floors: dict[str, float]) -> str:
    """Markdown: accuracy and attention recall of every network on every task, beside the floors."""
    lines = ["| task | network | test accuracy | attention recall | epochs | seconds |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    names = list(dict.fromkeys(name.partition("/")[0] for name in series))
    for task in dict.fromkeys(_task_and_network(name)[0] for name in names):
        accuracy = floors[f"floor_majority_{task}"]
        recall = floors[f"floor_uniform_attention_{task}"]
        lines.append(
            f"| {task} | floor: majority, uniform attention | {accuracy:.3f} | {recall:.3f} | | |"
        )
        for name in names:
            if _task_and_network(name)[0] != task:
                continue
            found = series.get(f"{name}/test_attention_recall")
            lines.append(
                f"| {task} | {_task_and_network(name)[1]} | "
                f"{in_words(series[f'{name}/test_accuracy'])} | "
                f"{in_words(found) if found else ''} | {np.mean(series[f'{name}/epochs']):.1f} | "
                f"{np.mean(series[f'{name}/train_seconds']):.0f} |"
            )
    return "\n".join(lines) + "\n"


def largest_recall(length: int, deciding: int = 2) -> float:
    """The most that `SimpleAttention` without gain can have on `deciding` of `length` words.

    Its scores lie between -1 and 1: k e / (k e + (n - k) / e).
    """
    return deciding * math.e / (deciding * math.e + (length - deciding) / math.e)


def conclusions(
    series: dict[str, list[float]], floors: dict[str, float], scale: dict[str, float]
) -> list[str]:
    """What the figures allow to say, computed from them."""
    found = []
    names = dict.fromkeys(name.partition("/")[0] for name in series)
    for task in dict.fromkeys(_task_and_network(name)[0] for name in names):
        length = int(re.search(r"\d+$", task)[0])
        accuracy = {
            _task_and_network(name)[1]: series[f"{name}/test_accuracy"]
            for name in names
            if _task_and_network(name)[0] == task
        }
        best = accuracy.get("attention_pairs")
        if best and "gru" in accuracy:
            apart = min(best) > max(accuracy["gru"])
            found.append(
                f"{task}: attention over pairs is right in {in_words(best)}, the GRU alone in "
                f"{in_words(accuracy['gru'])}: "
                + ("every seed of the first is above every seed of the second."
                   if apart else "the seeds overlap.")
            )  # fmt: skip
        recall = series.get(f"handout_{task}/test_attention_recall")
        if recall:
            found.append(
                f"{task}: the hand-out's attention has {in_words(recall)} on the deciding words at "
                f"an accuracy of {in_words(accuracy['handout'])}. In a sentence of {length} words "
                f"its tanh allows {largest_recall(length):.3f} at most."
            )
        padding = [
            value
            for name, sample in series.items()
            if f"_{task}/" in name and name.endswith("test_weight_on_padding")
            for value in sample
        ]
        if padding:
            found.append(f"{task}: the largest weight on padding is {max(padding):g}.")
    wide = max(int(name.rpartition("_")[2]) for name in scale)
    found.append(
        f"At d_k = {wide} the gradient of the softmax has the norm "
        f"{scale[f'scaled_gradient_{wide}']:.3f} with 1 / sqrt(d_k) and "
        f"{scale[f'unscaled_gradient_{wide}']:.3f} without."
    )
    return found
