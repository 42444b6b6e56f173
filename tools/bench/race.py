"""Two recipes race to the same test accuracy, from nothing, in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

import labkit
from labkit import machine
from labkit.arguments import fail
from labkit.results import summary

keras = labkit.lazy("keras")


def race(
    recipes: dict[str, tuple[str, Callable[[int], Iterator[keras.Model]]]],
    accuracy_of: Callable[[keras.Model], float],
    rounds: int,
    target: float | None = None,
) -> dict:
    """Let the recipes `plain` and `fast` race `rounds` times; what is stored of them.

    A recipe is its label and a function that gives, for a seed, the network after each epoch.
    Without a `target`, 0..1, the plain one runs to its end, and its last accuracy is the target of
    the fast one. Leaves with exit code 2 where a target is not reached.
    """
    seconds: dict[str, list[float]] = {name: [] for name in recipes}
    accuracies: dict[str, list[float]] = {name: [] for name in recipes}
    for seed in tqdm(range(rounds), unit="round"):
        goal = target
        for name, (_, epochs) in recipes.items():
            labkit.prepare(seed)
            spent, accuracy = timed(epochs(seed), accuracy_of, goal)
            tqdm.write(f"{name}: {spent:.1f} s, {accuracy:.4f}")
            goal = goal or accuracy
            if accuracy < goal:
                fail(f"{name} did not reach {goal:.4f} in round {seed}, but {accuracy:.4f}")
            seconds[name].append(spent)
            accuracies[name].append(accuracy)
    ratio = summary(np.divide(seconds["plain"], seconds["fast"]).tolist())
    print(f"The short recipe is {ratio['mean']:.1f} times as fast (n = {rounds}).")
    return {
        "seeds": list(range(rounds)),
        "recipes": {
            name: {
                "label": label,
                "seconds": summary(seconds[name]),
                "test_accuracy": summary(accuracies[name]),
            }
            for name, (label, _) in recipes.items()
        },
        "ratio_fast_over_plain": ratio,
        "machine": {**machine.describe(), "precision": labkit.fast_precision()},
        "versions": machine.versions(),
        "commit": machine.commit(),
    }


def timed(
    epochs: Iterator[keras.Model], accuracy_of: Callable[[keras.Model], float], goal: float | None
) -> tuple[float, float]:
    """Seconds of building and training until an epoch ends at `goal`, or the last; its accuracy."""
    seconds, started = 0.0, time.perf_counter()
    for model in epochs:
        seconds += time.perf_counter() - started
        accuracy = accuracy_of(model)  # outside the clock
        if goal is not None and accuracy >= goal:
            break
        started = time.perf_counter()
    return seconds, accuracy
