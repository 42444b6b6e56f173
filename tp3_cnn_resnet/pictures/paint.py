"""Colours, gradients and smooth noise: what both sample images are painted with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import labkit

ndimage = labkit.lazy("scipy.ndimage")

WIDTH, HEIGHT = 640, 480


def colour(text: str) -> np.ndarray:
    """`#rrggbb` as float RGB, (3,), 0..1."""
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def noise(rng: np.random.Generator, shape: tuple[int, int], sigmas: Sequence[float]) -> np.ndarray:
    """Smooth noise in 0..1, (height, width): white noise blurred at several scales, summed."""
    total = np.zeros(shape)
    for sigma in sigmas:
        layer = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
        total += layer / layer.std() * sigma
    total -= total.min()
    return total / total.max()


def gradient(stops: Sequence[tuple[float, str]], t: np.ndarray) -> np.ndarray:
    """Colours at `t` (any shape) between the stops `(position, colour)`: (..., 3) in 0..1."""
    positions = [position for position, _ in stops]
    colours = np.array([colour(text) for _, text in stops])
    return np.stack([np.interp(t, positions, colours[:, c]) for c in range(3)], axis=-1)
