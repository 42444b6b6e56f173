"""Images of shapes with everything known about them: class of each pixel, box of each shape.

Both demonstrations use them, because CIFAR-10 has neither masks nor boxes. One to three discs,
squares and triangles of any colour, size and angle lie, without touching, on textured backgrounds
that may have any colour too: what a shape is can't be read off a pixel's colour.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

import labkit

SIZE = 48
"""Side of an image in pixels."""
CLASSES = ("disc", "square", "triangle")
MOST = 3
"""Shapes in an image, at most."""
PARTS = {"train": 0, "validation": 1, "test": 3}
"""Each part has a random generator of its own, whatever the seed of a training."""
SMOKE_SIZES = {"train": 64, "validation": 16, "test": 16}


@dataclass(frozen=True)
class Settings(labkit.Settings):
    """Settings of a training on these images."""

    epochs: int = 8
    """Passes over the training images, 1 or more."""
    data: labkit.DataChoice = "auto"
    """The images are generated: auto and sample are the same, real is refused."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        if self.data == "real":
            raise ValueError("--data real: these images are generated, there is no real set")


def generate(truth: Literal["masks", "boxes"], sizes: dict[str, int]) -> labkit.Data:
    """As many images of each part as `sizes` says, with the masks or boxes of `scenes` as truth.

    Usage: `generate("boxes", {"train": 4000, "validation": 300, "test": 500}).train.y[0]`.
    """
    parts = {}
    for part, count in sizes.items():
        images, masks, boxes = scenes(part, count)
        parts[part] = labkit.Part(images, masks if truth == "masks" else boxes)
    return labkit.Data("generated", **parts)


def scenes(part: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `count` images of `part`, their masks and boxes. Usage: `scenes("train", 9)[1]`.

    Images are (n, 48, 48, 3) uint8. Masks are (n, 48, 48) uint8: 0 for background, 1 + class
    elsewhere. Boxes are (n,) arrays of (shapes, 5) float32: left, top, right, bottom edge in
    pixels, 0 to 48, and class, 0 to 2.
    """
    rng = np.random.default_rng([48, PARTS[part]])
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    boxes = np.empty(count, object)
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        background = texture(rng)
        placed: list[tuple[float, float, float]] = []
        found = []
        for _ in range(rng.integers(1, MOST + 1)):
            circle = find_place(placed, rng)
            if circle is None:  # no room left
                break
            label = int(rng.integers(len(CLASSES)))
            ink = draw(label, *circle, rng.uniform(0, 2 * np.pi))
            paint = texture(rng)
            while np.abs(paint[ink].mean(axis=0) - background[ink].mean(axis=0)).sum() < 100:
                paint = texture(rng)
            background[ink], mask[ink] = paint[ink], 1 + label
            placed.append(circle)
            rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
            extent = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            found.append((*extent, label))
        image[:] = np.clip(background + rng.normal(0, 10, background.shape), 0, 255)
        boxes[index] = np.array(found, np.float32)
    return images, masks, boxes


def texture(rng: np.random.Generator) -> np.ndarray:
    """A colour with stripes of another one across it, (48, 48, 3) in 0..255."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(4, 16), rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi / period * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return rng.uniform(0, 255, 3) + wave[..., None] * rng.uniform(-40, 40, 3)


def find_place(
    placed: list[tuple[float, float, float]], rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Centre (x, y) and radius of a circle at least 2 pixels from all others; None after 50 tries.

    Radii are 5 to 11 pixels, and the circle is whole.
    """
    for _ in range(50):
        radius = rng.uniform(5, 11)
        x, y = rng.uniform(radius, SIZE - radius, 2)
        if all(np.hypot(x - u, y - v) > radius + r + 2 for u, v, r in placed):
            return x, y, radius
    return None


def draw(label: int, x: float, y: float, radius: float, angle: float) -> np.ndarray:
    """Where the shape is, (48, 48) bool: pixels whose centre lies in it."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    right, down = columns - x, rows - y
    if label == 0:
        return np.hypot(right, down) < radius
    corners = {1: 4, 2: 3}[label]
    sides = angle + 2 * np.pi / corners * np.arange(corners)
    distances = [right * np.cos(side) + down * np.sin(side) for side in sides]
    return np.max(distances, axis=0) < radius * np.cos(np.pi / corners)  # a regular polygon


def colour_distance(images: np.ndarray) -> np.ndarray:
    """Distance of each pixel from its image's median colour, (n, h, w); images (n, h, w, 3)."""
    values = images.astype(np.float32)
    return np.linalg.norm(values - np.median(values, axis=(1, 2), keepdims=True), axis=-1)
