"""From a trained Keras model to the file that the API serves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import labkit

keras = labkit.lazy("keras")


def export_for_serving(model: keras.Model, path: Path, images: np.ndarray) -> float:
    """Write `model` for LiteRT, check it against Keras, and return the largest difference.

    `images` is (n, 784) in 0..1. Raises `RuntimeError` above 1e-5: such a file must not be served.
    """
    from ai_edge_litert.interpreter import Interpreter

    expected = keras.ops.convert_to_numpy(model(images))  # Keras wants one call before an export
    model.export(path, format="litert", verbose=False)
    interpreter = Interpreter(str(path))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    served = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    difference = float(np.abs(served - expected).max())
    if not difference <= 1e-5:
        raise RuntimeError(f"{path}: the export differs from Keras by {difference:.1e}, above 1e-5")
    return difference


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, as in the card beside an export."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
