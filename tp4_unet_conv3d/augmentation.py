"""Training batches of images and masks that are moved together; imports Keras."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from labkit.batches import Batches

Augment = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


class SegmentationBatches(Batches):
    """Batches whose images and masks are augmented alike, in an order that can be resumed.

    `keep_empty` is the share of images without target that an epoch takes, another draw each
    time: below 1, those with a target come more often.
    """

    def __init__(self, *arguments, augment: Augment, keep_empty: float = 1.0, **settings) -> None:
        """As `Batches`, of images (n, h, w, c) float32 and masks (n, h, w, 1) float32."""
        self.augment, self.keep_empty = augment, keep_empty
        super().__init__(*arguments, **settings)

    def _shuffled(self) -> np.ndarray:
        order = super()._shuffled()
        empty = ~self.y[order].any(axis=tuple(range(1, self.y.ndim)))
        dropped = np.flatnonzero(empty)[round(self.keep_empty * empty.sum()) :]
        return np.delete(order, dropped)

    def __len__(self) -> int:
        """Batches of one epoch, always as many."""
        return -(-len(self._order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of the current epoch."""
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        return self.augment(self.x[chosen], self.y[chosen], rng)


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
