"""Two recipes race to the same test accuracy, from nothing, in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.arguments import fail
from labkit.results import summary

keras = labkit.lazy("keras")

Epochs = Callable[[int], "Iterator[keras.Model]"]
"""A recipe: from a seed the network after each of its epochs, of which there is an end."""


def race(
    recipes: dict[str, tuple[str, Epochs]],
    accuracy_of: Callable[[keras.Model], float],
    rounds: int,
    target: float | None = None,
) -> dict:
    """Let two recipes, with their labels, race `rounds` times; what is stored of them.

    The first to be named is the slow one. Without a `target` it runs to its end, and its last
    accuracy is the target of the other one. The clock covers building the graph and training;
    `accuracy_of` is outside it for both. Leaves with exit code 2 where a target is not reached.
    """
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in recipes}
    for seed in tqdm(range(rounds), unit="round"):
        goal = target
        for name, (_, epochs) in recipes.items():
            labkit.prepare(seed)
            seconds, accuracy = timed(name, epochs(seed), accuracy_of, goal)
            if goal is not None and accuracy < goal:
                fail(f"{name} did not reach {goal:.4f} in round {seed}: {accuracy:.4f}")
            runs[name].append((seconds, accuracy))
            goal = goal or accuracy
    slow, fast = recipes
    pairs = zip(runs[slow], runs[fast], strict=True)
    ratio = summary([slower / faster for (slower, _), (faster, _) in pairs])
    print(f"The short recipe is {ratio['mean']:.1f} times as fast (n = {rounds}).")
    return {
        "seeds": list(range(rounds)),
        "recipes": {
            name: {
                "label": label,
                "seconds": summary([seconds for seconds, _ in runs[name]]),
                "test_accuracy": summary([accuracy for _, accuracy in runs[name]]),
            }
            for name, (label, _) in recipes.items()
        },
        f"ratio_{fast}_over_{slow}": ratio,
    }


def timed(
    name: str,
    epochs: Iterator[keras.Model],
    accuracy_of: Callable[[keras.Model], float],
    goal: float | None,
) -> tuple[float, float]:
    """Seconds of training and accuracy of the first epoch at `goal`, else of the last epoch."""
    seconds, accuracy, started = 0.0, 0.0, time.perf_counter()
    for model in epochs:
        seconds += time.perf_counter() - started
        accuracy = accuracy_of(model)
        tqdm.write(f"{name}: {seconds:.1f} s {accuracy:.4f}")
        if goal is not None and accuracy >= goal:
            break
        started = time.perf_counter()
    return seconds, accuracy


def store(name: str, data_source: str, content: dict) -> None:
    """Write `results/bench.<name>.json`, but for a sample's figures, which nobody quotes."""
    if data_source != "sample":
        about = {
            "machine": {**machine.describe(), "precision": labkit.fast_precision()},
            "versions": machine.versions(),
            "commit": machine.commit(),
        }
        results.write(f"bench.{name}", {"data_source": data_source, **content, **about})
