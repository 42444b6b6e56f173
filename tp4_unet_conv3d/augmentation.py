"""Images and masks that are moved together, and the images that an epoch sees.

`turn`, `mirror` and `move_head` are transforms of `labkit.batches.Batches`, `fewer_empty` makes its
`draw`. Images are float32; masks are float32 of zeros and ones.
"""

from collections.abc import Callable

import numpy as np

import labkit

ndimage = labkit.lazy("scipy.ndimage")


def fewer_empty(masks: np.ndarray, share: float) -> Callable[[np.random.Generator], np.ndarray]:
    """What draws an epoch's images: all with a target, and a `share` (0..1) of those without.

    It draws other ones for each epoch. `masks` is (n, ...) of any type, 0 for the background.
    """
    empty = ~masks.any(axis=tuple(range(1, masks.ndim)))

    def draw(rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(len(empty))
        return np.delete(order, np.flatnonzero(empty[order])[round(share * empty.sum()) :])

    return draw


def turn(
    images: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each image in one of the eight positions of a square, and a little brighter or darker.

    Nothing under a microscope is upright. (n, s, s, c) and (n, s, s, 1) keep their shapes.
    """
    images, masks = images.copy(), masks.copy()
    for index, (turns, mirrored) in enumerate(rng.integers(0, [4, 2], (len(images), 2))):
        for array in (images, masks):
            turned = np.rot90(array[index], turns)
            array[index] = turned[:, ::-1] if mirrored else turned
    images *= rng.uniform(0.9, 1.1, (len(images), 1, 1, 1)).astype(np.float32)
    return images, masks


def mirror(
    volumes: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each volume mirrored left to right or not, along depth or not, and a little brighter or not.

    (n, d, h, w, c) and (n, d, h, w, 1) keep their shapes.
    """
    volumes, masks = volumes.copy(), masks.copy()
    for index, (depth, width) in enumerate(1 - 2 * rng.integers(0, 2, (len(volumes), 2))):
        for array in (volumes, masks):
            array[index] = array[index, ::depth, :, ::width]
    volumes *= rng.uniform(0.9, 1.1, (len(volumes), 1, 1, 1, 1)).astype(np.float32)
    return volumes, masks


def move_head(
    images: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each slice mirrored left to right or not, turned, scaled, shifted, with another contrast.

    Up to 15 degrees, 12 % and 8 pixels; contrast by up to 15 %, brightness by up to 0.15 and a
    bend of the grey scale (gamma 0.8 to 1.25). (n, s, s, c) and (n, s, s, 1) keep their shapes.
    """
    moved, moved_masks = np.empty_like(images), np.empty_like(masks)
    middle = (images.shape[1] - 1) / 2
    for index in range(len(images)):
        angle = np.deg2rad(rng.uniform(-15, 15))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation / rng.uniform(0.88, 1.12)
        matrix[:, 1] *= rng.choice([-1, 1])
        offset = middle - matrix @ [middle, middle] + rng.uniform(-8, 8, 2)
        for source, target in ((images, moved), (masks, moved_masks)):
            for channel in range(source.shape[-1]):
                plane = source[index, ..., channel]
                target[index, ..., channel] = ndimage.affine_transform(
                    plane, matrix, offset, order=1, mode="constant", cval=plane.min()
                )
    each = (len(images), 1, 1, 1)
    low, high = moved.min(axis=(1, 2), keepdims=True), moved.max(axis=(1, 2), keepdims=True)
    span = np.maximum(high - low, 1e-6)
    gamma = rng.uniform(0.8, 1.25, each).astype(np.float32)
    moved = low + span * ((moved - low) / span) ** gamma
    moved = moved * rng.uniform(0.85, 1.15, each) + rng.uniform(-0.15, 0.15, each)
    return moved.astype(np.float32), (moved_masks > 0.5).astype(np.float32)
