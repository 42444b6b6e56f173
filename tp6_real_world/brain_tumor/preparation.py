"""What is done to slices before a network sees them: normalised, stacked, sampled, moved.

Each policy has its rivals beside it, because README.md says what the choice costs:

- `normalise`: intensities of MRI have no unit, so each volume is brought to a common scale;
- `with_neighbours`: the slices above and below as channels;
- `sampler`: which slices an epoch sees. Slices are not equally important;
- `move_head`: mirror images, small turns, shifts, sizes and contrasts, for training alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

import labkit

ops = labkit.lazy("keras.ops")

Normalization = Literal["zscore", "percentile", "minmax"]
Sampling = Literal["balanced", "all", "tumour"]
KEEP_EMPTY = 0.5
"""How often `balanced` shows a slice without tumour, for each time that it shows one with."""


def normalise(volume: np.ndarray, how: Normalization) -> np.ndarray:
    """A patient's slices (d, h, w, sequences) on a common scale, float32, each sequence for itself.

    `zscore`: mean 0 and deviation 1 of the brain, within ±5. `percentile`: 0 and 1 are the brain's
    1st and 99th percentile, within -0.5 and 2. `minmax`: 0 and 1 are the volume's lowest and
    highest voxel, as the hand-out has it: one bright voxel then decides about all the others.
    The brain are voxels above a tenth of the 99th percentile. No mask is used.
    """
    volume = volume.astype(np.float32)
    scaled = np.empty_like(volume)
    for sequence in range(volume.shape[-1]):
        values = volume[..., sequence]
        if how == "minmax":
            low, high = values.min(), values.max()
            scaled[..., sequence] = (values - low) / max(high - low, 1e-6)
            continue
        brain = values[values > 0.1 * np.percentile(values, 99)]
        if not brain.size:
            brain = values
        if how == "zscore":
            shifted = (values - brain.mean()) / max(brain.std(), 1e-3)
            scaled[..., sequence] = np.clip(shifted, -5, 5)
        else:
            low, high = np.percentile(brain, [1, 99])
            scaled[..., sequence] = np.clip((values - low) / max(high - low, 1e-6), -0.5, 2)
    return scaled


def normalised(images: np.ndarray, groups: np.ndarray, how: Normalization) -> np.ndarray:
    """`normalise` for each patient of (n, h, w, sequences); `groups` (n,) int says whose it is."""
    scaled = np.empty(images.shape, np.float32)
    for group in np.unique(groups):
        scaled[groups == group] = normalise(images[groups == group], how)
    return scaled


def with_hot_voxel(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n, h, w, sequences) with one voxel twice as bright as the brightest, in each patient's first
    slice, in the corner: what a metal clip or a scanner's fault does. float32."""
    images = images.astype(np.float32)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        images[rows[0], 0, 0] = 2 * images[rows].max(axis=(0, 1, 2))
    return images


def with_neighbours(images: np.ndarray, groups: np.ndarray, reach: int, flair: int) -> np.ndarray:
    """(n, h, w, c) to (n, h, w, c + 2 reach): FLAIR of the slices above and below as channels.

    A patient's slices are in a row and in their order; the first and the last stand in for what
    lies beyond them. `flair` is its channel.
    """
    channels = [images]
    index = np.arange(len(images))
    for step in [*range(-reach, 0), *range(1, reach + 1)]:
        other = index
        for _ in range(abs(step)):
            following = np.clip(other + np.sign(step), 0, len(images) - 1)
            other = np.where(groups[following] == groups, following, other)
        channels.append(images[other][..., flair : flair + 1])
    return np.concatenate(channels, axis=-1)


def sampler(masks: np.ndarray, policy: Sampling) -> Callable[[np.random.Generator], np.ndarray]:
    """What draws the slices of an epoch for `labkit.batches.Batches`: n indices, in their order.

    `masks` is (n, h, w) bool. `all`: every slice once. `tumour`: only slices with a tumour, in
    turn. `balanced`: those without come half as often. An epoch has n slices under each policy,
    so that policies are compared at the same number of steps.
    """
    has_tumour = masks.any(axis=(1, 2))
    weight = {"all": 1.0, "balanced": KEEP_EMPTY, "tumour": 0.0}[policy]
    with_tumour, empty = np.flatnonzero(has_tumour), np.flatnonzero(~has_tumour)
    if not len(with_tumour):
        weight, with_tumour, empty = 1.0, empty, with_tumour
    share = len(with_tumour) / (len(with_tumour) + weight * len(empty))
    count = round(share * len(masks))

    def draw(rng: np.random.Generator) -> np.ndarray:
        order = [_in_turn(with_tumour, count, rng), _in_turn(empty, len(masks) - count, rng)]
        return rng.permutation(np.concatenate(order))

    return draw


def _in_turn(indices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `indices`, each as often as any other, but for one."""
    rounds = -(-count // max(1, len(indices)))
    shuffled = [rng.permutation(indices) for _ in range(rounds)]
    return np.concatenate([np.empty(0, int), *shuffled])[:count]


def move_head(
    images: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each slice mirrored or not, turned, scaled, shifted, with another contrast: a `Transform`.

    Left to right in half of the cases; up to 15 degrees, 12 % and a sixteenth of the side; contrast
    by up to 15 % and brightness by up to 0.15. Mask and image move together. (n, s, s, c) and
    (n, s, s, 1) keep their shapes; float32.
    """
    count, side = len(images), images.shape[1]
    angle = np.deg2rad(rng.uniform(-15, 15, count))
    scale = rng.uniform(0.88, 1.12, count)
    mirror = rng.choice([-1.0, 1.0], count)
    shift = rng.uniform(-side / 16, side / 16, (2, count))
    middle = (side - 1) / 2
    across = np.stack([mirror * np.cos(angle), -np.sin(angle)]) / scale  # of x, y in the result
    down = np.stack([mirror * np.sin(angle), np.cos(angle)]) / scale
    rows = [
        *across, middle - middle * across.sum(axis=0) + shift[0],
        *down, middle - middle * down.sum(axis=0) + shift[1],
        np.zeros(count), np.zeros(count),
    ]  # fmt: skip
    lowest = images.min(axis=(1, 2), keepdims=True)  # what lies outside is background
    both = np.concatenate([images - lowest, masks], axis=-1)
    moved = ops.image.affine_transform(
        both, np.stack(rows, axis=1).astype(np.float32), data_format="channels_last"
    )
    moved = ops.convert_to_numpy(moved)
    each = (count, 1, 1, 1)
    contrast, light = rng.uniform(0.85, 1.15, each), rng.uniform(-0.15, 0.15, each)
    images = (moved[..., :-1] + lowest) * contrast + light
    return images.astype(np.float32), (moved[..., -1:] > 0.5).astype(np.float32)


def move_picture(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same for pictures (n, s, s, 1) and their labels (n, ...), which stay: a `Transform`."""
    nothing = np.zeros((*images.shape[:3], 1), np.float32)
    return move_head(images, nothing, rng)[0], labels
