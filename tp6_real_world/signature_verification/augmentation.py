"""New writers from known ones: warps that all signatures of a writer in a batch share.

Thirty-three writers are few. A strong warp, a mirror image or another pen makes of all signatures
of one writer, genuine and forged, those of somebody who doesn't exist, while what tells them apart
stays. A second, small warp of each signature alone is what a hand does from one day to the next.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

GRID = (4, 6)
"""Points of the coarse grid whose random displacements bend the canvas."""
STRENGTH, BEND = 0.25, 4.0
"""Of a writer's warp: affine, and displacement of the grid's points in pixels."""
OWN_STRENGTH, OWN_BEND = 0.05, 0.4
"""Of a signature's own."""


def _upsampling(points: int, size: int) -> np.ndarray:
    """(size, points): weights that interpolate `points` values linearly over `size` pixels."""
    position = np.linspace(0, points - 1, size)
    return np.maximum(0, 1 - np.abs(position[:, np.newaxis] - np.arange(points))).astype(np.float32)


def coordinates(
    rng: np.random.Generator, count: int, size: tuple[int, int], strength: float, bend: float
) -> np.ndarray:
    """`count` random smooth maps of the canvas, (count, 2, h, w): where each pixel comes from.

    `strength` scales an affine map (0.1: a tenth of stretch, about 6 degrees of turn, a tenth of
    slant), `bend` the displacement of the grid's points, in pixels.
    """
    height, width = size
    y = np.arange(height, dtype=np.float32) - (height - 1) / 2
    x = np.arange(width, dtype=np.float32) - (width - 1) / 2
    matrix = np.eye(2) + strength * rng.uniform(-1, 1, (count, 2, 2)) * [[1, 0.6], [1, 1]]
    matrix = matrix.astype(np.float32)
    down, right = _upsampling(GRID[0], height), _upsampling(GRID[1], width)
    points = bend * rng.standard_normal((count, 2, *GRID)).astype(np.float32)
    maps = down @ points @ right.T  # (count, 2, h, w)
    for axis, centre in ((0, (height - 1) / 2), (1, (width - 1) / 2)):
        maps[:, axis] += matrix[:, axis, 0, None, None] * y[:, None] + centre
        maps[:, axis] += matrix[:, axis, 1, None, None] * x
    return maps


def sample(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """`images` (n, h, w) float32 read at `maps` (n, 2, h, w), bilinearly; 0 outside."""
    return np.stack([
        ndimage.map_coordinates(image, places, order=1, prefilter=False)
        for image, places in zip(images, maps, strict=True)
    ])  # fmt: skip


def thicken(images: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Strokes thicker (`amount` (n,) in 0..1: up to a pixel on each side) or thinner (-1..0)."""
    wide, thin = images.copy(), images.copy()
    for axis in (1, 2):
        for source, operation in ((wide, np.maximum), (thin, np.minimum)):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            before = source.copy()
            operation(source[tuple(ahead)], before[tuple(behind)], out=source[tuple(ahead)])
            operation(source[tuple(behind)], before[tuple(ahead)], out=source[tuple(behind)])
    amount = amount.astype(np.float32)[:, None, None]
    return images + np.where(amount > 0, amount * (wide - images), -amount * (thin - images))


def augment(
    images: np.ndarray, writers: np.ndarray, rng: np.random.Generator, kind: str = "writers"
) -> np.ndarray:
    """Signatures (n, h, w) uint8 as others of the same kind, (n, h, w, 1) float32 in 0..1.

    `writers`: all signatures of a writer in `writers` (n,) share a strong warp, a mirror image for
    every second one, and a pen; each has a small warp of its own besides. `signatures`: the small
    one only. `none`: as they are.
    """
    images = images.astype(np.float32) / 255
    if kind == "none":
        return images[..., np.newaxis]
    _, of = np.unique(writers, return_inverse=True)
    count, size = int(of.max()) + 1, images.shape[1:]
    maps = coordinates(rng, len(images), size, OWN_STRENGTH, OWN_BEND)
    pens = rng.normal(0, 0.1, len(images))
    mirrored = rng.random(count) < 0.5
    if kind == "writers":
        still = coordinates(rng, 1, size, 0, 0)
        maps += coordinates(rng, count, size, STRENGTH, BEND)[of] - still  # small changes add up
        pens += rng.uniform(-0.6, 0.6, count)[of]
    found = sample(images, maps)
    if kind == "writers":
        found[mirrored[of]] = found[mirrored[of], :, ::-1]
    return np.clip(thicken(found, np.clip(pens, -0.8, 0.8)), 0, 1)[..., np.newaxis]
