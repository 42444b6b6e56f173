"""A volumetric task that no slice solves: is a helix left- or right-handed?

Each volume shows one tube that winds around the depth axis, among rods, blobs and noise. Its
handedness is the label. Three facts about the generator make it a task for three dimensions:

- A mirror along any axis turns left into right, and a scene is as probable as its mirror image.
- So the *set of slices* says nothing: reversing their order is a mirror. A model that scores each
  slice alone and averages or votes can't exceed 50 %. Nor can one that sees a projection along an
  axis, which the mirror along this axis leaves unchanged.
- *One* slice says nothing either: the tube's place in it is as probable for both, since the phase
  is random.

For segmentation (`tubes`) the same volumes come with the mask of the tube.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from tqdm import tqdm

from labkit import figures
from labkit.datasets import Data, Part

SIZE = 32
"""Voxels along each edge of a volume."""
MIDDLE = (SIZE - 1) / 2
LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class Volumes(Data):
    """Volumes in three parts: `x` (n, depth, height, width) uint8 0 to 255, `y` (n,) uint8."""

    classes: tuple[str, ...]
    """Name of each label in `y`."""


@dataclass(frozen=True)
class Scene:
    """All that decides a volume, in voxels from its middle, in radians and in grey values 0..1.

    Coordinates are in the order depth, row, column.
    """

    handedness: int
    """LEFT or RIGHT."""
    phase: float
    """Angle of the tube in the middle slice, from the column axis to the row axis."""
    radius: float
    pitch: float
    """Depth of one turn."""
    thickness: float
    """Standard deviation of the tube's Gaussian profile."""
    brightness: float
    centre: np.ndarray
    """(2,) row and column of the axis in the middle slice."""
    tilt: np.ndarray
    """(2,) shift of the axis for each slice."""
    extent: np.ndarray
    """(2,) depths between which the tube runs."""
    rods: np.ndarray
    """(n, 8) distractors: a point (3), a direction (3), half a length, a brightness."""
    noise: np.ndarray
    """(32, 32, 32) float32, added to all."""

    def mirrored(self) -> Self:
        """The same scene behind a mirror along depth: the same slices, in reverse order."""
        flip = np.ones(8)
        flip[[0, 3]] = -1
        return replace(
            self,
            handedness=1 - self.handedness,
            tilt=-self.tilt,
            extent=-self.extent[::-1],
            rods=self.rods * flip,
            noise=self.noise[::-1],
        )


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene; every distribution below is symmetric under a mirror along each axis."""
    length = rng.uniform(16, 34)
    shift = rng.uniform(-1, 1) * max(0.0, SIZE - length) / 2
    rods = np.empty((rng.integers(2, 7), 8))
    rods[:, :3] = rng.uniform(-14, 14, (len(rods), 3))
    rods[:, 3:6] = rng.normal(size=(len(rods), 3))
    rods[:, 3:6] /= np.linalg.norm(rods[:, 3:6], axis=1, keepdims=True)
    rods[:, 6] = rng.uniform(0, 8, len(rods))  # from a blob to half the volume's edge
    rods[:, 7] = rng.uniform(0.3, 0.7, len(rods))
    return Scene(
        handedness=int(rng.integers(2)),
        phase=rng.uniform(0, 2 * np.pi),
        radius=rng.uniform(4, 9),
        pitch=rng.uniform(14, 32),
        thickness=rng.uniform(1.0, 1.6),
        brightness=rng.uniform(0.35, 0.6),
        centre=rng.uniform(-5, 5, 2),
        tilt=rng.uniform(-0.08, 0.08, 2),
        extent=np.array([shift - length / 2, shift + length / 2]),
        rods=rods,
        noise=rng.normal(0, rng.uniform(0.04, 0.14), (SIZE,) * 3).astype(np.float32),
    )


_AXIS = np.arange(SIZE, dtype=np.float32) - MIDDLE


def render(scene: Scene) -> np.ndarray:
    """The volume of `scene`: (32, 32, 32) uint8, axes depth, row, column."""
    volume = 0.2 + scene.brightness * tube(scene)
    for rod in scene.rods.astype(np.float32):
        point, direction, half, brightness = rod[:3], rod[3:6], rod[6], rod[7]
        offsets = np.ix_(*(_AXIS - coordinate for coordinate in point))
        along = np.clip(sum(o * d for o, d in zip(offsets, direction, strict=True)), -half, half)
        distance = sum((o - along * d) ** 2 for o, d in zip(offsets, direction, strict=True))
        volume += brightness * np.exp(-distance / (2 * 1.3**2))
    return np.rint(255 * np.clip(volume + scene.noise, 0, 1)).astype(np.uint8)


def tube(scene: Scene) -> np.ndarray:
    """The tube alone: (32, 32, 32) float32, 1 on its axis, falling off to 0."""
    sign = 1 if scene.handedness == RIGHT else -1
    angle = scene.phase + sign * 2 * np.pi * _AXIS / scene.pitch
    rows = scene.centre[0] + scene.tilt[0] * _AXIS + scene.radius * np.sin(angle)
    columns = scene.centre[1] + scene.tilt[1] * _AXIS + scene.radius * np.cos(angle)
    first, last = scene.extent
    seen = (first <= _AXIS) & (last >= _AXIS)
    return (
        seen[:, None, None]
        * _bell(_AXIS - rows[:, None], scene.thickness)[:, :, None]
        * _bell(_AXIS - columns[:, None], scene.thickness)[:, None, :]
    ).astype(np.float32)


def _bell(distance: np.ndarray, deviation: float) -> np.ndarray:
    return np.exp(-(distance**2) / (2 * deviation**2)).astype(np.float32)


TUBE_EDGE = 0.5
"""Part of its axis' brightness from which a voxel belongs to the tube."""


