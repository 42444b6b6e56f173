"""Race to 99 % test accuracy on MNIST: a short one-cycle recipe against the plain Keras example.

    python tools/bench/mnist_time_to_accuracy.py --rounds 3     # about 4 minutes on two cores

The plain recipe is the convolutional network of the Keras examples: 32 and 64 filters, dropout 0.5,
Adam, batches of 128. Both start from nothing in each round, in turn, in this process. The clock
covers building the graph and training; the test after each epoch is outside it for both. Nothing
is chosen on these test images: the short recipe was fixed on validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

import labkit
from labkit import results
from tools.bench.race import race

keras = labkit.lazy("keras")

TARGET = 0.99


@dataclass(frozen=True)
class Config:
    """Settings of the race."""

    rounds: int = 3
    """How often each recipe runs, 1 or more; seeds are 0, 1, 2..."""
    data: labkit.DataChoice = "real"
    """real: real MNIST or an error; sample and auto are for trying the race out."""
    max_epochs: int = 20
    """Epochs after which a recipe has lost."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, rounds=1, max_epochs=1)


def plain_recipe(images: int) -> tuple[keras.Model, int]:
    """The Keras example: the compiled network and its batch size."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),  # (B, 26, 26, 32)
            keras.layers.MaxPooling2D(),  # (B, 13, 13, 32)
            keras.layers.Conv2D(64, 3, activation="relu"),  # (B, 11, 11, 64)
            keras.layers.MaxPooling2D(),  # (B, 5, 5, 64)
            keras.layers.Flatten(),  # (B, 1600)
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax"),  # (B, 10)
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, 128


def fast_recipe(images: int) -> tuple[keras.Model, int]:
    """Strides instead of full-size convolutions, one epoch, one cycle of the learning rate."""
    keras.mixed_precision.set_dtype_policy(labkit.fast_precision())
    layers, batch_size, epochs, peak = keras.layers, 128, 1, 0.02
    inputs = keras.Input((28, 28, 1))
    x = layers.Cropping2D(2)(inputs)  # (B, 24, 24, 1)
    x = layers.Conv2D(32, 5, 2, "same", activation="relu", kernel_initializer="he_normal")(
        x
    )  # (B, 12, 12, 32)
    x = layers.Conv2D(64, 3, 2, use_bias=False, kernel_initializer="he_normal")(x)  # (B, 5, 5, 64)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(128, use_bias=False)(layers.Flatten()(x))  # (B, 128)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    outputs = layers.Dense(10, activation="softmax", dtype="float32")(x)  # (B, 10)
    model = keras.Model(inputs, outputs)
    steps = epochs * -(-images // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 10,
        warmup_target=peak,
        warmup_steps=steps // 4,
        decay_steps=steps - steps // 4,
        alpha=0.01,
    )
    model.compile(
        keras.optimizers.Adam(schedule, beta_2=0.99),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=20,
        jit_compile=False,
    )
    return model, batch_size


def main(argv: list[str] | None = None) -> None:
    """Race, print, write `results/bench.mnist_time_to_accuracy.json`."""
    config = labkit.parse(Config, argv)
    data = labkit.load_mnist(config.data)
    x_train, x_test = (x[..., None].astype(np.float32) / 255 for x in (data.x_train, data.x_test))

    def epochs(recipe: Callable, seed: int) -> Iterator[keras.Model]:
        model, batch_size = recipe(len(x_train))
        for epoch in range(config.max_epochs):
            model.fit(
                x_train, data.y_train, batch_size=batch_size,
                initial_epoch=epoch, epochs=epoch + 1, verbose=0,
            )  # fmt: skip
            yield model

    def accuracy_of(model: keras.Model) -> float:
        return model.evaluate(x_test, data.y_test, batch_size=500, verbose=0)[1]

    recipes = {
        "plain": ("plain Keras example", partial(epochs, plain_recipe)),
        "fast": ("one epoch, one cycle", partial(epochs, fast_recipe)),
    }
    found = race(recipes, accuracy_of, config.rounds, TARGET)
    if data.source != "sample":
        facts = {"data_source": data.source, "target_test_accuracy": TARGET}
        results.write("bench.mnist_time_to_accuracy", facts | found)


if __name__ == "__main__":
    main()
