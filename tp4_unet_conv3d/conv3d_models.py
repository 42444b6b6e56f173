"""The hand-out's Conv3D and the networks it is compared with, all of the same two stages.

Every network takes volumes of shape (B, depth, height, width, 1), from -1 to 3, and ends in one
sigmoid, or in a softmax for more than two classes.
"""

import math

import keras
from keras import layers, ops

SAME = {"padding": "same", "activation": "relu"}


def _ending(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    if classes == 2:
        return layers.Dense(1, activation="sigmoid")(features)
    return layers.Dense(classes, activation="softmax")(features)


def build_conv3d(
    shape: tuple[int, int, int] = (32, 32, 32),
    filters_start: int = 16,
    classes: int = 2,
    kernel: int = 3,
) -> keras.Model:
    """The hand-out's network: 30,689 parameters at its settings, which are the defaults."""
    inputs = keras.Input((*shape, 1))  # (B, 32, 32, 32, 1)
    x = layers.Conv3D(filters_start, kernel, **SAME)(inputs)  # (B, 32, 32, 32, 16)
    x = layers.MaxPooling3D(2)(x)  # (B, 16, 16, 16, 16)
    x = layers.Conv3D(2 * filters_start, kernel, **SAME)(x)  # (B, 16, 16, 16, 32)
    x = layers.MaxPooling3D(2)(x)  # (B, 8, 8, 8, 32)
    return keras.Model(inputs, _ending(layers.Flatten()(x), classes), name="conv3d")


def build_factorised(
    shape: tuple[int, int, int] = (32, 32, 32), filters_start: int = 16, classes: int = 2
) -> keras.Model:
    """The same with each convolution in two: 1x3x3 within a slice, then 3x1x1 across slices.

    "(2+1)D" in Tran et al. (CVPR 2018), without their wider middle: both halves have the stage's
    number of filters.
    """
    inputs = keras.Input((*shape, 1))  # (B, 32, 32, 32, 1)
    x = inputs
    for filters in (filters_start, 2 * filters_start):
        x = layers.Conv3D(filters, (1, 3, 3), **SAME)(x)
        x = layers.Conv3D(filters, (3, 1, 1), **SAME)(x)
        x = layers.MaxPooling3D(2)(x)  # (B, 16, 16, 16, 16), then (B, 8, 8, 8, 32)
    return keras.Model(inputs, _ending(layers.Flatten()(x), classes), name="conv2plus1d")


def _two_stages(slices: keras.KerasTensor, filters_start: int) -> keras.KerasTensor:
    """The hand-out's two stages in two dimensions; (B, 32, 32, C) to (B, 2048)."""
    x = layers.Conv2D(filters_start, 3, **SAME)(slices)  # (B, 32, 32, 16)
    x = layers.MaxPooling2D(2)(x)  # (B, 16, 16, 16)
    x = layers.Conv2D(2 * filters_start, 3, **SAME)(x)  # (B, 16, 16, 32)
    x = layers.MaxPooling2D(2)(x)  # (B, 8, 8, 32)
    return layers.Flatten()(x)  # (B, 2048)


def build_slices(
    shape: tuple[int, int, int] = (32, 32, 32), filters_start: int = 16, classes: int = 2
) -> keras.Model:
    """The matched slice model: one 2-D network scores every slice alone, the scores are averaged.

    The average comes before the sigmoid or softmax. The order of the slices changes nothing.
    """
    depth, height, width = shape
    inputs = keras.Input((*shape, 1))
    slices = ops.reshape(inputs, (-1, height, width, 1))  # (B * 32, 32, 32, 1)
    features = _two_stages(slices, filters_start)  # (B * 32, 2048)
    scores = layers.Dense(1 if classes == 2 else classes)(features)
    scores = ops.reshape(scores, (-1, depth, scores.shape[-1]))  # (B, 32, 1)
    mean = ops.mean(scores, axis=1)  # (B, 1)
    outputs = layers.Activation("sigmoid" if classes == 2 else "softmax")(mean)
    return keras.Model(inputs, outputs, name="slices")


def build_middle(
    shape: tuple[int, int, int] = (32, 32, 32), filters_start: int = 16, classes: int = 2
) -> keras.Model:
    """The 2-D network on the middle slice only."""
    inputs = keras.Input((*shape, 1))
    features = _two_stages(inputs[:, shape[0] // 2], filters_start)
    return keras.Model(inputs, _ending(features, classes), name="middle")


def build_channels(
    shape: tuple[int, int, int] = (32, 32, 32), filters_start: int = 16, classes: int = 2
) -> keras.Model:
    """The 2-D network on all slices at once, as channels: it sees depth, but not as a direction."""
    inputs = keras.Input((*shape, 1))
    stacked = ops.transpose(inputs[..., 0], (0, 2, 3, 1))  # (B, 32, 32, 32), depth last
    features = _two_stages(stacked, filters_start)
    return keras.Model(inputs, _ending(features, classes), name="channels")


BUILDERS = {
    "conv3d": build_conv3d,
    "conv2plus1d": build_factorised,
    "channels": build_channels,
    "slices": build_slices,
    "middle": build_middle,
}
"""Builder of each compared network, by the name it has in tables and run names."""


def activation_bytes(model: keras.Model) -> int:
    """Memory of all layers' outputs for one volume in float32, in bytes.

    This is what backpropagation needs to keep, times the batch size. Flatten and reshape make no
    copy and are left out.
    """
    kept = [layer for layer in model.layers if "flatten" not in layer.name]
    return 4 * sum(math.prod(layer.output.shape[1:]) for layer in kept)
