"""TP4's U-Net: (B, 128, 128, 1) pictures to (B, 128, 128, 1) probabilities of the target."""

import numpy as np

import labkit

keras = labkit.lazy("keras")

SIZE = 128
HANDOUT_WIDTH = 32
DEPTH = 3
"""Poolings: the sides of a picture must be multiples of 2 ** 3."""


def conv_block(x: "keras.KerasTensor", filters: int) -> "keras.KerasTensor":
    """The hand-out's block, twice 3x3 convolution, batch normalisation, ReLU; the size stays.

    The moving averages have a momentum of 0.9: with Keras' 0.99 they lag behind for the first
    several epochs of a short training, and so would every validation figure.
    """
    for _ in range(2):
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.Activation("relu")(x)
    return x


def build_unet(width: int = HANDOUT_WIDTH) -> "keras.Model":
    """The U-Net of Ronneberger et al. (MICCAI 2015), as the hand-out scales it.

    `width` filters at full resolution, doubled at each of the three poolings. With 32 it is the
    hand-out's: 32, 64, 128, a bottleneck of 256, 1,930,657 parameters. The shapes below are
    for `width` 32.
    """
    inputs = x = keras.Input((SIZE, SIZE, 1))
    passed = []
    for level in range(DEPTH):
        x = conv_block(x, width << level)  # (B, 128, 128, 32), (B, 64, 64, 64), (B, 32, 32, 128)
        passed.append(x)
        x = keras.layers.MaxPooling2D(2)(x)  # half the size
    x = conv_block(x, width << DEPTH)  # (B, 16, 16, 256)
    for level in reversed(range(DEPTH)):
        x = keras.layers.Conv2DTranspose(width << level, 2, strides=2, padding="same")(x)
        x = keras.layers.Concatenate()([x, passed[level]])  # detail that pooling has dropped
        x = conv_block(x, width << level)  # (B, 32, 32, 128), (B, 64, 64, 64), (B, 128, 128, 32)
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=f"unet{width}")  # (B, 128, 128, 1)


def forward_flops(model: "keras.Model") -> int:
    """Multiplications and additions of `model`'s convolutions for one picture.

    Training takes about three times as many: forward, and back to the inputs and to the weights.
    """
    total = 0
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        transposed = isinstance(layer, keras.layers.Conv2DTranspose)
        places = (layer.input if transposed else layer.output).shape[1:-1]
        total += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(places))
    return total
