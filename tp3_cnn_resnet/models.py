"""TP3's networks: each maps (B, 32, 32, 3) images in 0..1 to 10 probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import labkit

keras = labkit.lazy("keras")
normalisation = labkit.lazy("tp3_cnn_resnet.normalisation")

NUM_CLASSES = 10
INPUT_SHAPE = (32, 32, 3)


def to_input(images: np.ndarray) -> np.ndarray:
    """Values 0..255, (n, h, w, 3), to the networks' input: float32 in 0..1."""
    return images.astype(np.float32) / 255


def build_cnn() -> keras.Model:
    """The hand-out's network: 2,122,186 parameters, nearly all in the first dense layer."""
    inputs = keras.Input(INPUT_SHAPE)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)  # (B, 32, 32, 32)
    x = keras.layers.MaxPooling2D(2)(x)  # (B, 16, 16, 32)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(x)  # (B, 16, 16, 64)
    x = keras.layers.MaxPooling2D(2)(x)  # (B, 8, 8, 64)
    x = keras.layers.Flatten()(x)  # (B, 4096)
    x = keras.layers.Dense(512, activation="relu")(x)  # (B, 512)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="cnn")


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: tuple[int, int] = (3, 3),
    stride: int = 1,
    momentum: float | None = 0.99,
) -> keras.KerasTensor:
    """A convolution and batch normalisation of that `momentum`; None: no normalisation."""
    x = keras.layers.Conv2D(filters, kernel_size, strides=stride, padding="same")(x)
    if momentum is None:
        return x
    return normalisation.OnePassBatchNormalization(momentum=momentum)(x)


def residual_block(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: tuple[int, int] = (3, 3),
    stride: int = 1,
    momentum: float | None = 0.99,
) -> keras.KerasTensor:
    """relu(x + F(x)), F two convolutions (He et al. 2016, section 3.2, equations 1 and 2).

    (B, h, w, c) becomes (B, h / stride, w / stride, filters). The skip connection is projected by
    a 1x1 convolution whenever stride or channels change: shapes must match to be added.
    """
    y = keras.layers.Activation("relu")(convolve(x, filters, kernel_size, stride, momentum))
    y = convolve(y, filters, kernel_size, 1, momentum)
    if stride > 1 or x.shape[-1] != filters:
        x = convolve(x, filters, (1, 1), stride, momentum)
    return keras.layers.Activation("relu")(keras.layers.Add()([x, y]))


def build_resnet(momentum: float | None = 0.99) -> keras.Model:
    """The hand-out's Mini-ResNet, three residual blocks.

    With batch normalisation it begins with a convolution: 153,098 parameters. Without
    (`momentum=None`), as the hand-out's text has it, the blocks begin at once: 142,314. `momentum`
    is the memory of the moving averages; Keras' own default is 0.99.
    """
    inputs = x = keras.Input(INPUT_SHAPE)
    if momentum is not None:
        x = keras.layers.Activation("relu")(convolve(x, 32, momentum=momentum))  # (B, 32, 32, 32)
    x = residual_block(x, 32, momentum=momentum)  # (B, 32, 32, 32)
    x = residual_block(x, 64, stride=2, momentum=momentum)  # (B, 16, 16, 64)
    x = residual_block(x, 64, momentum=momentum)  # (B, 16, 16, 64)
    x = keras.layers.GlobalAveragePooling2D()(x)  # (B, 64)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32")(x)  # (B, 10)
    return keras.Model(inputs, outputs, name="resnet_plain" if momentum is None else "resnet")


def load(path: Path) -> keras.Model:
    """A saved network of this lab, its own layers too. Usage: `load(run.folder / "m.keras")`."""
    import tp3_cnn_resnet.normalisation  # noqa: F401, registers its layer

    return keras.saving.load_model(path)


def forward_flops(model: keras.Model, side: int = 32) -> int:
    """Multiplications and additions of `model`'s convolutions and dense layers for one image.

    `side` is the image's in pixels. Training takes about three times as many: forward, and back
    to the inputs and to the weights.
    """
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    outputs = keras.Model(model.input, [layer.output for layer in layers])(
        np.zeros((1, side, side, 3), np.float32)
    )
    return sum(
        2 * int(np.prod(layer.kernel.shape)) * int(np.prod(output.shape[1:-1]))
        for layer, output in zip(layers, outputs, strict=True)
    )