def tubes(count: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes and the masks of their tubes: (count, 32, 32, 32) uint8 and bool.

    `stream` keys the generator, apart from those of `helices`.
    """
    scenes = [draw_scene(np.random.default_rng([2025, stream, index])) for index in range(count)]
    masks = [tube(scene) >= TUBE_EDGE for scene in scenes]
    return np.stack([render(scene) for scene in scenes]), np.stack(masks)


def helices(train: int = 1200, validation: int = 300, test: int = 1000) -> Volumes:
    """The task's volumes, the same at every call; each part has a random generator of its own.

    The counts are volumes. A smaller part is the beginning of a larger one.
    """
    parts, digest = {}, hashlib.sha256()
    counts = {"train": train, "validation": validation, "test": test}
    for stream, (part, count) in enumerate(counts.items()):
        x, y = np.empty((count, SIZE, SIZE, SIZE), np.uint8), np.empty(count, np.uint8)
        for index in tqdm(range(count), f"helices, {part}", unit="volume", leave=False):
            scene = draw_scene(np.random.default_rng([2024, stream, index]))
            x[index], y[index] = render(scene), scene.handedness
        parts[part] = Part(x, y)
        digest.update(x)
    return Volumes(f"simulated:{digest.hexdigest()[:8]}", **parts, classes=("left", "right"))


# --- To look at ----------------------------------------------------------------------------------


def mirrored_pairs(classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Two helices and their mirror images, by their titles: (32, 32, 32) uint8 each."""
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in (3, 5)]
    return {
        f"{number}{mirror}: {classes[each.handedness]}": render(each)
        for number, scene in zip("AB", scenes, strict=True)
        for mirror, each in (("", scene), (" mirrored", scene.mirrored()))
    }


def slices_figure(volumes: dict[str, np.ndarray]) -> figures.Figure:
    """Eight slices of each volume, and its maximum along depth in the colour of its depth.

    Volumes are (depth, height, width) uint8, by their titles.
    """
    import matplotlib
    from scipy.ndimage import gaussian_filter

    figure, axes = figures.subplots(len(volumes), 9, size=(14.5, 1.7 * len(volumes) + 0.3))
    for row, (title, volume) in zip(axes, volumes.items(), strict=True):
        last = len(volume) - 1
        depths = np.linspace(0.1 * last, 0.9 * last, 8).round().astype(int)
        for axis, depth in zip(row, depths, strict=False):
            axis.imshow(volume[depth], cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"slice {depth}", fontsize=8, fontweight="normal")
        smooth = gaussian_filter(volume.astype(np.float32), 0.8)
        bright = smooth.max(axis=0) - np.percentile(smooth.max(axis=0), 30)
        bright = np.clip(bright / bright.max(), 0, 1)[..., None]
        colours = matplotlib.colormaps["viridis"](smooth.argmax(axis=0) / last)[..., :3]
        row[-1].imshow(colours * bright, interpolation="bicubic")
        row[-1].set_title("maximum along depth", fontsize=8, fontweight="normal")
        row[0].set_ylabel(title)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, last), "viridis")
    figure.colorbar(scale, ax=axes[:, -1], label="depth of the maximum (slice)", fraction=0.08)
    return figure
