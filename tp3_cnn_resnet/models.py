"""What is done with any network of this lab: its input, its probabilities, its work, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import labkit

keras = labkit.lazy("keras")


def to_input(images: np.ndarray) -> np.ndarray:
    """Values 0..255, (n, h, w, 3), to the networks' input: float32 in 0..1."""
    return images.astype(np.float32) / 255


def predict(model: keras.Model, images: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Probabilities (n, classes) of `images` (n, h, w, 3) uint8.

    `mirrored`: the mean of those of each image and of its mirror image.
    """
    inputs = to_input(images)
    probabilities = model.predict(inputs, batch_size=500, verbose=0)
    if mirrored:
        other = model.predict(inputs[:, :, ::-1], batch_size=500, verbose=0)
        probabilities = (probabilities + other) / 2
    return probabilities


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


def load_model(path: Path) -> keras.Model:
    """A saved network, its own layers too. Usage: `load_model(run.folder / "model.keras")`."""
    import tp3_cnn_resnet.normalisation  # noqa: F401, registers its layer

    return labkit.load_model(path)
