"""Generated heads for a machine without real MRI: they show that everything runs, no more.

An ellipse with skull, ventricles and folds, in most heads a blob that is bright in FLAIR over some
neighbouring slices. Heads differ in form, tilt and place, and in brightness as scanners do. None of
their figures says anything about medicine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import labkit

ndimage = labkit.lazy("scipy.ndimage")

HEALTHY = 0.15
"""Share of the heads without a tumour."""


def phantom_patients(
    count: int, slices: int, size: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`count` heads: images (slices, size, size, 3) uint8 and masks (slices, size, size) bool."""
    for index in range(count):
        yield phantom(np.random.default_rng([seed, index]), slices, size)


def phantom(
    rng: np.random.Generator, slices: int, size: int, healthy: float = HEALTHY
) -> tuple[np.ndarray, np.ndarray]:
    """One head: images (slices, size, size, 3) uint8 and masks (slices, size, size) bool.

    It has no tumour with probability `healthy`.
    """
    z, y, x = np.meshgrid(
        np.linspace(-0.8, 0.8, slices), *[np.linspace(-1, 1, size)] * 2, indexing="ij"
    )
    tilt, (down, right) = np.deg2rad(rng.uniform(-15, 15)), rng.uniform(-0.08, 0.08, 2)
    y, x = y - down, x - right
    y, x = np.cos(tilt) * y + np.sin(tilt) * x, np.cos(tilt) * x - np.sin(tilt) * y
    tall, wide = rng.uniform(0.65, 0.85), rng.uniform(0.5, 0.7)
    radius = np.sqrt((y / tall) ** 2 + (x / wide) ** 2 + (0.7 * z) ** 2)
    brain = radius < 0.9
    fine, coarse = (_noise(rng, z.shape, size / width) for width in (40, 8))
    folds = 0.06 * fine + 0.08 * coarse
    apart, thick, long = rng.uniform(0.08, 0.2), rng.uniform(0.03, 0.09), rng.uniform(0.15, 0.4)
    ventricles = (np.abs(np.abs(x) - apart) < thick) & (np.abs(y) < long) & (np.abs(z) < 0.4)
    mask = np.zeros(z.shape, bool)
    if rng.random() >= healthy:
        centre = rng.uniform(-0.5, 0.5, 3) * [1, tall, wide]
        extent = rng.uniform(0.15, 0.35, 3) * [1.6, 1, 1]
        away = sum(
            ((axis - middle) / reach) ** 2
            for axis, middle, reach in zip((z, y, x), centre, extent, strict=True)
        )
        mask = brain & (away + 0.3 * fine < 1)
    images = []
    for tissue, fluid, tumour in ((0.5, 0.2, -0.1), (0.45, 0.1, 0.25), (0.5, 0.2, 0.1)):
        plane = np.where(brain, tissue + folds, 0)
        plane[brain & ventricles] = fluid
        plane[mask] += tumour
        plane[(radius >= 0.93) & (radius < 1)] = 0.6
        plane += rng.normal(scale=0.03, size=plane.shape)
        images.append(np.clip(rng.uniform(0.7, 1.1) * plane, 0, 1))
    return (255 * np.stack(images, axis=-1)).astype(np.uint8), mask


def _noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1; `scale` is its blobs' size, pixels."""
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0.5, scale, scale))
    return smooth / smooth.std()
