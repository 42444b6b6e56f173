"""TP4's U-Nets: images (B, 128, 128, 1), or volumes, to as many probabilities of the target."""

from __future__ import annotations

import numpy as np

import labkit

keras = labkit.lazy("keras")

SIZE = 128
HANDOUT_WIDTH = 32
DEPTH = 3
"""Poolings: the sides of an image must be multiples of 2 ** 3."""


def build_unet(width: int = HANDOUT_WIDTH, depth: int = DEPTH) -> keras.Model:
    """The U-Net of Ronneberger et al. (MICCAI 2015), as the hand-out scales it.

    `width` filters at full resolution, doubled at each of the `depth` poolings. With 32 and 3 it
    is the hand-out's: 32, 64, 128, a bottleneck of 256, 1,930,657 parameters.
    """
    inputs = keras.Input((SIZE, SIZE, 1))
    return _unet(f"unet{width}", inputs, width, depth, kernel=(3, 3), pool=(2, 2))


def build_volume_unet(shape: tuple[int, int, int], width: int, depth: int) -> keras.Model:
    """The same U-Net for volumes (B, *shape, 1), with kernels of `depth` slices.

    With `depth` 3, kernels are 3x3x3 and pooling is by 2x2x2 (Çiçek et al., MICCAI 2016). With
    `depth` 1 they are 1x3x3 and 1x2x2: the U-Net for images, on every slice alone. The sides of
    `shape` must be multiples of 8 (the depth only where it is pooled).
    """
    inputs, pool = keras.Input((*shape, 1)), (2 if depth > 1 else 1, 2, 2)
    return _unet(f"unet_depth{depth}", inputs, width, DEPTH, (depth, 3, 3), pool)


def _unet(
    name: str, inputs: keras.KerasTensor, width: int, depth: int, kernel: tuple, pool: tuple
) -> keras.Model:
    """A U-Net in as many dimensions as `kernel` and `pool` have; shapes are the hand-out's.

    The moving averages have a momentum of 0.9: with Keras' 0.99 they lag behind for the first
    several epochs of a short training, and so would every validation figure.
    """
    layers = keras.layers
    convolve, pooled, enlarged = {
        2: (layers.Conv2D, layers.MaxPooling2D, layers.Conv2DTranspose),
        3: (layers.Conv3D, layers.MaxPooling3D, layers.Conv3DTranspose),
    }[len(kernel)]

    def block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        for _ in range(2):
            x = convolve(filters, kernel, padding="same")(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.Activation("relu")(x)
        return x

    x, passed = inputs, []
    for level in range(depth):
        x = block(x, width << level)  # (B, 128, 128, 32), (B, 64, 64, 64), (B, 32, 32, 128)
        passed.append(x)
        x = pooled(pool)(x)  # half the size
    x = block(x, width << depth)  # (B, 16, 16, 256)
    for level in reversed(range(depth)):
        x = enlarged(width << level, pool, strides=pool, padding="same")(x)
        x = layers.Concatenate()([x, passed[level]])  # detail that pooling has dropped
        x = block(x, width << level)  # (B, 32, 32, 128), (B, 64, 64, 64), (B, 128, 128, 32)
    outputs = convolve(1, 1, activation="sigmoid", dtype="float32")(x)  # (B, 128, 128, 1)
    return keras.Model(inputs, outputs, name=name)


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
