"""How fast do TP3's networks train here, by precision and normalisation?

    python tools/bench/cifar_speed.py                # about five minutes on two cores
    python tools/bench/cifar_speed.py --rounds 1     # a quick look; nothing is written

Training steps on pictures that are in memory already, in batches of the network's own recipe. Each
round runs every variant once, in an order of its own, so that what else the machine does meets all
alike; ratios are taken within a round. Batch normalisation is Keras' own or the one of
`tp3_cnn_resnet/normalisation.py`, which does it in a single operation.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.results import summary
from tp3_cnn_resnet.models import NUM_CLASSES, build_resnet, to_input

keras = labkit.lazy("keras")
fast_resnet = labkit.lazy("tp3_cnn_resnet.fast_resnet")
normalisation = labkit.lazy("tp3_cnn_resnet.normalisation")

WRITTEN_FROM = 5
"""Rounds: fewer show no spread worth keeping."""
PICTURES = 3000
"""In one measurement of a variant."""
VARIANTS = {
    "Keras' normalisation, float32": ("float32", False),
    "one-pass normalisation, float32": ("float32", True),
    "Keras' normalisation, bfloat16": ("mixed_bfloat16", False),
    "one-pass normalisation, bfloat16": ("mixed_bfloat16", True),
}


@dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    rounds: int = 5
    """How often each variant runs, 1 or more."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, rounds=1)


def with_keras_normalisation(model: "keras.Model") -> "keras.Model":
    """The same network with Keras' batch normalisation in the place of ours."""

    def replaced(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        ours = isinstance(layer, normalisation.OnePassBatchNormalization)
        kind = keras.layers.BatchNormalization if ours else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=replaced)


def trainer(
    build: Callable[[], "keras.Model"], batch_size: int, precision: str, one_pass: bool
) -> Callable[[], float]:
    """A function that trains on `PICTURES` pictures and returns how many a second it did."""
    labkit.prepare(0, precision)
    model = build() if one_pass else with_keras_normalisation(build())
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
        "categorical_crossentropy",
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    images = to_input(rng.integers(0, 256, (batch_size, 32, 32, 3)))
    labels = np.eye(NUM_CLASSES, dtype=np.float32)[rng.integers(0, NUM_CLASSES, batch_size)]
    steps = PICTURES // batch_size

    def run() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            model.train_on_batch(images, labels)
        return steps * batch_size / (time.perf_counter() - started)

    run()  # builds the graph and warms up
    return run


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write `results/bench.cifar_speed.json`."""
    config = labkit.parse(Config, argv)
    labkit.prepare(0)
    recipe = fast_resnet.RECIPES["default"]
    blank = np.random.default_rng(0).integers(0, 256, (5000, 32, 32, 3)).astype(np.uint8)
    networks = {
        "mini_resnet": (build_resnet, 64),
        "fast_resnet": (lambda: fast_resnet.build(blank, recipe), recipe.batch_size),
    }
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, list[float]]] = {}
    for network, (build, batch_size) in networks.items():
        runs = {name: trainer(build, batch_size, *settings) for name, settings in VARIANTS.items()}
        speeds: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in tqdm(range(config.rounds), desc=network, unit="round"):
            for name in rng.permutation(list(VARIANTS)):
                speeds[name].append(runs[name]())
        found[network] = speeds
    content = {}
    for network, speeds in found.items():
        baseline = next(iter(speeds.values()))
        content[network] = {
            name: {
                "pictures_per_second": summary(values),
                "times_as_fast": summary(list(np.divide(values, baseline))),
            }
            for name, values in speeds.items()
        }
        for name, row in content[network].items():
            speed, ratio = (row[key]["mean"] for key in ("pictures_per_second", "times_as_fast"))
            print(f"{network:12s} {name:34s} {speed:6.0f} pictures/s, {ratio:.2f} times as fast")
    if config.rounds < WRITTEN_FROM:
        return
    about = {"versions": machine.versions(), "commit": machine.commit()}
    results.write(
        "bench.cifar_speed",
        {"data_source": "random pictures", "rounds": config.rounds, "networks": content}
        | {"machine": machine.describe()}
        | about,
    )


if __name__ == "__main__":
    main()
