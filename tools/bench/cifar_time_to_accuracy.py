"""Race on CIFAR-10: `fast-resnet`'s recipe, cut short, against the hand-out's CNN.

    python tools/bench/cifar_time_to_accuracy.py --rounds 3     # 10 to 14 minutes on two cores

The hand-out's CNN trains as the hand-out says, 10 epochs of Adam in batches of 64; the test
accuracy at the end is the target of its round. Then the short recipe trains, from nothing, until
an epoch ends at or above that target. The clock covers building the graph, augmentation and
training; the test after each epoch is outside it for both. Nothing is chosen on these test
pictures: the short recipe was fixed on validation pictures.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

import labkit
from labkit import machine, results
from labkit.arguments import fail
from labkit.results import summary
from tp3_cnn_resnet.models import NUM_CLASSES, build_cnn, to_input

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")

PLAIN_EPOCHS, PLAIN_BATCH = 10, 64
"""The hand-out's."""
RECIPE = {"epochs": 2, "small_share": 1.0, "widths": (32, 64, 96)}
"""What the short recipe changes in `fast_resnet.Recipe`; fixed on validation pictures."""


@dataclass(frozen=True)
class Config:
    """Settings of the race."""

    rounds: int = 3
    """How often each recipe runs, 1 or more; seeds are 0, 1, 2..."""
    data: labkit.DataChoice = "real"
    """real: real CIFAR-10 or an error; sample and auto are for trying the race out."""
    validation: bool = False
    """Race on the validation pictures instead, to choose the short recipe; nothing is written."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, rounds=1)


def plain_epochs(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator["keras.Model"]:
    """The hand-out's CNN after each of its epochs."""
    model = build_cnn()
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    sequence = batches.Batches(
        images, labels, PLAIN_BATCH, seed, transform=lambda x, rng: to_input(x)
    )
    for epoch in range(PLAIN_EPOCHS):
        model.fit(sequence, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
        yield model


def fast_epochs(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator["keras.Model"]:
    """The short recipe's network after each of its epochs."""
    import tp3_cnn_resnet.fast_resnet as fast_resnet

    keras.mixed_precision.set_dtype_policy(labkit.fast_precision())
    recipe = fast_resnet.Recipe(**RECIPE)
    model = fast_resnet.build(images, recipe)
    steps = recipe.epochs * -(-len(images) // recipe.batch_size)
    fast_resnet.compile_with(recipe, model, steps)
    small = recipe.small_epochs(recipe.epochs)
    for pictures, first, last in fast_resnet.stages(images, small, recipe.epochs):
        for epoch in range(first, last):
            sequence = fast_resnet.AlternatingBatches(pictures, labels, recipe, seed, epoch)
            model.fit(sequence, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
            yield model


def timed(epochs: Iterator["keras.Model"], images: np.ndarray, labels: np.ndarray) -> list:
    """Seconds of training and accuracy on `images` after each epoch."""
    points, seconds, started = [], 0.0, time.perf_counter()
    for model in epochs:
        seconds += time.perf_counter() - started
        probabilities = model.predict(to_input(images), batch_size=500, verbose=0)
        points.append((seconds, float(np.mean(probabilities.argmax(axis=1) == labels))))
        started = time.perf_counter()
    return points


def main(argv: list[str] | None = None) -> None:
    """Race, print, write `results/bench.cifar_time_to_accuracy.json`."""
    config = labkit.parse(Config, argv)
    data = labkit.load_cifar10(config.data)
    border = len(data.x_train) * 9 // 10
    labels = np.eye(NUM_CLASSES, dtype=np.float32)[data.y_train[:border]]
    examined = (data.x_train[border:], data.y_train[border:])
    if not config.validation:
        examined = (data.x_test, data.y_test)

    times: dict[str, list[float]] = {"plain": [], "fast": []}
    accuracies: dict[str, list[float]] = {"plain": [], "fast": []}
    for seed in tqdm(range(config.rounds), unit="round"):
        for name, epochs in (("plain", plain_epochs), ("fast", fast_epochs)):
            labkit.prepare(seed)
            points = timed(epochs(data.x_train[:border], labels, seed), *examined)
            tqdm.write(f"{name}: " + ", ".join(f"{s:.0f} s {a:.4f}" for s, a in points))
            target = points[-1][1] if name == "plain" else accuracies["plain"][-1]
            reached = [point for point in points if point[1] >= target]
            if not reached:
                fail(f"the short recipe did not reach {target:.4f} in round {seed}")
            # The plain recipe has its whole time: its last epoch is the target.
            seconds, accuracy = points[-1] if name == "plain" else reached[0]
            times[name].append(seconds)
            accuracies[name].append(accuracy)
    pairs = zip(times["plain"], times["fast"], strict=True)
    ratio = summary([plain / fast for plain, fast in pairs])
    print(f"The short recipe is {ratio['mean']:.1f} times as fast (n = {config.rounds}).")
    if data.source == "sample" or config.validation:
        return
    labels_of = {"plain": "hand-out's CNN, 10 epochs", "fast": "fast-resnet's recipe, 2 epochs"}
    content = {
        "data_source": data.source,
        "seeds": list(range(config.rounds)),
        "recipes": {
            name: {
                "label": label,
                "seconds": summary(times[name]),
                "test_accuracy": summary(accuracies[name]),
            }
            for name, label in labels_of.items()
        },
        "ratio_fast_over_plain": ratio,
        "machine": {**machine.describe(), "precision": labkit.fast_precision()},
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    results.write("bench.cifar_time_to_accuracy", content)


if __name__ == "__main__":
    main()
