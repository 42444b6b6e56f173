"""TP1's models: each maps 784 grey values in 0..1 to 10 probabilities."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import labkit

keras = labkit.lazy("keras")

NUM_CLASSES = 10


def build_dense(dropout_rate: float = 0.2) -> keras.Model:
    """The hand-out's network: 407,050 parameters."""
    inputs = keras.Input((784,))
    x = keras.layers.Dense(512, activation="relu")(inputs)  # (B, 512)
    x = keras.layers.Dropout(dropout_rate)(x)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="dense")


def build_dense_strong(dropout_rate: float) -> keras.Model:
    """Three wide dense layers with batch normalisation: 2,922,506 parameters."""
    inputs = x = keras.Input((784,))
    for _ in range(3):
        x = keras.layers.Dense(1024, use_bias=False, kernel_initializer="he_normal")(x)  # (B, 1024)
        x = normalise_and_activate(x)
        x = keras.layers.Dropout(dropout_rate)(x)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="dense_strong")


def build_cnn(dropout_rate: float) -> keras.Model:
    """Three convolutions and a dense layer: 392,266 parameters.

    The order is made for a CPU: a stride at once, and normalisation after pooling, where it has a
    quarter of the values to go through.
    """
    conv = partial(keras.layers.Conv2D, padding="same", kernel_initializer="he_normal")
    inputs = keras.Input((784,))
    x = keras.layers.Reshape((28, 28, 1))(inputs)  # (B, 28, 28, 1)
    x = keras.layers.Cropping2D(2)(x)  # (B, 24, 24, 1), the margin is empty
    x = conv(32, 5, strides=2, activation="relu")(x)  # (B, 12, 12, 32)
    for filters in (64, 128):
        x = conv(filters, 3, use_bias=False)(x)  # (B, 12, 12, 64), then (B, 6, 6, 128)
        x = keras.layers.MaxPooling2D()(x)  # (B, 6, 6, 64), then (B, 3, 3, 128)
        x = normalise_and_activate(x)
    x = keras.layers.Flatten()(x)  # (B, 1152)
    x = keras.layers.Dropout(dropout_rate)(x)
    x = keras.layers.Dense(256, use_bias=False, kernel_initializer="he_normal")(x)  # (B, 256)
    x = normalise_and_activate(x)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="cnn")


def build_compact(dropout_rate: float) -> keras.Model:
    """A small convolutional network, the one that the API comes with: 29,610 parameters.

    About 0.7 million multiplications an image, seven times fewer than `build_cnn`.
    """
    conv = partial(keras.layers.Conv2D, kernel_initializer="he_normal")
    inputs = keras.Input((784,))
    x = keras.layers.Reshape((28, 28, 1))(inputs)  # (B, 28, 28, 1)
    x = keras.layers.Cropping2D(2)(x)  # (B, 24, 24, 1)
    x = conv(16, 5, strides=2, padding="same", activation="relu")(x)  # (B, 12, 12, 16)
    x = conv(32, 3, use_bias=False)(x)  # (B, 10, 10, 32)
    x = normalise_and_activate(keras.layers.MaxPooling2D()(x))  # (B, 5, 5, 32)
    x = normalise_and_activate(conv(64, 3, use_bias=False)(x))  # (B, 3, 3, 64)
    x = keras.layers.Dropout(dropout_rate)(keras.layers.Flatten()(x))  # (B, 576)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="compact")


def normalise_and_activate(x: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalisation with a memory of about 20 batches, then ReLU; the shape stays."""
    return keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.95)(x))


def average_over_shifts(model: keras.Model) -> keras.Model:
    """The mean of `model`'s probabilities on an image and on its four shifts by one pixel.

    Five looks at each image instead of one: lower validation loss, five times the work. The input
    stays (B, 784).
    """
    inputs = keras.Input((784,))
    image = keras.layers.Reshape((28, 28, 1))(inputs)  # (B, 28, 28, 1)
    padded = keras.layers.ZeroPadding2D(1)(image)  # (B, 30, 30, 1)
    views = []
    for top, left in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)):
        view = keras.layers.Cropping2D(((top, 2 - top), (left, 2 - left)))(padded)
        views.append(model(keras.layers.Reshape((784,))(view)))  # (B, 10)
    return keras.Model(inputs, keras.layers.Average()(views), name=f"{model.name}_averaged")


BUILDERS: dict[str, Callable[[float], keras.Model]] = {
    "dense": build_dense,
    "dense-strong": build_dense_strong,
    "cnn": build_cnn,
    "compact": build_compact,
}
