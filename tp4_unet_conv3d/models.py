"""TP4's U-Nets: images (B, 128, 128, 1), or volumes, to as many probabilities of the target.

The convolution before the last sigmoid is called `logits`: training ends there, see `losses.py`.
"""

from __future__ import annotations

import numpy as np

import labkit

keras = labkit.lazy("keras")

SIZE = 128
HANDOUT_WIDTH = 32
DEPTH = 3
"""Poolings: the sides of an image must be multiples of 2 ** 3."""


def conv_block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """The hand-out's block, twice 3x3 convolution, batch normalisation, ReLU; the size stays.

    The moving averages have a momentum of 0.9: with Keras' 0.99 they lag behind for the first
    several epochs of a short training, and so would every validation figure.
    """
    for _ in range(2):
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.Activation("relu")(x)
    return x


def build_unet(width: int = HANDOUT_WIDTH, depth: int = DEPTH) -> keras.Model:
    """The U-Net of Ronneberger et al. (MICCAI 2015), as the hand-out scales it.

    `width` filters at full resolution, doubled at each of the `depth` poolings. With 32 and 3 it
    is the hand-out's: 32, 64, 128, a bottleneck of 256, 1,930,657 parameters. The shapes below are
    those of the hand-out's.
    """
    inputs = x = keras.Input((SIZE, SIZE, 1))
    passed = []
    for level in range(depth):
        x = conv_block(x, width << level)  # (B, 128, 128, 32), (B, 64, 64, 64), (B, 32, 32, 128)
        passed.append(x)
        x = keras.layers.MaxPooling2D(2)(x)  # half the size
    x = conv_block(x, width << depth)  # (B, 16, 16, 256)
    for level in reversed(range(depth)):
        x = keras.layers.Conv2DTranspose(width << level, 2, strides=2, padding="same")(x)
        x = keras.layers.Concatenate()([x, passed[level]])  # detail that pooling has dropped
        x = conv_block(x, width << level)  # (B, 32, 32, 128), (B, 64, 64, 64), (B, 128, 128, 32)
    logits = keras.layers.Conv2D(1, 1, dtype="float32", name="logits")(x)  # (B, 128, 128, 1)
    outputs = keras.layers.Activation("sigmoid", dtype="float32")(logits)
    return keras.Model(inputs, outputs, name=f"unet{width}")


def build_volume_unet(shape: tuple[int, int, int], width: int, depth: int) -> keras.Model:
    """The same U-Net for volumes (B, *shape, 1), with kernels of `depth` slices.

    With `depth` 3, kernels are 3x3x3 and pooling is by 2x2x2 (Çiçek et al., MICCAI 2016). With
    `depth` 1 they are 1x3x3 and 1x2x2: the U-Net for images, on every slice alone. The sides of
    `shape` must be multiples of 8 (the depth only where it is pooled).
    """
    pool = (2 if depth > 1 else 1, 2, 2)

    def block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        for _ in range(2):
            x = keras.layers.Conv3D(filters, (depth, 3, 3), padding="same")(x)
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.Activation("relu")(x)
        return x

    inputs = x = keras.Input((*shape, 1))
    passed = []
    for level in range(DEPTH):
        x = block(x, width << level)
        passed.append(x)
        x = keras.layers.MaxPooling3D(pool)(x)
    x = block(x, width << DEPTH)
    for level in reversed(range(DEPTH)):
        x = keras.layers.Conv3DTranspose(width << level, pool, strides=pool, padding="same")(x)
        x = keras.layers.Concatenate()([x, passed[level]])
        x = block(x, width << level)
    logits = keras.layers.Conv3D(1, 1, dtype="float32", name="logits")(x)
    outputs = keras.layers.Activation("sigmoid", dtype="float32")(logits)
    return keras.Model(inputs, outputs, name=f"unet_depth{depth}")


def forward_flops(model: keras.Model) -> int:
    """Multiplications and additions of `model`'s convolutions for one image.

    Training takes about three times as many: forward, and back to the inputs and to the weights.
    """
    total = 0
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        transposed = "Transpose" in type(layer).__name__
        places = (layer.input if transposed else layer.output).shape[1:-1]
        total += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(places))
    return total
