"""CIFAR-10's two harmless changes, on whole batches in NumPy: mirror images and small shifts."""

from __future__ import annotations

import numpy as np

from tp3_cnn_resnet.models import to_input


def translated(images: np.ndarray, rng: np.random.Generator, reach: int) -> np.ndarray:
    """`images` (n, h, w, c), each moved by -reach..reach pixels; the border is mirrored."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect")
    top, left = rng.integers(0, 2 * reach + 1, (2, count, 1, 1))
    rows, columns = top + np.arange(height)[:, None], left + np.arange(width)
    return padded[np.arange(count)[:, None, None], rows, columns]


def mirrored(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`images` (n, h, w, c), those `chosen` (n,) bool with left and right exchanged."""
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def mirrored_and_moved(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the images mirrored, all moved by up to 4 pixels, as the networks' input."""
    chosen = rng.random(len(images)) < 0.5
    return to_input(translated(mirrored(images, chosen), rng, reach=4))
