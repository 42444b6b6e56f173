"""What does TensorFlow's tuner of input pipelines cost `fit()` and `predict()`?

    python tools/bench/fit_waiting.py     # about five minutes on two cores

`labkit.prepare` keeps the tuner out (`labkit/machine.py` says why). Here the same calls run with
and without it, in turn and in the same process. A call's length decides how much it can lose: the
tuner sleeps 10 ms, then twice as long each time, and a pipeline that ends may have to wait until it
wakes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.results import summary

keras = labkit.lazy("keras")
tf = labkit.lazy("tensorflow")


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    rounds: int = 15
    """How often each call is made with and without the tuner, 2 or more."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, rounds=2)


def calls() -> dict[str, Callable[[], object]]:
    """An epoch of training and a prediction on the same random images."""
    rng = np.random.default_rng(0)
    x = rng.random((3000, 32, 32, 3), np.float32)
    y = rng.integers(0, 10, len(x))
    inputs = keras.Input((32, 32, 3))
    features = keras.layers.Conv2D(32, 3, activation="relu")(inputs)
    features = keras.layers.Conv2D(32, 3, activation="relu")(keras.layers.MaxPooling2D()(features))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)
    return {
        "fit": lambda: model.fit(x, y, batch_size=64, verbose=0),
        "predict": lambda: model.predict(x, batch_size=64, verbose=0),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write `results/bench.fit_waiting.json`."""
    config = labkit.parse(Config, argv)
    labkit.prepare(0)
    untuned = tf.data.Dataset.__iter__
    ways = {"tuned": untuned.__wrapped__, "untuned": untuned}
    found: dict[str, dict[str, list[float]]] = {}
    for name, call in calls().items():
        call()  # builds the graph
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in tqdm(range(config.rounds), desc=name, unit="round"):
            for way, iterate in ways.items():
                tf.data.Dataset.__iter__ = iterate
                started = time.perf_counter()
                call()
                seconds[way].append(time.perf_counter() - started)
        found[name] = seconds
    content = {}
    for name, seconds in found.items():
        ratio = summary(list(np.divide(seconds["tuned"], seconds["untuned"])))
        content[name] = {way: summary(values) for way, values in seconds.items()}
        content[name]["ratio_tuned_over_untuned"] = ratio
        print(
            f"{name}: {content[name]['tuned']['mean']:.2f} s with the tuner, "
            f"{content[name]['untuned']['mean']:.2f} s without, ratio {ratio['mean']:.2f} "
            f"± {ratio['std']:.2f} (n = {ratio['n']})"
        )
    results.write(
        "bench.fit_waiting",
        {
            "data_source": "random images",
            "rounds": config.rounds,
            "calls": content,
            "machine": machine.describe(),
            "versions": machine.versions(),
            "commit": machine.commit(),
        },
    )


if __name__ == "__main__":
    main()
