"""The task's network."""

from __future__ import annotations

import keras


def build(width: int) -> keras.Model:
    """A point (B, 2) to the probability that it is inside, (B, 1), over `width` hidden units."""
    inputs = keras.Input((2,))
    x = keras.layers.Dense(width, activation="relu")(inputs)  # (B, width)
    outputs = keras.layers.Dense(1, activation="sigmoid")(x)  # (B, 1)
    return keras.Model(inputs, outputs, name="scratch")
