"""Networks from a signature to features, and the losses of both methods on their distances."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras
import numpy as np
from keras import ops

import labkit
from tp6_real_world.signature_verification.ink import HEIGHT, WIDTH

Encoder = Literal["map", "dense"]
CONTRASTIVE_MARGIN = 1.0
"""Distance, of 0 to 2, beyond which a pair of two hands pulls no more."""
TRIPLET_MARGIN = 0.2
SHARPNESS = 20.0
"""Of the softened hinge: within about 1/20 of the margin's edge it still pulls a little."""
RANDOM_WEIGHT = 0.5
"""Of triplets with another writer's signature beside those with a skilled forgery."""


@keras.saving.register_keras_serializable("signature_verification")
class UnitLength(keras.layers.Layer):
    """Divides each example's features by their length: distances are then 0 to 2."""

    def call(self, x):
        """(B, d) to (B, d) of Euclidean length 1."""
        return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)


@keras.saving.register_keras_serializable("signature_verification")
class Distance(keras.layers.Layer):
    """The Euclidean distance between two feature vectors."""

    def call(self, first, second):
        """Two (B, d) to (B, 1); a little above 0, where the root has no slope."""
        return ops.sqrt(ops.sum(ops.square(first - second), axis=-1, keepdims=True) + 1e-6)


def build_encoder(kind: Encoder = "map", width: int = 16) -> keras.Model:
    """A signature to features of length 1.

    `map`: a small map of 16 channels, compared place by place: what differs is where it differs.
    `dense`: a vector of 128 over the whole picture, as in the siamese network of the hint.
    """
    inputs = keras.Input((HEIGHT, WIDTH, 1))
    x = keras.layers.Conv2D(width, 5, strides=2, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)  # (B, 32, 64, width)
    for block, factor in enumerate((1, 2, 4)):
        if block:
            x = keras.layers.MaxPooling2D()(x)
        for _ in range(2):
            x = keras.layers.Conv2D(factor * width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.Activation("relu")(x)
    # (B, 8, 16, 4 width)
    if kind == "map":
        x = keras.layers.Conv2D(16, 1)(x)  # (B, 8, 16, 16)
        x = keras.layers.Flatten()(x)  # (B, 2048)
    else:
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dropout(0.3)(x)
        x = keras.layers.Dense(128)(x)  # (B, 128)
    return keras.Model(inputs, UnitLength()(x), name=f"signature_{kind}{width}")


def features_of(encoder: keras.Model, x: np.ndarray) -> np.ndarray:
    """Features (n, d) of canvases (n, 64, 128) uint8."""
    inputs = (x / np.float32(255))[..., np.newaxis]
    return encoder.predict(inputs, batch_size=64, verbose=0)


def load_encoder(folder: Path) -> keras.Model:
    """The encoder that a training left in its run folder."""
    return labkit.load_model(folder / "model.keras", compiled=False)


def build_siamese(encoder: keras.Model) -> keras.Model:
    """Two signatures through one encoder to their distance, (B, 1)."""
    first, second = keras.Input(encoder.input_shape[1:]), keras.Input(encoder.input_shape[1:])
    distance = Distance()(encoder(first), encoder(second))
    return keras.Model([first, second], distance, name="siamese")


# --- Method 1 ------------------------------------------------------------------------------------


def contrastive_loss(different, distance):
    """Pairs of one hand are pulled together, others pushed beyond the margin.

    `different` (B, 1) is 1 for two hands, 0 for one; `distance` (B, 1). Hadsell, Chopra and LeCun,
    "Dimensionality reduction by learning an invariant mapping" (CVPR 2006), equation 4 without its
    halves.
    """
    different = ops.cast(different, distance.dtype)
    together = (1 - different) * ops.square(distance)
    apart = different * ops.square(ops.relu(CONTRASTIVE_MARGIN - distance))
    return ops.mean(together + apart)


# --- Method 2 ------------------------------------------------------------------------------------


def all_distances(features):
    """(B, B) Euclidean distances of features (B, d) of length 1."""
    products = ops.matmul(features, ops.transpose(features))
    return ops.sqrt(ops.maximum(2 - 2 * products, 0) + 1e-6)


def triplet_loss(truth, features):
    """Two signatures by one hand must be nearer than the nearest by another hand.

    `truth` (B, 2) int holds the name that is written and the hand that wrote it, 0 for the writer's
    own, 1, 2... for each forger, -1 for a forger who isn't known; `features` (B, d) have length 1.
    For each pair of signatures a and p of one name by one known hand, with n the *hardest* negative
    of a, that is the nearest: mean of softplus(s (d(a, p) - d(a, n) + m)) / s, once with n the same
    name by another hand, skilled forgery or model, and once, with less weight, any other name. That
    a forger is a hand too makes four writers of one. After Schroff et
    al., "FaceNet" (CVPR 2015), equation 2; hardest in the batch and softplus: Hermans et al., "In
    defense of the triplet loss" (arXiv 1703.07737), equation 5.
    """
    name, hand = ops.cast(truth[:, 0], "int32"), ops.cast(truth[:, 1], "int32")
    distance = all_distances(features)
    same_name = ops.equal(name[:, None], name[None])
    same_hand = ops.logical_and(same_name, ops.equal(hand[:, None], hand[None]))
    others = ops.logical_not(ops.eye(ops.shape(hand)[0], dtype="bool"))
    pairs = ops.logical_and(ops.logical_and(same_hand, others), ops.greater_equal(hand, 0)[:, None])
    skilled = ops.logical_and(same_name, ops.logical_not(same_hand))
    loss = _beyond_nearest(distance, pairs, skilled)
    return loss + RANDOM_WEIGHT * _beyond_nearest(distance, pairs, ops.logical_not(same_name))


def _beyond_nearest(distance, pairs, negatives):
    """Mean over `pairs` (B, B) of how little the nearest of `negatives` (B, B) is further off.

    Pairs without a negative count 0.
    """
    nearest = ops.min(ops.where(negatives, distance, 10.0), axis=1, keepdims=True)
    short = ops.softplus(SHARPNESS * (distance - nearest + TRIPLET_MARGIN)) / SHARPNESS
    weight = ops.cast(pairs, distance.dtype)
    return ops.sum(weight * short) / ops.maximum(ops.sum(weight), 1.0)
