"""Race on CIFAR-10: `fast_cnn.py`'s recipe, cut short, against the hand-out's CNN.

    python tools/bench/cifar_time_to_accuracy.py --rounds 3     # 10 to 14 minutes on two cores

The hand-out's CNN trains as the hand-out says, 10 epochs of Adam in batches of 64; the test
accuracy at the end is the target of its round. Then the short recipe trains, from nothing, until
an epoch ends at or above that target. The clock covers building the graph, augmentation and
training; the test after each epoch is outside it for both. Nothing is chosen on these test
images: the short recipe was fixed on validation images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

import labkit
from labkit import results
from tools.bench.race import race
from tp3_cnn_resnet import fast_cnn
from tp3_cnn_resnet.cifar10 import load, one_hot
from tp3_cnn_resnet.cnn_classification import BATCH_SIZE, EPOCHS, build_cnn
from tp3_cnn_resnet.models import predict, to_input

keras = labkit.lazy("keras")
batches = labkit.lazy("labkit.batches")

SHORT = fast_cnn.Recipe(epochs=2, small_share=1.0, widths=(32, 64, 96))
"""Fixed on validation images."""


@dataclass(frozen=True)
class Config:
    """Settings of the race."""

    rounds: int = 3
    """How often each recipe runs, 1 or more; seeds are 0, 1, 2..."""
    data: labkit.DataChoice = "real"
    """real: real CIFAR-10 or an error; sample and auto are for trying the race out."""
    validation: bool = False
    """Race on the validation images instead, to choose the short recipe; nothing is written."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, rounds=1)


def plain_epochs(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[keras.Model]:
    """The hand-out's CNN after each of its epochs."""
    model = build_cnn()
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    sequence = batches.Batches(
        images, labels, BATCH_SIZE, seed, transform=lambda x, y, rng: (to_input(x), y)
    )
    for epoch in range(EPOCHS):
        model.fit(sequence, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
        yield model


def fast_epochs(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[keras.Model]:
    """The short recipe's network after each of its epochs."""
    keras.mixed_precision.set_dtype_policy(labkit.fast_precision())
    model = fast_cnn.build(images, SHORT)
    fast_cnn.compile_with(SHORT, model, SHORT.epochs * -(-len(images) // SHORT.batch_size))
    small = SHORT.small_epochs(SHORT.epochs)
    for shown, first, last in fast_cnn.stages(images, small, SHORT.epochs):
        for epoch in range(first, last):
            sequence = fast_cnn.alternating(shown, labels, SHORT, seed, epoch)
            model.fit(sequence, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
            yield model


def main(argv: list[str] | None = None) -> None:
    """Race, print, write `results/bench.cifar_time_to_accuracy.json`."""
    config = labkit.parse(Config, argv)
    data = load(config.data, smoke=False)
    labels, examined = one_hot(data.train.y), data.validation if config.validation else data.test

    def accuracy_of(model: keras.Model) -> float:
        return float(np.mean(predict(model, examined.x).argmax(axis=1) == examined.y))

    recipes = {
        "plain": ("hand-out's CNN, 10 epochs", partial(plain_epochs, data.train.x, labels)),
        "fast": ("fast-cnn's recipe, 2 epochs", partial(fast_epochs, data.train.x, labels)),
    }
    found = race(recipes, accuracy_of, config.rounds)
    if data.source != "sample" and not config.validation:
        results.write("bench.cifar_time_to_accuracy", {"data_source": data.source, **found})


if __name__ == "__main__":
    main()
